"""One file being downloaded by several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from yibu.hub.evidence import Evidence
from yibu.hub.partial import FileSegment, Partial
from yibu.hub.settings import HubSettings


@dataclass(frozen=True, slots=True)
class Download:
    """One file to fetch into ``partial``; ``finish`` then checks it and moves it into the cache.

    ``finish`` raises VerificationError on wrong bytes: the partial is deleted and fetched once
    more, from the start.
    """

    name: str
    """Its name in errors and progress."""
    url: str
    partial: Path
    size: int | None
    finish: Callable[[Path, Evidence], None]
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    page: bool = False
    """Whether it may be a web page."""


class Restarted(Exception):  # noqa: N818 - a signal between threads, not an error
    """Another connection has started the whole file over."""


class DownloadFile:
    """A running download, shared by the threads that fetch its segments."""

    def __init__(self, download: Download, settings: HubSettings) -> None:
        self.download = download
        self.partial = Partial(download.partial, download.size, settings.segment_bytes)
        self.lock = threading.RLock()
        self.generation = 0
        """Incremented when the file starts over; threads of an older generation stop."""
        self.fresh_tries = 0
        self.changes = 0
        """How often its ETag changed."""
        self.finishing = False
        self.best = self.partial.done_bytes
        self.evidence = Evidence()

    def progressed(self) -> bool:
        """Whether there are more bytes than ever: a server without ranges that always breaks
        off at the same place makes none, however much it sends."""
        done = self.partial.done_bytes
        better, self.best = done > self.best, max(done, self.best)
        return better


@dataclass(slots=True)
class Claim:
    """A thread's task: one segment of one generation of a file."""

    file: DownloadFile
    index: int
    generation: int

    def segment(self) -> FileSegment:
        """Raises Restarted when the file has started over without this thread."""
        with self.file.lock:
            if self.file.generation != self.generation:
                raise Restarted
            return self.file.partial.segments[self.index]
