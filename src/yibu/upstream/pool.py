"""Idle connections to engines by address, and timeouts of busy ones."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable

from yibu.messages import tr
from yibu.upstream.connection import EngineConnection, UpstreamError

_log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 5.0
"""Seconds; engines are on this host or a near one."""

HELD_UP = 0.25
"""Seconds that a timeout comes late by which the event loop was busy with something else."""

TRIES = 3
"""Connections begun in all, where the loop was held up each time."""

IDLE_SECONDS = 4.0
"""An idle connection is dropped after this; uvicorn and cpp-httplib close theirs after 5 s."""

MAX_IDLE = 128
"""Idle connections kept for one address."""


async def connect(
    host: str,
    port: int,
    alive: Callable[[], bool] | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    timeout: float | None = None,
) -> EngineConnection:
    """A new connection; ``alive`` says afterwards whether it is the engine that took it, and not a
    program that has its port since it ended.

    Raises:
        UpstreamError: nobody listens there, or not within ``timeout`` (``CONNECT_TIMEOUT``) seconds, or the
            engine ended.
    """
    timeout = CONNECT_TIMEOUT if timeout is None else timeout
    loop, where = asyncio.get_running_loop(), f"{host}:{port}"
    tries = 0
    while True:
        begun, tries = loop.time(), tries + 1
        try:
            async with asyncio.timeout(timeout):
                _, connection = await loop.create_connection(
                    lambda: EngineConnection(loop, (host, port)), host, port, ssl=tls
                )
        except TimeoutError:
            # A loop that was held up meanwhile saw the timeout before it saw the connection.
            if loop.time() - begun > timeout + HELD_UP and tries < TRIES:
                continue
            message = tr(
                "no connection to {where} within {seconds:g} s", where=where, seconds=timeout
            )
            raise UpstreamError("connect", message) from None
        except OSError as error:
            raise UpstreamError(
                "connect", tr("no connection to {where}: {error}", where=where, error=error)
            ) from error
        if alive is not None and not alive():
            connection.abort()
            raise UpstreamError("connect", tr("the engine at {where} has ended", where=where))
        return connection


class Pool:
    """Keeps clean connections for the next request, and ends those on which an engine is silent
    too long. Bound to one event loop."""

    def __init__(self, timeout: float) -> None:
        """``timeout`` is the number of seconds that an engine may be silent in a request."""
        self.timeout = timeout
        """May be set at any time; requests in flight keep theirs."""
        self._idle: dict[tuple[str, int], list[EngineConnection]] = {}
        self._busy: set[EngineConnection] = set()
        self._overran: set[tuple[str, int]] = set()
        """Engines that sent bytes behind an answer. The next time such bytes may come a moment
        later, when they would be read as the answer to the request after it: nothing in HTTP/1.1
        tells them apart. So each request to them gets a connection of its own."""
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    async def begin(
        self,
        host: str,
        port: int,
        send: bytes | Callable[[EngineConnection], Awaitable[None]],
        *,
        wait: Callable[[EngineConnection], Awaitable[None]] = EngineConnection.wait_head,
        fresh: bool = False,
        patience: float = 0.0,
        alive: Callable[[], bool] | None = None,
    ) -> EngineConnection:
        """A connection on which a request was sent and ``wait`` has waited for the answer's head; the
        caller releases it. ``send`` is the request, or writes it.

        A request that fails on a reused connection before its answer began is written once more,
        on a new one; ``fresh`` forbids that, for a body that can be sent only once.

        Raises:
            UpstreamError: no connection, or no answer.
        """
        while True:
            connection = await self.acquire(host, port, fresh=fresh, alive=alive)
            connection.patience = max(self.timeout, patience)
            try:
                if isinstance(send, bytes):
                    connection.send(send)
                else:
                    await send(connection)
                await wait(connection)
            except BaseException as error:  # cancellation too: the connection must come back
                self.release(connection)
                if isinstance(error, UpstreamError) and error.stale:
                    fresh = True  # whose connections are never stale: this happens once
                    continue
                raise
            return connection

    async def acquire(
        self,
        host: str,
        port: int,
        *,
        fresh: bool = False,
        alive: Callable[[], bool] | None = None,
    ) -> EngineConnection:
        """A connection that is ready to send on; ``fresh`` forbids a reused one.

        Raises:
            UpstreamError: nobody listens there, or not within ``CONNECT_TIMEOUT``.
        """
        idle = self._idle.get((host, port))
        while idle and not fresh:
            connection = idle.pop()
            if connection.take(IDLE_SECONDS):
                self._busy.add(connection)
                return connection
            self._drop(connection)
        connection = await connect(host, port, alive)
        self._busy.add(connection)
        if self._sweeper is None and not self._closed:
            self._sweeper = asyncio.get_running_loop().call_later(self._interval, self._sweep)
        return connection

    def release(self, connection: EngineConnection) -> None:
        """Take a connection back: kept when it is clean, closed otherwise."""
        self._busy.discard(connection)
        idle = self._idle.setdefault(connection.address, [])
        room = len(idle) < MAX_IDLE and not self._closed
        if room and connection.reusable and connection.address not in self._overran:
            idle.append(connection)
        else:
            self._drop(connection)

    def _drop(self, connection: EngineConnection) -> None:
        connection.abort()
        address = connection.address
        if connection.overran and address not in self._overran:
            self._overran.add(address)
            for other in self._idle.pop(address, []):
                other.abort()
            _log.warning(
                "the engine at %s:%d sent bytes behind an answer: from now on each of its requests"
                " has a connection of its own", *address
            )  # fmt: skip

    def close(self) -> None:
        """Close every connection; requests in flight fail."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in list(self._busy):
            connection.fail("closed", tr("the gateway is shutting down"))
        for idle in self._idle.values():
            for connection in idle:
                connection.abort()
        self._idle.clear()

    def counts(self) -> tuple[int, int]:
        """Busy and idle connections, for metrics and tests."""
        return len(self._busy), sum(len(idle) for idle in self._idle.values())

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in list(self._busy):
            limit = connection.patience
            # One that waits for a slow client says nothing of the engine.
            if not connection.waits_for_reader and now - connection.last_activity > limit:
                connection.fail(
                    "timeout", tr("the engine sent nothing for {limit:g} s", limit=limit)
                )
        for address, idle in list(self._idle.items()):
            kept = []
            for connection in idle:
                if connection.reusable and now - connection.last_activity < IDLE_SECONDS:
                    kept.append(connection)
                else:
                    self._drop(connection)
            if kept and address not in self._overran:
                self._idle[address] = kept
            else:
                self._idle.pop(address, None)
        self._sweeper = (
            loop.call_later(self._interval, self._sweep) if self._busy or self._idle else None
        )

    @property
    def _interval(self) -> float:
        return min(1.0, self.timeout / 4)
