"""Engine logs: rotated by size while the engine writes, read from the end, followed.

The engine holds the file open in append mode and outlives the node, so the end of the file is
copied to ``NAME.1`` and the file is truncated in place; a line written between the two is lost,
which is the price of needing no process between an engine and its log. An engine that writes more
than ``max_bytes`` between two looks loses the beginning of that, and the copy's first line says how
much. Standard library only: the CLI imports this.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_log = logging.getLogger(__name__)
_BLOCK = 64 * 1024
_COPIES = 3
"""Tries to copy a file's end while an engine floods it: once that is over, its last lines are kept."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_DROPPED = b"[yibu: %d bytes were written faster than logs are kept, and dropped]\n"
_DROPPED_LINE = re.compile(_DROPPED.replace(b"[", rb"\[").replace(b"%d", rb"(\d+)"))


@dataclass(frozen=True, slots=True)
class LogRotation:
    """At most ``max_bytes`` × (``generations`` + 1) a replica, and what is written in ``every``
    seconds. A file is rotated at three quarters of ``max_bytes``, so that only an engine that
    fills the last quarter within ``every`` loses lines."""

    max_bytes: int = 20 * 1024 * 1024
    generations: int = 4
    every: float = 0.2
    """Seconds between two looks at the files' sizes."""

    def due(self, path: Path) -> bool:
        """Whether the live file is to be rotated."""
        return size(path) > self.max_bytes * 3 // 4


def generation(path: Path, number: int) -> Path:
    """The file of the ``number``-th rotation back; 0 is the live one."""
    return path.with_name(f"{path.name}.{number}") if number else path


def generations(path: Path) -> list[Path]:
    """The live file and those of its rotations, the newest first."""
    found = [path]
    while (older := generation(path, len(found))).exists():
        found.append(older)
    return found


def size(path: Path) -> int:
    """Bytes of the file; 0 when it does not exist."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def has_room(directory: Path) -> bool:
    """Whether some more lines can be written there. Blocking; it writes a block to find out, because
    only that shows a quota."""
    try:
        with tempfile.TemporaryFile(dir=directory) as probe:
            probe.write(bytes(_BLOCK))
            probe.flush()
    except OSError as error:
        return error.errno not in _FULL
    return True


def rotate_if_large(path: Path, rotation: LogRotation) -> bool:
    """Rotate when the live file is large enough; True when it was. Never raises for I/O.

    On a full disk older generations are dropped to make room; when even that does not help, the
    live file is emptied all the same: a bounded log matters more than its content.
    """
    if not rotation.due(path):
        return False
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            _shift(path, rotation.generations)
            _copy_and_truncate(path, rotation)
    except OSError as error:
        _log.warning("cannot rotate the log %s: %s", path, error)
        return False
    return True


def _shift(path: Path, generations: int) -> None:
    generation(path, generations).unlink(missing_ok=True)
    for number in range(generations - 1, 0, -1):
        with contextlib.suppress(FileNotFoundError):
            generation(path, number).rename(generation(path, number + 1))


def _copy_and_truncate(path: Path, rotation: LogRotation) -> None:
    copy = generation(path, 1)
    oldest = rotation.generations
    while True:
        try:
            for _ in range(_COPIES):
                if _copy(path, copy, rotation.max_bytes):
                    break
            break
        except OSError as error:
            copy.unlink(missing_ok=True)
            if error.errno not in (*_FULL, errno.EFBIG):
                raise
            if oldest < 2:
                _log.warning("no room to keep the log %s: its content is dropped", path)
                break
            generation(path, oldest).unlink(missing_ok=True)
            oldest -= 1
    os.truncate(path, 0)


def _copy(path: Path, copy: Path, limit: int) -> bool:
    """Copy the whole lines among the last ``limit`` bytes, after a line that counts the others.

    False when the engine wrote faster meanwhile, so that there are later lines still.
    """
    descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with path.open("rb") as source, os.fdopen(descriptor, "wb") as target:
        dropped = source.seek(0, os.SEEK_END) - limit
        if dropped > 0:
            source.seek(dropped)
            dropped += len(source.readline(limit // 4))
            target.write(_DROPPED % dropped)
        else:
            source.seek(0)
        left = limit  # not to the end: an engine may write faster than this copies
        while left > 0 and (block := source.read(min(_BLOCK, left))):
            target.write(block)
            left -= len(block)
    return left > 0


def read_from(path: Path, offset: int, limit: int) -> str:
    """Text from ``offset`` to the end, at most the last ``limit`` bytes; "" when unreadable.

    When the file is now shorter than ``offset`` it was rotated meanwhile: all of it is new.
    """
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            start = offset if offset <= end else 0
            file.seek(max(start, end - limit))
            return file.read(limit).decode(errors="replace")
    except OSError:
        return ""


def tail(path: Path, n: int, end: int | None = None) -> list[str]:
    """The last ``n`` lines, older generations included, without their line ends; of the live file those
    before byte ``end``.

    Raises:
        FileNotFoundError: there is no such log.
    """
    lines: list[str] = []
    number = 0
    current: Path = path
    while len(lines) < n and (number == 0 or current.exists()):
        lines = _last_lines(current, n - len(lines), None if number else end) + lines
        number += 1
        current = generation(path, number)
    return lines


def lines(path: Path, *, since: float | None = None, end: int | None = None) -> Iterator[str]:
    """All lines, the oldest generation first, without their line ends; generations that were last
    written before ``since`` (Unix seconds) are left out, and of the live file what follows byte ``end``.

    The number of generations is taken at the beginning: what is rotated meanwhile may come twice or
    not at all.
    """
    for file in reversed(generations(path)):
        try:
            with file.open("rb") as opened:
                if since is not None and os.fstat(opened.fileno()).st_mtime < since:
                    continue
                left = end if end is not None and file == path else sys.maxsize
                for line in opened:
                    left -= len(line)
                    if left < 0:
                        break
                    yield line.decode(errors="replace").rstrip("\r\n")
        except FileNotFoundError:
            continue  # rotated away


def written_at(path: Path) -> float | None:
    """When the live file was last written, in Unix seconds; None when there is none."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None


