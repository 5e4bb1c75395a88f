"""What every pull needs."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from yibu.errors import DiskFullError, HubError, OfflineError, VerificationError
from yibu.hub.digest import Expected
from yibu.hub.headers import HeaderChooser, first_usual
from yibu.hub.http import HttpClient
from yibu.hub.progress import ProgressMeter
from yibu.hub.records import Record, Records, slug
from yibu.hub.settings import HubSettings
from yibu.hub.types import Source
from yibu.messages import tr
from yibu.paths import remedy
from yibu.units import sizes_apart

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""EFBIG: a limit on the size of files (ulimit -f), with the same remedy."""

Pins = Mapping[str, tuple[int, str]]
"""path in the model → (bytes, sha256 hex)"""


@dataclass(frozen=True, slots=True)
class PullContext:
    """The tools of one pull. ``pins`` are what the caller knows of the files beforehand."""

    store: Path
    records: Records
    settings: HubSettings
    client: HttpClient
    meter: ProgressMeter
    cancel: threading.Event
    pins: Pins = field(default_factory=dict)
    choose: HeaderChooser = first_usual
    """Picks the quantization of a GGUF repository that has several."""


def pinned(pins: Pins, path: str, known: Expected) -> Expected:
    """What is expected of ``path``: its pin, else what the hub says."""
    if path not in pins:
        return known
    size, sha256 = pins[path]
    return Expected(size, sha256)


def check_pins_met(source: Source, pins: Pins, paths: set[str]) -> None:
    """Raises VerificationError when a pinned file is not among the model's files."""
    if missing := sorted(set(pins) - paths):
        raise VerificationError(
            "{source}: {missing} should be there, found: {paths}.",
            source=source,
            missing=", ".join(missing),
            paths=", ".join(sorted(paths)),
            hint="The hub's model is not the one that was pinned: name its revision",
        )


def record_meets(record: Record, pins: Pins) -> bool:
    """Whether the record's files have the pinned sizes and hashes."""
    have = {file.path: (file.size, file.sha256) for file in record.files}
    return all(have.get(path) == pin for path, pin in pins.items())


def check_room(directory: Path, needed: int, what: str) -> None:
    """Raises DiskFullError when the file system of ``directory`` has less than ``needed`` bytes."""
    free = shutil.disk_usage(existing_parent(directory)).free
    if free < needed:
        more, left = sizes_apart(needed, free)
        raise DiskFullError(
            "{what} needs {more} more in {directory}, but only {left} are free.",
            what=what,
            more=more,
            directory=directory,
            left=left,
            hint="Free some room (`yibu gc`, `yibu rm`), or move the cache: YIBU_HOME, "
            "MODELSCOPE_CACHE, HF_HOME",
        )


def pull_lock(source: Source, store: Path, workspace: Path | None) -> Path:
    """The lock of a pull of this source: for a hub's repository in ``workspace``, yibu's directory in
    that hub's cache, which several homes may share."""
    if workspace is None:
        return store / "locks" / f"{slug(source)}.lock"
    writable = os.access(existing_parent(workspace), os.W_OK)
    # A cache that others keep, and we may only read, can still be complete.
    locks = workspace if writable else store / "locks"
    return locks / f"{slug(Source(source.scheme, source.name))}.lock"


def existing_parent(path: Path) -> Path:
    """The path itself, or its nearest existing parent."""
    return next(parent for parent in (path, *path.parents) if parent.exists())


@contextmanager
def os_errors(source: Source) -> Iterator[None]:
    """Translate errors of the file system to the store's, naming the model."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise DiskFullError(
                "{source}: the disk is full ({filename}).",
                source=source,
                filename=error.filename,
                hint="Free some room (`yibu gc`, `yibu rm`), then run the same command again; it goes "
                "on where it stopped",
            ) from error
        raise HubError(
            "{source}: {filename}: {strerror}.",
            source=source,
            filename=error.filename or tr("the file system"),
            strerror=error.strerror or error,
            hint=remedy(error) or tr("Check the directory's owner and permissions"),
        ) from error


def offline_error(source: Source, missing: Sequence[str]) -> OfflineError:
    """``missing``: the files that a record or listing names; none where nothing is known."""
    found = (
        tr("these files are missing or changed here: {missing}", missing=", ".join(missing))
        if missing
        else tr("nothing of it is here")
    )
    return OfflineError(
        "{source}: only local files are allowed (offline), and {found}.",
        source=source,
        found=found,
        hint="Unset YIBU_OFFLINE and HF_HUB_OFFLINE (or leave --offline out) and run `yibu "
        "pull '{source}'`",
    )
