"""An event loop whose clock jumps to the next timer: traces of minutes are run in milliseconds."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any
from unittest import mock


class VirtualLoop(asyncio.SelectorEventLoop):
    """Sockets are real. What is meant for a thread is done in the loop, in its turn."""

    def __init__(self) -> None:
        super().__init__(_Selector(self))
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def run_in_executor(  # type: ignore[override]
        self, _executor: object, work: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future = self.create_future()

        def do() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(work(*args))
            except Exception as error:  # noqa: BLE001 - raised where it is awaited
                future.set_exception(error)

        self.call_soon(do)
        return future


class _Selector(selectors.DefaultSelector):  # type: ignore[misc,valid-type]
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        found = super().select(0)
        if not found:
            assert timeout is not None, "nothing is left that could ever happen"
            self._loop.now += timeout
        return found


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run to its end, with a clock of its own for all that asks for the monotonic time."""
    loop = VirtualLoop()
    with (
        asyncio.Runner(loop_factory=lambda: loop) as runner,
        mock.patch.object(time, "monotonic", loop.time),
    ):
        runner.run(work)
