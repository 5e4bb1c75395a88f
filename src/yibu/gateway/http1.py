"""An HTTP/1.1 server protocol for ASGI applications, written for small answers at a high rate.

It differs from uvicorn in what the gateway's speed and safety hang on: status and first body
bytes leave in one write, the application's task is cancelled when the client leaves (the ASGI
extension ``yibu.cancels_on_disconnect``), heads are bounded in bytes and in time, and a request
that is refused before its body was read is answered and then drained, so that the client sees
the answer. Parsing is httptools'. No upgrades, no HTTP/2.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import httptools

from yibu.errors import InvalidRequestError, RequestError
from yibu.gateway.envelope import error_body
from yibu.gateway.http1_request import STATUS_LINES, Request, ServerState

MAX_HEAD_BYTES = 64 * 1024
MAX_PIPELINED = 16
HEAD_SECONDS = 20.0
"""From a request's first byte to the end of its headers."""
KEEP_ALIVE_SECONDS = 75.0
STALL_SECONDS = 60.0
"""A client that neither sends its body nor takes its answer for this long is gone."""
LINGER_SECONDS = 5.0
"""How long the rest of a refused body is read and thrown away."""

_EXTENSIONS: dict[str, dict[str, Any]] = {"yibu.cancels_on_disconnect": {}}


class HeadTooLargeError(InvalidRequestError):
    """The request's line and headers are over ``MAX_HEAD_BYTES``."""

    status = 431
    default_code = "headers_too_large"


class SlowRequestError(InvalidRequestError):
    """The request's headers did not come in time."""

    status = 408
    default_code = "request_timeout"


