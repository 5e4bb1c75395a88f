"""Where supervisors wait until the scheduler lets them start."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from yibu.node.scheduler import Scheduler
from yibu.node.scheduler.starts import Start


class StartGate:
    """Of one node, in its event loop's thread."""

    scheduler: Scheduler

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Event] = {}

    @asynccontextmanager
    async def slot(self, start: Start, waits: Callable[[], None]) -> AsyncIterator[None]:
        """The engine may start inside the block; ``waits`` is called where that is not at once."""
        go = self._waiting[start.replica] = asyncio.Event()
        try:
            self.scheduler.start_wanted(start, time.monotonic())
            if not go.is_set():
                waits()
            await go.wait()
            yield
        finally:
            self._waiting.pop(start.replica, None)
            self.scheduler.start_over(start.replica, time.monotonic())

    def open(self, replica: str) -> None:
        """It may start now."""
        if (go := self._waiting.get(replica)) is not None:
            go.set()
