"""Engines that measure a GPU's free memory while they start wait there in a queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from yibu.node.policy import Start, may_start


class StartQueue:
    """Carries out :func:`yibu.node.policy.may_start`. Of one node, in its event loop's thread."""

    def __init__(self) -> None:
        self._waiting: dict[Start, asyncio.Event] = {}
        self._starting: list[Start] = []

    @asynccontextmanager
    async def slot(self, start: Start, waits: Callable[[], None]) -> AsyncIterator[None]:
        """The engine may start inside the block; ``waits`` is called where that is not at once."""
        go = self._waiting[start] = asyncio.Event()
        try:
            self._let_start()
            if not go.is_set():
                waits()
            await go.wait()
            yield
        finally:
            self._waiting.pop(start, None)
            if start in self._starting:
                self._starting.remove(start)
            self._let_start()

    def _let_start(self) -> None:
        for start in may_start(list(self._waiting), self._starting):
            self._starting.append(start)
            self._waiting.pop(start).set()