class HttpProtocol(asyncio.Protocol):
    """One client connection."""

    def __init__(self, state: ServerState) -> None:
        self.state = state
        self.loop = state.loop
        self.gone = False
        self.write_paused = False
        self.waiting_since = 0.0
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._parser = httptools.HttpRequestParser(self)
        self._current: Request | None = None
        self._parsing: Request | None = None
        self._pending: deque[Request] = deque()
        self._refusal: RequestError | None = None
        self._paused = False
        self._drained: asyncio.Future[None] | None = None
        self._since = self.loop.time()
        self._in_head = False
        self._head_bytes = 0
        self._lingering = False
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._expects = False
        self._client: tuple[str, int] | None = None
        self._server: tuple[str, int] | None = None

    # Transport ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._client = _address(transport.get_extra_info("peername"))
        self._server = _address(transport.get_extra_info("sockname"))
        self.state.connections.add(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        self.gone = True
        self.state.connections.discard(self)
        self._pending.clear()
        self.resume_writing()
        request = self._current
        if request is not None and not request.complete:
            request.wake()
            if request.task is not None:
                request.task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._lingering or self._refusal is not None:
            return
        if self._current is None and not self._in_head:
            self._since = self.loop.time()
            self._in_head = True
        self.waiting_since = self.waiting_since and self.loop.time()
        if self._parsing is None:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Upgrades are not offered: the request is answered as it is, and nothing after it.
            if self._current is not None:
                self._current.keep_alive = False
        except httptools.HttpParserError as error:
            refusal = error.__context__
            if not isinstance(refusal, RequestError):
                refusal = InvalidRequestError(
                    f"The request is not HTTP/1.1: {error}", code="invalid_http"
                )
            self._refuse(refusal)
        else:
            if self._parsing is None and self._in_head and self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(_head_too_large())

    def eof_received(self) -> None:
        """The client will send no more: as with other servers, it is taken to have left."""

    def pause_writing(self) -> None:
        self.write_paused = True
        self.waiting_since = self.loop.time()

    def resume_writing(self) -> None:
        self.write_paused = False
        self.waiting_since = 0.0
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    async def drain(self) -> None:
        """Wait until the client has taken most of what was written."""
        if self.write_paused and not self.gone:
            self._drained = self.loop.create_future()
            await self._drained

    def write(self, data: bytes) -> None:
        if not self.gone:
            self._transport.write(data)

    def pause_reading(self) -> None:
        if not self._paused and not self.gone:
            self._paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused and not self.gone and len(self._pending) < MAX_PIPELINED:
            self._paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        """Break the connection: the answer cannot be finished."""
        self._transport.abort()

    def close(self) -> None:
        """Close once what was written has been sent."""
        self._transport.close()

    @property
    def busy(self) -> bool:
        return self._current is not None

    def check_time(self, now: float) -> None:
        """Close what has taken too long; called once a second."""
        if self._lingering:
            if now - self._since > LINGER_SECONDS:
                self.abort()
        elif self._current is not None:
            if self.waiting_since and now - self.waiting_since > STALL_SECONDS:
                self.abort()
        elif self._in_head:
            if now - self._since > HEAD_SECONDS:
                self._refuse(SlowRequestError("The request's headers did not come in time"))
        elif now - self._since > KEEP_ALIVE_SECONDS:
            self.close()

    # Parser -------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._in_head = True
        self._url = b""
        self._headers = []
        self._expects = False

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self._headers.append((name, value))
        if name == b"expect" and value.lower() == b"100-continue":
            self._expects = True

    def on_headers_complete(self) -> None:
        headers = self._headers
        if self._head_bytes > MAX_HEAD_BYTES:
            size = len(self._url) + sum(len(name) + len(value) + 4 for name, value in headers)
            if size > MAX_HEAD_BYTES:
                raise _head_too_large()
        self._in_head = False
        self._head_bytes = 0
        raw_path, _, query = self._url.partition(b"?")
        if not raw_path.startswith(b"/"):
            raw_path, query = _absolute(self._url)
        path = unquote_to_bytes(raw_path) if b"%" in raw_path else raw_path
        version = self._parser.get_http_version()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "extensions": _EXTENSIONS,
            "http_version": version,
            "method": self._parser.get_method().decode("ascii"),
            "scheme": "http",
            "path": path.decode("utf-8", "replace"),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": headers,
            "client": self._client,
            "server": self._server,
        }
        keep_alive = version == "1.1" and self._parser.should_keep_alive()
        request = Request(self, scope, keep_alive=keep_alive)
        request.expects = self._expects
        self._parsing = request
        if self._current is None:
            self._start(request)
        else:
            self._pending.append(request)
            if len(self._pending) >= MAX_PIPELINED:
                self.pause_reading()

    def on_body(self, body: bytes) -> None:
        if self._parsing is not None:
            self._parsing.body(body)

    def on_message_complete(self) -> None:
        if self._parsing is not None:
            self._parsing.whole()
            self._parsing = None

    # Requests -----------------------------------------------------------------------------

    def _start(self, request: Request) -> None:
        self._current = request
        self.state.idle.clear()
        task = self.loop.create_task(request.run(self.state.app))
        request.task = task
        self.state.tasks.add(task)
        task.add_done_callback(self.state.finished)

    def answered(self, request: Request, *, broken: bool) -> None:
        """The answer has been written: go on with the next request, or close."""
        self._current = None
        self._since = self.loop.time()
        self._in_head = False
        if broken:
            self.abort()
        elif request.more and request is self._parsing:
            self._linger()
        elif not request.keep_alive:
            self.close()
        elif self._pending:
            self._start(self._pending.popleft())
        elif self._refusal is not None:
            self._refuse(self._refusal)
        else:
            self.resume_reading()

    def _refuse(self, error: RequestError) -> None:
        """Answer what cannot be parsed, after the answers to what came before it."""
        self._refusal = error
        if self._current is not None:
            if self._current is not self._parsing:
                return  # it is a later request's fault
            if self._current.task is not None:
                self._current.task.cancel()
            if self._current.started:
                self.abort()
                return
        body = error_body(error)
        status = STATUS_LINES[error.status]
        self.write(
            status
            + b"content-type: application/json\r\nconnection: close\r\n"
            + b"content-length: %d\r\n" % len(body)
            + self.state.date
            + b"\r\n"
            + body
        )
        self._linger()

    def _linger(self) -> None:
        """Close, but read on for a while: a client still sending would see a reset otherwise,
        and never the answer."""
        self._lingering = True
        self._since = self.loop.time()
        self.resume_reading()
        if not self.gone and self._transport.can_write_eof():
            self._transport.write_eof()


def _head_too_large() -> HeadTooLargeError:
    return HeadTooLargeError(f"The request's headers exceed {MAX_HEAD_BYTES} bytes")


def _address(info: object) -> tuple[str, int] | None:
    return (str(info[0]), int(info[1])) if isinstance(info, tuple) and len(info) >= 2 else None


def _absolute(url: bytes) -> tuple[bytes, bytes]:
    """Path and query of a request target in absolute form (``GET http://host/path``)."""
    parsed = httptools.parse_url(url)
    return parsed.path or b"/", parsed.query or b""
