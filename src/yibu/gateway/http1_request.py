"""What the HTTP server protocol (``http1``) hands to the application: one request, its answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Protocol

from yibu.gateway.exchange import Message, Receive, Scope, Send

logger = logging.getLogger("yibu.gateway.http")

App = Callable[[Scope, Receive, Send], Awaitable[None]]

HIGH_WATER = 256 * 1024
"""Bytes of a request's body that may wait for the application."""

STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


class Connection(Protocol):
    """What a request needs of the connection that it came by."""

    state: ServerState
    loop: asyncio.AbstractEventLoop
    gone: bool
    """The client has left."""
    write_paused: bool
    waiting_since: float
    """When the wait for the client began, on the loop's clock; 0 while none is waited for."""

    def write(self, data: bytes) -> None: ...
    async def drain(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def answered(self, request: Request, *, broken: bool) -> None: ...
    def check_time(self, now: float) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class ServerState:
    """What the connections of one server share."""

    def __init__(self, app: App, loop: asyncio.AbstractEventLoop) -> None:
        self.app = app
        self.loop = loop
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.date = b""
        self.draining = False
        self.idle: asyncio.Event = asyncio.Event()
        """Set when draining and no request is in flight."""
        self.tick()

    def tick(self) -> None:
        """Once a second: the Date header, and connections whose time is over."""
        self.date = b"date: " + formatdate(usegmt=True).encode() + b"\r\n"
        now = self.loop.time()
        for connection in list(self.connections):
            connection.check_time(now)

    def finished(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if self.draining and not self.tasks:
            self.idle.set()


class Request:
    """One request and its answer: the application's ``receive`` and ``send``."""

    __slots__ = (
        "_chunked", "_head", "_owed", "_parts", "_size", "_waiter", "complete", "expects",
        "keep_alive", "more", "protocol", "scope", "started", "task", "told",
    )  # fmt: skip

    def __init__(self, protocol: Connection, scope: Scope, *, keep_alive: bool) -> None:
        self.protocol = protocol
        self.scope = scope
        self.keep_alive = keep_alive
        self.expects = False
        self.more = True
        self.complete = False
        self.started = False
        self.told = False
        """The application has been given the body's last part."""
        self.task: asyncio.Task[None] | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._head: Message | None = None
        self._chunked = False
        self._owed = 0

    # From the parser ----------------------------------------------------------------------

    def body(self, data: bytes) -> None:
        if self.complete:
            return
        self._parts.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER:
            self.protocol.pause_reading()
        self.wake()

    def whole(self) -> None:
        self.more = False
        self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # For the application ------------------------------------------------------------------

    async def receive(self) -> Message:
        protocol = self.protocol
        if self.expects and self.more and not self.started:
            self.expects = False
            protocol.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not self._parts and (self.more or self.told):
            if self.complete or protocol.gone:
                return {"type": "http.disconnect"}
            self._waiter = protocol.loop.create_future()
            protocol.waiting_since = protocol.loop.time()
            try:
                await self._waiter
            finally:
                self._waiter = None
                protocol.waiting_since = 0.0
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts = []
        self._size = 0
        self.told = not self.more
        # After the last part too: who does not read does not see that the client leaves.
        protocol.resume_reading()
        return {"type": "http.request", "body": body, "more_body": self.more}

    async def send(self, message: Message) -> None:
        protocol = self.protocol
        if protocol.gone:
            return
        if message["type"] == "http.response.start":
            self._head = message
            self.started = True
            return
        body: bytes = message.get("body", b"")
        more: bool = message.get("more_body", False)
        head = self._head
        if head is not None:
            self._head = None
            opening = self._encode_head(head, body, more=more)
        else:
            opening = b""
        if self.scope["method"] == "HEAD":
            body = b""
        elif self._chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                body += b"0\r\n\r\n"
        else:
            self._owed -= len(body)
        if opening or body:
            protocol.write(opening + body if opening else body)
        if not more:
            self._end()
        elif protocol.write_paused:
            await protocol.drain()

    def _encode_head(self, head: Message, body: bytes, *, more: bool) -> bytes:
        status: int = head["status"]
        lines = [STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        length: int | None = None
        for name, value in head["headers"]:
            if name == b"content-length":
                length = int(value)
            elif name == b"connection":
                self.keep_alive = self.keep_alive and value.lower() != b"close"
                continue
            lines.append(b"%b: %b\r\n" % (name, value))
        bodiless = status in {204, 304}
        if length is None and not bodiless:
            if not more:
                length = len(body)
                lines.append(b"content-length: %d\r\n" % length)
            elif self.scope["http_version"] == "1.1":
                self._chunked = True
                lines.append(b"transfer-encoding: chunked\r\n")
            else:
                self.keep_alive = False
        self._owed = length or 0
        if not self.keep_alive or self.protocol.state.draining:
            self.keep_alive = False
            lines.append(b"connection: close\r\n")
        expected = len(lines)
        text = b"".join(lines)
        if text.count(b"\n") != expected or text.count(b"\r") != expected:
            message = "a response header holds a line break"
            raise ValueError(message)
        return text + self.protocol.state.date + b"\r\n"

    def _end(self) -> None:
        self.complete = True
        self.wake()
        short = self._owed > 0 and not self._chunked and self.scope["method"] != "HEAD"
        self.protocol.answered(self, broken=short)

    async def run(self, app: App) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            self.protocol.abort()
        except Exception:  # one request's fault must not take the connection's state with it
            logger.exception("the application failed on %s", self.scope["path"])
            self.protocol.abort()
        else:
            if not self.complete:
                self.protocol.abort()
