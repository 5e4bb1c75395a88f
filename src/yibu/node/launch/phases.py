"""The phases of an engine's start, read from its log while it is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from yibu.engines.logs import PhaseMark
from yibu.node import logs

DOWNLOAD = "download"
PLAN = "plan"
ENVIRONMENT = "environment"
WAIT = "wait"
WAKE = "wake"
IMPORTS = "imports"
WARM_UP = "warm-up"
START = "start"
"""The only phase of an engine whose log does not tell its phases."""

_AT_ONCE = 1 << 20
"""Bytes of the log read at once; earlier output is skipped."""


class Timeline:
    """Seconds per phase, in order. Times are monotonic."""

    def __init__(self) -> None:
        self.current: str | None = None
        """The phase that runs; None before the first and after the last."""
        self._seconds: dict[str, float] = {}
        self._since = 0.0

    def enter(self, phase: str, now: float) -> None:
        """Begin a phase and end the one before it."""
        self.end(now)
        self.current, self._since = phase, now
        self._seconds.setdefault(phase, 0.0)

    def end(self, now: float) -> None:
        """End the last phase; a second call changes nothing."""
        if self.current is not None:
            self._seconds[self.current] += now - self._since
            self.current = None

    def end_start(self, now: float) -> None:
        """End an engine's start: where a log with known patterns said nothing (a log level of the
        user's), the time was not imports alone."""
        self.end(now)
        if IMPORTS in self._seconds and self._seconds.keys() <= {WAIT, IMPORTS, WARM_UP}:
            self._seconds = {START if p == IMPORTS else p: s for p, s in self._seconds.items()}

    def seconds(self, now: float) -> dict[str, float]:
        """Seconds of each phase; of the current one, so far."""
        shown = dict(self._seconds)
        if self.current is not None:
            shown[self.current] += now - self._since
        return shown


class LogPhases:
    """Finds the phases that begin in one engine's log; belongs to one start. Blocking.

    A phase never gives way to an earlier one: several workers write into the log, and each loads.
    """

    def __init__(self, path: Path, offset: int, marks: Sequence[PhaseMark]) -> None:
        self._path = path
        self._position = offset
        self._marks = marks
        self._rank = -1
        self._rest = b""

    @property
    def first(self) -> str:
        """The phase before anything is in the log."""
        return IMPORTS if self._marks else START

    def news(self) -> str | None:
        """The latest phase entered since the last call, if any."""
        *lines, self._rest = (self._rest + self._read()).split(b"\n")
        before = self._rank
        for line in lines:
            text = line.decode(errors="replace")
            for rank in range(len(self._marks) - 1, self._rank, -1):
                if self._marks[rank].pattern.search(text):
                    self._rank = rank
                    break
        return self._marks[self._rank].phase if self._rank > before else None

    def _read(self) -> bytes:
        end = logs.size(self._path)
        if end < self._position:  # rotated meanwhile
            self._position = 0
        self._position = max(self._position, end - _AT_ONCE)
        try:
            with self._path.open("rb") as file:
                file.seek(self._position)
                data = file.read(_AT_ONCE)
        except OSError:  # no log, no phases: the start itself does not depend on them
            return b""
        self._position += len(data)
        return data


@asynccontextmanager
async def telling(
    reader: LogPhases, on_phase: Callable[[str], None], poll: float
) -> AsyncIterator[Callable[[], None]]:
    """Inside the block, say which phase begins; ``poll`` is seconds between two looks at the log.

    Yields what to call when the engine answers: then only its first token is awaited, of which
    the log has nothing to say.
    """

    async def read() -> None:
        while True:
            if (phase := await asyncio.to_thread(reader.news)) is not None:
                on_phase(phase)
            await asyncio.sleep(poll)

    on_phase(reader.first)
    reading = asyncio.create_task(read(), name="phases of a start")
    answered = False

    def answers() -> None:
        nonlocal answered
        reading.cancel()
        if not answered:  # it may answer, refuse a token, and answer again
            answered = True
            on_phase(WARM_UP)

    try:
        yield answers
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
