"""Tasks that are waited for to their end, whatever happens to whoever waits."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await cleaning up that must not be broken off, in a task of its own.

    In a task that was cancelled, ``asyncio.timeout`` raises CancelledError instead of TimeoutError
    before Python 3.11.3 (Debian 12 has 3.11.2): an engine that heeds no SIGTERM stayed alive.
    """
    task = asyncio.create_task(work, name="cleaning up")
    interrupted: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            interrupted = error
    task.result()
    if interrupted is not None:
        raise interrupted


async def cancelled(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks that are still running and wait until they have cleaned up."""
    for task in tasks:
        task.cancel()
    # A result or an error that came was taken by the caller already; gather keeps both quiet.
    await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def first_of(*work: Coroutine[Any, Any, Any]) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Tasks of ``work``, as soon as one of them has ended. Those that still run when the block ends are
    cancelled, and have cleaned up."""
    tasks = [asyncio.create_task(one, name=getattr(one, "__qualname__", None)) for one in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        yield tasks
    finally:
        await cancelled(*tasks)


async def in_own_thread(work: Callable[[], T]) -> T:
    """``work`` in a thread that nobody waits for when the process ends: a hub may never answer."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: Exception | None) -> None:
        if result.done():  # cancelled meanwhile
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)  # type: ignore[arg-type]

    def run() -> None:
        value, failure = None, None
        try:
            value = work()
        except Exception as error:  # noqa: BLE001 - it is raised where the result is awaited
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            loop.call_soon_threadsafe(settle, value, failure)

    threading.Thread(target=run, name="work", daemon=True).start()
    return await result
