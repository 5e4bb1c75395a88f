"""A websocket client for engines: framed by wsproto, received messages in a bounded queue."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import cast

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from yibu.engines.base import Endpoint
from yibu.messages import tr
from yibu.upstream.connection import Headers, UpstreamError
from yibu.upstream.pool import CONNECT_TIMEOUT

HANDSHAKE_SECONDS = 20.0
_QUEUED = 64
"""Queued messages before the engine has to wait."""
_LONGEST = 16 * 1024 * 1024
"""Characters or bytes of a message, and of the body of a refusal."""
ABNORMAL = 1006
"""The code of a connection that ended without one."""


class HandshakeRefusedError(Exception):
    """The engine answered the handshake with a status."""

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        super().__init__(tr("the engine answered with {status}", status=status))
        self.status, self.headers, self.body = status, headers, body


class ClosedError(Exception):
    """The websocket is closed; ``code`` is ``ABNORMAL`` where the connection broke off."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(tr("closed with {code}: {reason}", code=code, reason=reason))
        self.code, self.reason = code, reason


class EngineSocket(asyncio.Protocol):
    """Use: ``open``, ``send`` and ``receive``, ``close``. Bound to one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._accepted: asyncio.Future[str | None] = loop.create_future()
        self._refusal: tuple[int, Headers] | None = None
        self._messages: deque[str | bytes] = deque()
        self._parts: list[str] | list[bytes] = []
        self._length = 0
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._paused = False
        self._closed: ClosedError | None = None
        self.subprotocol: str | None = None

    @classmethod
    async def open(
        cls, endpoint: Endpoint, target: str, headers: Headers, subprotocols: list[str]
    ) -> EngineSocket:
        """A websocket at ``target`` of an engine, with the engine's key.

        Raises:
            UpstreamError: nobody listens there, or does not answer in time, or not by the protocol.
            RefusedError: the engine refused.
        """
        loop = asyncio.get_running_loop()
        where = f"{endpoint.host}:{endpoint.port}"
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                _, socket = await loop.create_connection(
                    lambda: cls(loop), endpoint.host, endpoint.port
                )
        except (TimeoutError, OSError) as error:
            raise UpstreamError(
                "connect", tr("no connection to {where}: {error}", where=where, error=error)
            ) from error
        if not endpoint.alive():
            socket.abort()
            raise UpstreamError("connect", tr("the engine at {where} has ended", where=where))
        key = (
            [] if endpoint.key is None else [(b"authorization", b"Bearer " + endpoint.key.encode())]
        )
        request = Request(where, target, subprotocols=subprotocols, extra_headers=[*key, *headers])
        await socket.shake_hands(request)
        return socket

    async def shake_hands(self, request: Request) -> None:
        """Send the handshake and read its answer. Raises as ``open``."""
        try:
            self._write(request)
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                self.subprotocol = await self._accepted
        except TimeoutError:
            self.abort()
            message = tr(
                "no answer to the handshake within {seconds:g} s",
                seconds=HANDSHAKE_SECONDS,
            )
            raise UpstreamError("timeout", message) from None
        except BaseException:  # cancellation too: the connection must not stay open
            self.abort()
            raise

    async def send(self, message: str | bytes) -> None:
        """Send a message; waits while the engine is slow.

        Raises:
            ClosedError: the websocket is closed.
        """
        await self._writable.wait()
        if self._closed is not None:
            raise self._closed
        self._write(TextMessage(message) if isinstance(message, str) else BytesMessage(message))

    async def receive(self) -> str | bytes:
        """The next message.

        Raises:
            ClosedError: there is none any more.
        """
        while not self._messages:
            if self._closed is not None:
                raise self._closed
            self._arrived.clear()
            await self._arrived.wait()
        message = self._messages.popleft()
        if self._paused and len(self._messages) < _QUEUED // 2 and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()
        return message

    def close(self, code: int = 1000) -> None:
        """Send a close frame, and close."""
        if self._closed is None:
            self._end(code, "")
            self._write(CloseConnection(code=code))
        self._transport.close()

    def abort(self) -> None:
        self._end(ABNORMAL, "")
        self._transport.abort()

    def _write(self, event: Event) -> None:
        try:
            data = self._protocol.send(event)
        except LocalProtocolError:  # it is closing already
            return
        if not self._transport.is_closing():
            self._transport.write(data)

    def _end(self, code: int, reason: str) -> None:
        if self._closed is None:
            self._closed = ClosedError(code, reason)
        self._arrived.set()
        self._writable.set()

    # What the event loop calls ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        if not self._accepted.done():
            if self._refusal is not None:
                self._refused()
            else:
                message = tr("the engine closed the connection in the handshake")
                self._accepted.set_exception(UpstreamError("closed", message))
        self._end(ABNORMAL, tr("the engine closed the connection"))

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        try:
            self._protocol.receive_data(data)
            for event in self._protocol.events():
                self._take(event)
        except RemoteProtocolError as error:
            if not self._accepted.done():
                message = tr("the engine's answer to the handshake is wrong: {error}", error=error)
                self._accepted.set_exception(UpstreamError("protocol", message))
            self._end(ABNORMAL, tr("the engine broke the protocol"))
            self._transport.abort()

    def _take(self, event: Event) -> None:
        if isinstance(event, TextMessage | BytesMessage):
            self._take_message(event)
        elif isinstance(event, AcceptConnection):
            if not self._accepted.done():
                self._accepted.set_result(event.subprotocol)
        elif isinstance(event, RejectConnection):
            self._refusal = event.status_code, list(event.headers)
            if not event.has_body:
                self._refused()
        elif isinstance(event, RejectData):
            self._take_refusal(event)
        elif isinstance(event, Ping):
            self._write(event.response())
        elif isinstance(event, CloseConnection):
            self._end(int(event.code), event.reason or "")
            self._write(event.response())
            self._transport.close()

    def _take_message(self, event: TextMessage | BytesMessage) -> None:
        self._parts.append(event.data)  # type: ignore[arg-type]  # all of one kind
        self._length += len(event.data)
        if self._length > _LONGEST:
            self._end(
                ABNORMAL,
                tr("the engine sent a message of more than {limit} bytes", limit=_LONGEST),
            )
            self._transport.abort()
        elif event.message_finished:
            empty: str | bytes = "" if isinstance(event, TextMessage) else b""
            self._messages.append(empty.join(self._parts))  # type: ignore[arg-type]
            self._parts, self._length = [], 0
            self._arrived.set()
            if len(self._messages) > _QUEUED and not self._paused:
                self._paused = True
                self._transport.pause_reading()

    def _take_refusal(self, event: RejectData) -> None:
        self._parts.append(bytes(event.data))  # type: ignore[arg-type]
        self._length += len(event.data)
        if event.body_finished or self._length > _LONGEST:
            self._refused()

    def _refused(self) -> None:
        assert self._refusal is not None
        if not self._accepted.done():
            body = b"".join(cast("list[bytes]", self._parts))
            self._accepted.set_exception(HandshakeRefusedError(*self._refusal, body))
