"""An incomplete file: its bytes, and a journal of the ranges that have come.

``NAME.part`` holds the bytes at their final offsets, ``NAME.journal`` says how far each segment
has come. A segment's count is written after its bytes, so the journal never counts more than
the file holds, whenever the process is killed. (A machine that loses power may still lose bytes
that the journal counts: that is what the hash at the end is for.)
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_HEADER_BYTES = 1024
_COUNT_BYTES = 17  # sixteen digits and a newline
_VERSION = 1
_MAX_SEGMENTS = 16
"""The most ranges of a file: hubs limit the number of requests."""


@dataclass(slots=True)
class FileSegment:
    """Bytes ``start`` to ``stop`` (exclusive; None while the size is not known)."""

    start: int
    stop: int | None
    done: int = 0

    @property
    def complete(self) -> bool:
        return self.stop is not None and self.start + self.done >= self.stop

    @property
    def next_byte(self) -> int:
        return self.start + self.done


class Partial:
    """A partial file. One thread writes a segment; different segments may go in parallel.

    It is opened when its first byte comes, and not before: a repository may have more files than
    a process may open.
    """

    def __init__(self, path: Path, size: int | None, segment_bytes: int) -> None:
        """Go on from the journal of ``path`` (``….part``) where it fits ``size``."""
        self.path = path
        self.journal_path = path.with_suffix(".journal")
        self.size = size
        self.etag = ""
        self.segments = plan_segments(size, segment_bytes)
        self._lock = threading.RLock()
        self._data = self._journal = -1
        found = _read_journal(self.journal_path, path.stat().st_size) if path.is_file() else None
        self._new = found is None or (size is not None and found.size not in (None, size))
        if found is not None and not self._new:
            self.etag, self.segments = found.etag, found.segments
            self.size = found.size if size is None else size
            if len(self.segments) == 1:
                self.segments[0].stop = self.size

    def open(self) -> None:
        """Be ready to write; again is fine.

        Raises:
            OSError: it cannot be made.
        """
        with self._lock, naming(self.path):
            if self._data >= 0:
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._journal = os.open(self.journal_path, flags, 0o666)
            self._data = os.open(self.path, flags, 0o666)
            if self._new:
                self._start_over()

    @property
    def done_bytes(self) -> int:
        return sum(segment.done for segment in self.segments)

    @property
    def complete(self) -> bool:
        return all(segment.complete for segment in self.segments)

    def write(self, segment: FileSegment, data: bytes) -> None:
        """Put ``data`` at the segment's next byte.

        Raises:
            OSError: no room, say; what was written before stays for the next try.
        """
        with naming(self.path):
            view = memoryview(data)
            while view:
                written = os.pwrite(self._data, view, segment.next_byte)
                view = view[written:]
                segment.done += written
                self._write_count(segment)

    def reset(self, size: int | None, etag: str, *, whole: bool) -> None:
        """Forget every byte; ``whole`` makes one segment of the file."""
        self.open()
        with self._lock, naming(self.path):
            self.size, self.etag = size, etag
            if whole:
                self.segments = [FileSegment(0, size)]
            for segment in self.segments:
                segment.done = 0
            self._start_over()

    def learn(self, *, size: int | None = None, etag: str | None = None) -> None:
        """Keep what the first answer says of the file."""
        self.open()
        with self._lock, naming(self.path):
            if size is not None:
                self.size = self.segments[-1].stop = size
            if etag is not None:
                self.etag = etag
            self._write_header()

    def close(self) -> None:
        with self._lock:
            for descriptor in (self._data, self._journal):
                if descriptor >= 0:
                    os.close(descriptor)
            self._data = self._journal = -1

    def delete(self) -> None:
        """Remove the bytes and the journal from the disk."""
        self.path.unlink(missing_ok=True)
        self.journal_path.unlink(missing_ok=True)

    def _start_over(self) -> None:
        self._new = False
        os.ftruncate(self._data, 0)
        os.ftruncate(self._journal, 0)
        self._write_header()
        for segment in self.segments:
            self._write_count(segment)

    def _write_header(self) -> None:
        header = {
            "version": _VERSION,
            "size": self.size,
            "etag": self.etag if len(self.etag) < _HEADER_BYTES // 2 else "",
            "starts": [segment.start for segment in self.segments],
        }
        text = json.dumps(header).encode("ascii")
        os.pwrite(self._journal, text.ljust(_HEADER_BYTES - 1) + b"\n", 0)

    def _write_count(self, segment: FileSegment) -> None:
        offset = _HEADER_BYTES + self.segments.index(segment) * _COUNT_BYTES
        os.pwrite(self._journal, b"%016d\n" % segment.done, offset)


@dataclass(frozen=True, slots=True)
class _Journal:
    size: int | None
    etag: str
    segments: list[FileSegment]


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have errors of writes, which name no file, name this one."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def plan_segments(size: int | None, segment_bytes: int) -> list[FileSegment]:
    """Equal ranges of at least ``segment_bytes``, at most sixteen."""
    if size is None or size <= segment_bytes:
        return [FileSegment(0, size)]
    step = max(segment_bytes, -(-size // _MAX_SEGMENTS))
    return [FileSegment(start, min(start + step, size)) for start in range(0, size, step)]


def partial_bytes(path: Path) -> int:
    """How many bytes of ``path`` are here, for reports on what another process fetches."""
    try:
        found = _read_journal(path.with_suffix(".journal"), path.stat().st_size)
    except FileNotFoundError:
        return 0
    return sum(segment.done for segment in found.segments) if found else 0


def _read_journal(path: Path, data_bytes: int) -> _Journal | None:
    """None when there is none, or it cannot be trusted."""
    try:
        content = path.read_bytes()
        header = json.loads(content[:_HEADER_BYTES])
        if header["version"] != _VERSION:
            return None
        starts, size = header["starts"], header["size"]
        counts = [int(line) for line in content[_HEADER_BYTES:].split()]
        if len(counts) != len(starts) or starts[0] != 0 or sorted(starts) != starts:
            return None
        stops = [*starts[1:], size]
        segments = [FileSegment(*item) for item in zip(starts, stops, counts, strict=True)]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None  # no journal, or half of one: the file starts over
    for segment in segments:
        if segment.done < 0 or (segment.stop is not None and segment.next_byte > segment.stop):
            return None
        if segment.done and segment.next_byte > data_bytes:
            return None  # the data file was truncated by someone
    return _Journal(size, str(header["etag"]), segments)
