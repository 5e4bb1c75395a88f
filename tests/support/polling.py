"""Waiting for what a test expects: polled, with a deadline, and never a fixed sleep."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")
_POLL = 0.02
_SECONDS = 60.0


def until(condition: Callable[[], T], what: str = "", seconds: float = _SECONDS) -> T:
    """Poll until ``condition()`` is true and return its value; fail, naming ``what``, after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what or condition}"
        time.sleep(_POLL)
    return value


async def eventually(
    condition: Callable[[], Any] | Callable[[], Awaitable[Any]],
    what: str = "",
    seconds: float = _SECONDS,
) -> Any:
    """:func:`until` for a running event loop; the condition may be a coroutine function."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what or condition}"
        await asyncio.sleep(_POLL)
