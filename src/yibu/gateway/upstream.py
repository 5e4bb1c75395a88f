"""The HTTP/1.1 client towards engines: one keep-alive pool, written for the hot path.

A ``Connection`` is an asyncio protocol whose parser is httptools; it hands out a response as it
comes, pauses reading when nobody takes the bytes, and is reused only after an answer that ended
properly. A ``Pool`` keeps idle connections by address and ends those that stay silent too long.
"""

from __future__ import annotations

import asyncio
from typing import Literal, cast

import httptools

Headers = list[tuple[bytes, bytes]]
Kind = Literal["connect", "closed", "timeout", "protocol"]

CONNECT_TIMEOUT = 5.0
"""Seconds; engines are on this host or a near one."""

IDLE_SECONDS = 4.0
"""An idle connection is dropped after this; uvicorn and cpp-httplib close theirs after 5 s."""

MAX_IDLE = 128
"""Idle connections kept for one address."""

MAX_HEADER_BYTES = 64 * 1024
HIGH_WATER = 256 * 1024
"""Bytes of an answer that may wait for the client before the engine is made to wait."""


class UpstreamError(Exception):
    """The engine could not be reached, or broke off; ``kind`` says how.

    ``stale`` is true when a reused connection ended before a single byte of the answer: the
    engine closed an idle connection just as it was taken, so that the request may be sent again.
    """

    def __init__(self, kind: Kind, message: str, *, stale: bool = False) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.message = message
        self.stale = stale


class Connection(asyncio.Protocol):
    """One connection to an engine. Use: ``send``, ``wait_head``, ``read`` until ``b""``."""

    def __init__(self, loop: asyncio.AbstractEventLoop, address: tuple[str, int]) -> None:
        self.address = address
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.last_activity = loop.time()
        self.patience = 0.0
        """Seconds that the engine may be silent in this request, where the pool's are too few."""
        self.reused = False
        self.busy = True
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._write_paused = False
        self._closed = False
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headers: Headers = []
        self.complete = False
        self.request_whole = True
        """False while an upload is being sent: an answer may come before its end."""
        self._error: UpstreamError | None = None
        self._head_done = False
        self._head_bytes = 0
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._read_paused = False
        self._ends_with_connection = False
        self._keep_alive = False
        self._received = False

    # What the proxy calls -----------------------------------------------------------------

    def take(self) -> None:
        """Begin another request on an idle connection."""
        self._reset()
        self.reused = True
        self.busy = True
        self.last_activity = self._loop.time()

    def send(self, *parts: bytes) -> None:
        self.last_activity = self._loop.time()
        if not self._closed:
            self.transport.writelines(parts)

    async def drain(self) -> None:
        """Wait until the engine has taken most of what was sent."""
        if self._write_paused and not self._closed:
            self._writable = self._loop.create_future()
            await self._writable

    async def wait_head(self) -> None:
        """Wait for the status line and the headers.

        Raises:
            UpstreamError: the connection ended, timed out or talked something else.
        """
        while not self._head_done:
            if self._error is not None:
                raise self._error
            await self._wait()

    async def read(self) -> bytes:
        """Return what has come of the body, at least one byte, or ``b""`` at its end.

        Raises:
            UpstreamError: the body ended before it was whole.
        """
        while not self._chunks:
            if self.complete:
                return b""
            if self._error is not None:
                raise self._error
            if self._read_paused:
                self._read_paused = False
                self.transport.resume_reading()
            await self._wait()
        chunks = self._chunks
        self._chunks = []
        self._buffered = 0
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def read_all(self, limit: int) -> bytes:
        """Return the whole body.

        Raises:
            UpstreamError: the body ended early, or is longer than ``limit`` bytes.
        """
        parts = []
        size = 0
        while part := await self.read():
            parts.append(part)
            size += len(part)
            if size > limit:
                message = f"the engine's answer is longer than {limit} bytes"
                raise UpstreamError("protocol", message)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @property
    def answered(self) -> bool:
        """Whether the engine has said anything, or has gone: time to stop uploading."""
        return self._head_done or self._closed

    @property
    def reusable(self) -> bool:
        return (
            self.complete
            and self.request_whole
            and self._keep_alive
            and not self._closed
            and not self._write_paused
        )

    def fail(self, kind: Kind, message: str) -> None:
        """Give the answer up and close."""
        if self._error is None and not self.complete:
            stale = self.reused and not self._received and kind == "closed"
            self._error = UpstreamError(kind, message, stale=stale)
        self.abort()
        self._wake()

    def abort(self) -> None:
        self._closed = True
        if self.transport is not None:
            self.transport.abort()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What the event loop calls ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.last_activity = self._loop.time()
        self._received = True
        if self.complete:
            self.fail("protocol", "the engine sent bytes that nobody asked for")
            return
        if not self._head_done:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.fail("protocol", f"the engine's answer is not HTTP: {error}")
            return
        if not self._head_done and self._head_bytes > MAX_HEADER_BYTES:
            self.fail("protocol", f"the engine's headers exceed {MAX_HEADER_BYTES} bytes")
            return
        if self._buffered > HIGH_WATER and not self._read_paused:
            self._read_paused = True
            self.transport.pause_reading()
        if self._head_done or self._error is not None:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._head_done and self._ends_with_connection and exc is None:
            self.complete = True
        self._closed = True
        self.fail("closed", "the engine closed the connection before its answer was whole")
        self.resume_writing()

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # What the parser calls ----------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.complete:
            # Bytes behind a whole answer, in the same packet: whatever they are, they would be
            # read as the answer to the next request.
            self._keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.complete:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        status = self._parser.get_status_code()
        if status < 200:  # 100 Continue, 103 Early Hints: the answer is still to come
            self.headers.clear()
            return
        self.status = status
        self._head_done = True
        self._keep_alive = self._parser.should_keep_alive()
        framed = any(name in {b"content-length", b"transfer-encoding"} for name, _ in self.headers)
        self._ends_with_connection = not framed and status not in {204, 304}

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self._chunks.append(body)
            self._buffered += len(body)

    def on_message_complete(self) -> None:
        if self._head_done:
            self.complete = True


