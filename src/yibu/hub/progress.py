"""Counting bytes for progress reports."""

from __future__ import annotations

import threading
import time
from collections import deque

from yibu.hub.types import Phase, Progress, ProgressCallback

_INTERVAL = 0.1
"""Seconds between reports."""
_WINDOW = 5.0
"""Seconds over which the rate is taken: long enough to be calm, short enough to be true."""


class ProgressMeter:
    """Adds up bytes from any thread; ``report`` is called by one thread, the pulling one."""

    def __init__(self, callback: ProgressCallback | None) -> None:
        self._callback = callback
        self._lock = threading.Lock()
        self._phase: Phase = "listing"
        self._done = 0
        self._total = 0
        self._file = ""
        self._samples: deque[tuple[float, int]] = deque()
        self._received = 0
        self._reported = 0.0

    def phase(self, phase: Phase, *, total: int | None = None, done: int = 0) -> None:
        """Enter a phase: its counts start at ``done``."""
        with self._lock:
            self._phase, self._done = phase, done
            self._total = self._total if total is None else total
            self._samples.clear()
            self._received = 0
        self.report()

    def add(self, count: int, file: str | None = None) -> None:
        """Count bytes; with ``file`` they have just come, without it they were here already."""
        with self._lock:
            self._done += count
            if file is not None:
                self._received += count
                self._file = file

    def add_and_report(self, count: int) -> None:
        """For work that the pulling thread does itself: reports ten times a second at most."""
        self.add(count)
        if time.monotonic() - self._reported >= _INTERVAL:
            self.report()

    def waiting(self, count: int) -> None:
        """What another process, which pulls the same model, has fetched so far."""
        with self._lock:
            self._phase = "waiting"
            self._received += max(0, count - self._done)
            self._done = count
        self.report()

    def report(self) -> None:
        if self._callback is None:
            return
        now = self._reported = time.monotonic()
        with self._lock:
            self._samples.append((now, self._received))
            while now - self._samples[0][0] > _WINDOW and len(self._samples) > 2:
                self._samples.popleft()
            since, before = self._samples[0]
            rate = (self._received - before) / (now - since) if now > since else 0.0
            received = self._phase == "downloading" and 0 < self._total <= self._done
            # Every byte is here and is being hashed; a bar that stands at 100 % should say so.
            phase: Phase = "verifying" if received else self._phase
            progress = Progress(phase, self._done, self._total, rate, self._file)
        self._callback(progress)
