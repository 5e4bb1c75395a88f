"""Replacements for uvicorn's transport, flow control and ``send``."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Protocol

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from yibu.gateway.http.exchange import Message, Send


class Owner(Protocol):
    """The connection, as these use it."""

    transport: asyncio.Transport
    deaf: bool
    held: bytes

    def close(self) -> None: ...


class AnswerTransport:
    """The transport as uvicorn sees it: closing it is the connection's to do, and an answer's head,
    which uvicorn writes by itself, leaves with the first part of its body."""

    def __init__(
        self, inner: asyncio.Transport, connection: Owner, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._inner = inner
        self._connection = connection
        self._loop = loop
        self._head = b""
        self._holds = False

    def hold_head(self) -> None:
        """Hold the next write, a head, until more follows or the event loop's turn ends."""
        self._holds = True

    def write(self, data: bytes) -> None:
        if self._holds:
            self._holds, self._head = False, data
            self._loop.call_soon(self.flush)
        elif self._head:
            head, self._head = self._head, b""
            self._inner.writelines((head, data) if data else (head,))
        else:
            self._inner.write(data)

    def write_whole(self, *parts: bytes) -> None:
        """Write a whole answer."""
        self._holds = False
        if len(parts) == 1:
            self._inner.write(parts[0])
        else:
            self._inner.writelines(parts)

    def flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._inner.write(head)

    def close(self) -> None:
        self._connection.close()

    def close_now(self) -> None:
        self.flush()
        self._inner.close()

    def write_eof(self) -> None:
        self.flush()
        with contextlib.suppress(OSError):  # the client is gone, which connection_lost will say
            self._inner.write_eof()

    def abort(self) -> None:
        self._head = b""
        self._inner.abort()

    def is_closing(self) -> bool:
        return self._connection.deaf or self._inner.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class HeldFlow(FlowControl):
    """Keeps reading paused while bytes wait to be parsed."""

    def __init__(self, connection: Owner) -> None:
        super().__init__(connection.transport)
        self._connection = connection

    def resume_reading(self) -> None:
        if not self._connection.held:
            super().resume_reading()


def until_closed(cycle: RequestResponseCycle, send: Send) -> Send:
    """``send`` for HTTP/1.0, which has no chunks: an answer without a length ends with the connection."""

    sized = False

    async def plain(message: Message) -> None:
        nonlocal sized
        if message["type"] == "http.response.start":
            sized = any(name == b"content-length" for name, _ in message["headers"])
            cycle.chunked_encoding = None if sized else False
        elif not sized:
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    return plain
