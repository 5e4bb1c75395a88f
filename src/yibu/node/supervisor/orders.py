"""What is wanted of a replica by others, for the one task that carries it out."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Literal, TypeVar

from yibu.node.tasks import first_of

T = TypeVar("T")
Order = Literal["stop", "restart", "sleep"]


class Orders:
    """The latest order that is still to be carried out; nothing comes after ``stop``."""

    def __init__(self) -> None:
        self.latest: Order | None = None
        self._given = asyncio.Event()

    def give(self, order: Order) -> None:
        if self.latest != "stop":
            self.latest = order
        self._given.set()

    def done(self) -> None:
        """It is carried out."""
        self.latest = None
        self._given.clear()

    async def any(self) -> None:
        """Wait for one."""
        await self._given.wait()

    async def interrupt(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Await ``work``; when an order comes first, cancel it, let it clean up, and return None."""
        async with first_of(work, self.any()) as (task, _):
            result: T | None = task.result() if task.done() else None
            return result
