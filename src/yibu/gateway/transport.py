"""What uvicorn's HTTP protocol is given in place of its own transport, flow control and ``send``."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from yibu.gateway.exchange import Message, Send


class Owner(Protocol):
    """The connection, as these see it."""

    transport: asyncio.Transport
    deaf: bool
    held: bytes

    def close(self) -> None: ...


class ClosedByConnection:
    """The transport as uvicorn sees it: closing it is the connection's to do."""

    def __init__(self, inner: asyncio.Transport, connection: Owner) -> None:
        self._inner = inner
        self._connection = connection
        self.write = inner.write
        self.close_now = inner.close

    def close(self) -> None:
        self._connection.close()

    def is_closing(self) -> bool:
        return self._connection.deaf or self._inner.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class HeldFlow(FlowControl):
    """Reads nothing while something that was read waits to be parsed."""

    def __init__(self, connection: Owner) -> None:
        super().__init__(connection.transport)
        self._connection = connection

    def resume_reading(self) -> None:
        if not self._connection.held:
            super().resume_reading()


def until_closed(cycle: RequestResponseCycle, send: Send) -> Send:
    """``send`` for HTTP/1.0, which knows no chunks: without a length, an answer lasts until the
    connection is closed. uvicorn would send chunks."""

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
