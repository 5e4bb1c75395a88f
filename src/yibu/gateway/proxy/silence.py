"""Tells the reader of a stream that nothing has come for a while."""

from __future__ import annotations

import asyncio

from yibu.upstream.connection import Connection


class SilenceWatch:
    """Interrupts whoever waits on a connection with ``StillWaitingError``: after ``first`` seconds, then
    after every ``interval`` seconds in which nothing was written to the client.

    One timer that is seldom set anew: a stream that flows pays nothing for it.
    """

    def __init__(self, connection: Connection, first: float, interval: float) -> None:
        self._connection = connection
        self._interval = interval
        self._limit = first
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._timer = self._loop.call_later(first, self._look)

    def written(self) -> None:
        """The client was just sent what came last."""
        self._limit = self._interval
        self._since = self._connection.last_activity

    def stop(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        left = self._since + self._limit - now
        if left <= 0:
            self._limit = left = self._interval
            self._since = now
            self._connection.interrupt()
        self._timer = self._loop.call_later(left, self._look)
