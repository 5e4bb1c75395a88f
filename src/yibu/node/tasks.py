"""Tasks that are waited for to their end, whatever happens to whoever waits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


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