class Pool:
    """Idle connections by address, and a watch over busy ones. Bound to one event loop."""

    def __init__(self, timeout: float) -> None:
        """``timeout`` is the number of seconds that an engine may be silent in a request."""
        self._timeout = timeout
        self._interval = min(1.0, timeout / 4)
        self._idle: dict[tuple[str, int], list[Connection]] = {}
        self._busy: set[Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    async def acquire(self, host: str, port: int, *, fresh: bool = False) -> Connection:
        """A connection that is ready to send on; ``fresh`` forbids a reused one.

        Raises:
            UpstreamError: nobody listens there, or not within ``CONNECT_TIMEOUT``.
        """
        address = (host, port)
        loop = asyncio.get_running_loop()
        idle = self._idle.get(address)
        while idle and not fresh:
            connection = idle.pop()
            usable = not connection.transport.is_closing() and connection.reusable
            if usable and loop.time() - connection.last_activity < IDLE_SECONDS:
                connection.take()
                connection.patience = 0.0
                self._busy.add(connection)
                return connection
            connection.abort()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                _, connection = await loop.create_connection(
                    lambda: Connection(loop, address), host, port
                )
        except TimeoutError:
            message = f"no connection to {host}:{port} within {CONNECT_TIMEOUT:g} s"
            raise UpstreamError("connect", message) from None
        except OSError as error:
            raise UpstreamError("connect", f"no connection to {host}:{port}: {error}") from error
        self._busy.add(connection)
        if self._sweeper is None and not self._closed:
            self._sweeper = loop.call_later(self._interval, self._sweep)
        return connection

    def release(self, connection: Connection) -> None:
        """Take a connection back: kept when its answer was whole, closed otherwise."""
        self._busy.discard(connection)
        connection.busy = False
        idle = self._idle.setdefault(connection.address, [])
        if connection.reusable and len(idle) < MAX_IDLE and not self._closed:
            idle.append(connection)
        else:
            connection.abort()

    def close(self) -> None:
        """Close every connection; requests in flight fail."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in list(self._busy):
            connection.fail("closed", "the gateway is shutting down")
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
            limit = max(self._timeout, connection.patience)
            # A paused connection waits for a slow client, which is not the engine's silence.
            if not connection._read_paused and now - connection.last_activity > limit:  # noqa: SLF001  (the pool and its connections are one)
                connection.fail("timeout", f"the engine sent nothing for {limit:g} s")
        for address, idle in list(self._idle.items()):
            kept = []
            for connection in idle:
                if connection.reusable and now - connection.last_activity < IDLE_SECONDS:
                    kept.append(connection)
                else:
                    connection.abort()
            if kept:
                self._idle[address] = kept
            else:
                del self._idle[address]
        self._sweeper = loop.call_later(self._interval, self._sweep) if self._has_any() else None

    def _has_any(self) -> bool:
        return bool(self._busy or self._idle)
