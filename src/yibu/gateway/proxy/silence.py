"""Keeps a stream's client and the proxies before it from timing out while nothing comes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from yibu.gateway.http.exchange import Exchange
from yibu.routing import Lease
from yibu.upstream.connection import EngineConnection, StillWaitingError

T = TypeVar("T")

HEAD_GRACE = 2.0
"""Seconds to wait for a stream's first event before the status line is sent. An engine that refuses
sooner is answered with its own status; later, with an error event."""

KEEP_ALIVE = 15.0
"""Seconds without an event after which a stream gets a comment: nginx and AWS's load balancers time out
after a minute."""


class KeepAlive:
    """Waits for a replica, an answer's head or its next part, and sends comments to streams meanwhile."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._watch: SilenceWatch | None = None

    async def head(self, connection: EngineConnection) -> None:
        """Wait until the engine answers.

        Raises:
            UpstreamError: it broke off.
        """
        self._start(connection)
        while True:
            try:
                await connection.wait_head()
                return
            except StillWaitingError:
                await self._comment()
            except BaseException:  # the client may have left, too
                self.stop()
                raise

    async def granted(self, lease: Lease) -> None:
        """Wait for a replica.

        Raises:
            RequestError: there is none.
        """
        waiting = asyncio.create_task(lease.granted(), name="waiting for a replica")
        try:
            await self._until_done(waiting, self._patience())
            waiting.result()
        except BaseException:  # the client has left, for one
            # Before anything is awaited: another cancellation would leave the replica's place taken.
            if not waiting.cancel() and not waiting.cancelled() and waiting.exception() is None:
                lease.release()
            await asyncio.gather(waiting, return_exceptions=True)
            raise

    async def result(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``."""
        task = asyncio.create_task(work, name="steps of a request")
        try:
            await self._until_done(task, HEAD_GRACE)
            return task.result()
        finally:
            task.cancel()

    async def next(self, connection: EngineConnection) -> bytes:
        """The next part of an answer."""
        if self._watch is None:  # of an upload only the answer tells that a stream was asked for
            self._start(connection)
        while True:
            try:
                return await connection.read()
            except StillWaitingError:
                await self._comment()

    def _start(self, connection: EngineConnection) -> None:
        self.stop()
        self._watch = SilenceWatch(connection, self._patience(), KEEP_ALIVE)

    def written(self) -> None:
        """Note that the client was just sent something."""
        if self._watch is not None:
            self._watch.written()

    def stop(self) -> None:
        """Stop: the connection is given back."""
        if self._watch is not None:
            self._watch.stop()

    def _patience(self) -> float:
        return KEEP_ALIVE if self._exchange.answering else HEAD_GRACE

    async def _until_done(self, task: asyncio.Task[Any], patience: float) -> None:
        while not (await asyncio.wait((task,), timeout=patience))[0]:
            await self._comment()
            patience = KEEP_ALIVE

    async def _comment(self) -> None:
        exchange = self._exchange
        if not exchange.answering:
            await exchange.start_events()
        await exchange.keep_alive()


class SilenceWatch:
    """Interrupts whoever waits on a connection with ``StillWaitingError``: after ``first`` seconds, then
    after every ``interval`` seconds in which nothing was written to the client.

    One timer that is seldom set anew: a stream that flows pays nothing for it.
    """

    def __init__(self, connection: EngineConnection, first: float, interval: float) -> None:
        self._connection = connection
        self._interval = interval
        self._limit = first
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._timer = self._loop.call_later(first, self._look)

    def written(self) -> None:
        """Note that the client was just sent something."""
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