def _last_lines(path: Path, n: int, end: int | None) -> list[str]:
    data = b""
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        position = position if end is None else min(end, position)
        while position > 0 and data.count(b"\n") <= n:
            step = min(_BLOCK, position)
            position -= step
            file.seek(position)
            data = file.read(step) + data
    return [line.decode(errors="replace") for line in data.splitlines()[-n:]] if n > 0 else []


@dataclass(slots=True)
class Position:
    """How far a follower has read, and in which rotation."""

    position: int
    rotated: tuple[int, int] | None

    @classmethod
    def now(cls, path: Path) -> Position:
        """The position after the last whole line."""
        return cls(_last_line_end(path), _rotated_at(path))

    @classmethod
    def beginning(cls, path: Path) -> Position:
        """The beginning of the live file; rotated files are not read."""
        return cls(0, _rotated_at(path))


def _last_line_end(path: Path) -> int:
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            begin = file.seek(max(0, end - _BLOCK))
            newline = file.read(end - begin).rfind(b"\n")
    except FileNotFoundError:
        return 0
    return begin + newline + 1 if newline >= 0 or begin == 0 else end


class Follower:
    """Reads new lines of a log, across rotations. Waits for a file that does not exist yet."""

    def __init__(self, path: Path, start: Position) -> None:
        self._path = path
        self._place = start
        self._rest = b""

    def lines(self) -> list[str]:
        """The whole lines that were written since the last call, without their line ends."""
        *whole, self._rest = (self._rest + news(self._path, self._place)).split(b"\n")
        return [line.decode(errors="replace").rstrip("\r") for line in whole]


def news(path: Path, place: Position) -> bytes:
    """What was written since ``place``, which is advanced."""
    try:
        with path.open("rb") as file:
            # Held against a rotation between the looks at the two files. The engine, which
            # writes, asks for no lock.
            fcntl.flock(file, fcntl.LOCK_SH)
            data = b""
            for older in _unread_generations(path, place):
                data += _read(older, place.position)
                place.position = 0
            if size(path) < place.position:  # emptied without a copy, on a full disk
                place.position = 0
            file.seek(place.position)
            fresh = file.read()
            place.position += len(fresh)
            return data + fresh
    except FileNotFoundError:
        return b""


def _unread_generations(path: Path, place: Position) -> list[Path]:
    """Rotated files that were live when ``place`` was noted, or later; the oldest first."""
    known, place.rotated = place.rotated, _rotated_at(path)
    unread: list[Path] = []
    number = 1
    while (file := generation(path, number)).exists() and _identity(file) != known:
        unread.insert(0, file)
        number += 1
    return unread


def _rotated_at(path: Path) -> tuple[int, int] | None:
    try:
        return _identity(generation(path, 1))
    except FileNotFoundError:
        return None


def _identity(path: Path) -> tuple[int, int]:
    """The file's identity: kept by a rename, different for a copy."""
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns


def _read(path: Path, position: int) -> bytes:
    """What follows ``position`` of the live file that was rotated to ``path``."""
    try:
        with path.open("rb") as file:
            first = file.readline(len(_DROPPED) + 20)
            if found := _DROPPED_LINE.fullmatch(first):
                kept = position - int(found[1])
                position = kept + len(first) if kept >= 0 else 0
            file.seek(position)
            return file.read()
    except FileNotFoundError:
        return b""
