"""A client connection: uvicorn's HTTP/1.1 protocol, with the bounds that it leaves to a proxy.

uvicorn (on httptools) parses requests, frames answers, keeps connections alive and hands
websockets over. What is added at its extension points: bounds in bytes and seconds for heads,
trailers, bodies, pipelined requests and answers that nobody takes; refusal of heads that could be
read in two ways; the gateway's error object for what cannot be parsed; cancelling the application
when the client leaves; and a connection that is closed under a client that still sends is read a
little longer, so that the client sees the answer instead of a reset.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from yibu.errors import InvalidRequestError, RequestError
from yibu.gateway.envelope import error_body, error_headers
from yibu.gateway.http.connections import Connections, TooManyConnectionsError
from yibu.gateway.http.exchange import CANCELS, Receive, Scope, Send
from yibu.gateway.http.request_head import MAX_HEAD_BYTES, BadRequestError, check_head, too_large
from yibu.gateway.http.transport import AnswerTransport, HeldFlow, until_closed

logger = logging.getLogger("yibu.gateway.http")

HEAD_SECONDS = 20.0
"""From a request's first byte to the end of its headers."""
KEEP_ALIVE_SECONDS = 75.0
"""For a connection's first request, or the next one."""
STALL_SECONDS = 60.0
"""A client that sends no byte of its body, or takes no byte of its answer, for this long is gone."""
BODY_SECONDS = 60.0
"""A body may take this long, and one more second for every ``BODY_RATE`` bytes."""
BODY_RATE = 1024
LINGER_SECONDS = 5.0
"""How long a client that still sends is listened to after its answer."""

MAX_PIPELINED = 16
"""Parsed requests that may wait for the answers before them; the rest stays unparsed, unread."""
_PIECE = 4096
"""Bytes given to the parser at a time: it makes requests of all that it is given."""

_EXTENSIONS: dict[str, dict[str, Any]] = {CANCELS: {}}

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER: on, for no time."""


class SlowRequestError(InvalidRequestError):
    """The request's headers or body did not come in time."""

    status = 408
    default_code = "request_timeout"


class HttpConnection(HttpToolsProtocol):
    """One client connection."""

    server_state: Connections

    def __init__(
        self,
        config: Config,
        server_state: Connections,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=False)
        self._application = cast("Callable[[Scope, Receive, Send], Any]", self.app)
        self.app = self._run
        self.since = self.loop.time()
        """When the head began, the body's last byte came, or the last answer ended."""
        self.lost = False
        self.deaf = False
        """What still comes is thrown away, until the client closes or ``LINGER_SECONDS`` are over."""
        self.held = b""
        """Read, and not parsed yet: too many requests wait already."""
        self._unanswered: deque[RequestResponseCycle] = deque()
        self._running: tuple[RequestResponseCycle, asyncio.Task[None]] | None = None
        self._refusal: RequestError | None = None
        self._draining = False
        # The message that is being parsed.
        self._in_head = False
        self._in_body = False
        self._keep_alive = False
        self._unaccounted = 0
        """Bytes parsed since the last head or part of a body: of heads, trailers, extensions."""
        self._raw = b""
        """The bytes that the message's head stands in, from ``_start`` on (-1: somewhere)."""
        self._start = 0
        self._ignores_upgrade = False
        # Time-outs.
        self._received = 0
        self._waited = 0.0
        self._buffered = 0
        self._moved = self._checked = self.since

    # Transport ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = AnswerTransport(cast("asyncio.Transport", transport), self, self.loop)
        super().connection_made(cast("asyncio.Transport", self._wire))
        self.flow = HeldFlow(self)
        self.server_state.timed.add(self)
        if not self.server_state.has_room(self, self.loop.time()):
            self._refuse(
                TooManyConnectionsError(
                    f"{self.server_state.limit} requests are being answered: no more connections "
                    "are served",
                    hint="gateway.max_connections in yibu.yaml sets the limit",
                    retry_after=1.0,
                )
            )

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.server_state.timed.discard(self)
        super().connection_lost(exc)
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        self.held = b""
        self.pipeline.clear()
        if self._running is not None and not self._running[0].response_complete:
            self._running[1].cancel()

    def data_received(self, data: bytes) -> None:
        if self.held:
            self.held += data
        elif not self.deaf and self._refusal is None:
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if len(self.pipeline) >= MAX_PIPELINED:
                self.held = data[at:]
                self.flow.pause_reading()
                return
            piece = data[at : at + _PIECE] if len(data) > _PIECE else data
            at += len(piece)
            self._note_first_line(piece)
            self._unaccounted += len(piece)
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as upgrade:
                if not self._ignores_upgrade:
                    self.handle_websocket_upgrade()
                    return
                data = self._without_upgrade() + data[at - len(piece) + upgrade.args[0] :]
                at = 0
            except httptools.HttpParserError as error:
                cause = error.__context__
                known = isinstance(cause, RequestError)
                self._refuse(cause if known else BadRequestError(f"This is not HTTP/1.1: {error}"))  # type: ignore[arg-type]
                return
            if self._unaccounted > MAX_HEAD_BYTES:
                self._refuse(too_large())
                return

    def _note_first_line(self, piece: bytes) -> None:
        if self._in_body:
            self._raw, self._start = piece, -1
        elif self._in_head:
            self._raw += piece
        else:
            # What the last message left over: empty lines, for which httptools begins no message.
            left = self._raw[self._start :] if self._start >= 0 else b""
            self._raw, self._start = left + piece, 0

    def _without_upgrade(self) -> bytes:
        """The head again, for a new parser: an offered upgrade that is not taken changes nothing
        (Java's client offers HTTP/2 with every body), but httptools would skip the body."""
        self.parser = httptools.HttpRequestParser(self)
        self._raw, self._start = b"", 0
        method, url = self.scope["method"].encode(), self.url
        lines = [b"%b: %b\r\n" % item for item in self.headers if item[0] != b"upgrade"]
        return b"%b %b HTTP/1.1\r\n%b\r\n" % (method, url, b"".join(lines))

    def handle_websocket_upgrade(self) -> None:
        if self._unanswered:
            self._refuse(BadRequestError("A websocket cannot be opened behind other requests"))
        else:
            self.server_state.timed.discard(self)
            super().handle_websocket_upgrade()

    def close(self) -> None:
        """Close; a client that still sends is listened to for a while first."""
        if self.lost or not (self._in_body or self._refusal is not None or self.held):
            self._wire.close_now()
        elif not self.deaf:
            self.deaf = True
            self.held = b""
            self.since = self.loop.time()
            self.flow.resume_reading()
            if self.transport.can_write_eof():
                self.transport.write_eof()

    def shutdown(self) -> None:
        """Close once what is in flight is answered; called by the server when it stops."""
        self._draining = True
        if self._unanswered:
            super().shutdown()
        else:
            self._wire.close_now()

    @property
    def idle(self) -> bool:
        """Nothing of it would be lost to the client."""
        return self.deaf or not (self._unanswered or self.transport.get_write_buffer_size())

    # Time ---------------------------------------------------------------------------------

    def check_time(self, now: float) -> None:
        """Close what has taken too long; called once a second."""
        passed, self._checked = now - self._checked, now
        buffered = self.transport.get_write_buffer_size()
        # While it may still be written to, a full buffer does not show whether anything is taken.
        stuck = buffered > 0 and (self.flow.write_paused or not self._unanswered)
        if not stuck or buffered < self._buffered:
            self._moved = now
        self._buffered = buffered
        if now - self._moved > STALL_SECONDS or (self.deaf and now - self.since > LINGER_SECONDS):
            self.transport.abort()
        elif self.deaf or self._refusal is not None:
            pass
        elif self._in_body:
            self._check_body(now, passed)
        elif self._unanswered:
            pass
        elif self._in_head:
            if now - self.since > HEAD_SECONDS:
                self._refuse(SlowRequestError("The request's headers did not come in time"))
        elif not stuck and now - self.since > KEEP_ALIVE_SECONDS:
            self.transport.close()

    def _check_body(self, now: float, passed: float) -> None:
        if self.flow.read_paused or self.cycle.waiting_for_100_continue:
            self.since = now  # it is the client that waits
            return
        self._waited += passed
        slow = self._waited > BODY_SECONDS + self._received / BODY_RATE
        if slow or now - self.since > STALL_SECONDS:
            self._refuse(SlowRequestError("The request's body did not come in time"))

    # Parser -------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._ignores_upgrade = False
        self.since = self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else it is a trailer, which nobody here asked for
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        method, version = self.parser.get_method(), self.parser.get_http_version()
        length = check_head(method, self.url, version, self.headers)
        self._check_first_line(b"%b %b HTTP/%b\r\n" % (method, self.url, version.encode()), length)
        self._in_head = False
        self._unaccounted = 0
        self.scope["extensions"] = _EXTENSIONS  # type: ignore[typeddict-item]
        if self.parser.should_upgrade() and not self._should_upgrade():
            self.scope["method"] = method.decode()
            self._ignores_upgrade = True
            return
        before = self.cycle
        super().on_headers_complete()
        cycle = self.cycle
        if cycle is before:  # a websocket
            return
        self._unanswered.append(cycle)
        self._in_body = True
        self._received, self._waited = 0, 0.0
        # An answer that is sent before the body has come whole ends the connection.
        self._keep_alive, cycle.keep_alive = cycle.keep_alive, False

    def _check_first_line(self, line: bytes, length: int | None) -> None:
        """httptools takes other protocols' names (RTSP, ICE) for HTTP, and skips empty lines."""
        start = self._start
        if start >= 0:
            begins = self._raw.startswith(line, start)
        else:  # behind a body in chunks, whose end is httptools' to know
            begins = b" RTSP/" not in self._raw and b" ICE/" not in self._raw
        if not begins:
            raise BadRequestError("The request does not begin with 'METHOD TARGET HTTP/1.1'")
        end = self._raw.find(b"\r\n\r\n", start) if start >= 0 and length is not None else -1
        self._start = end + 4 + (length or 0) if end >= 0 else -1

    def on_body(self, body: bytes) -> None:
        self._unaccounted = 0
        self._received += len(body)
        self.since = self.loop.time()
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unaccounted = 0
        if self._in_body:
            self._in_body = False
            if not self.cycle.response_started:
                self.cycle.keep_alive = self._keep_alive and not self._draining
            super().on_message_complete()
            if not self.pipeline:
                self.flow.resume_reading()  # who does not read does not see that the client leaves

    # Requests -----------------------------------------------------------------------------

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for the oldest request; nothing it does ends more than that."""
        task = asyncio.current_task()
        if self.lost or task is None or not self._unanswered:
            return
        cycle = self._unanswered[0]
        self._running = running = (cycle, task)
        self._wire.hold_head()
        if scope["http_version"] == "1.0":
            send = until_closed(cycle, send)
        try:
            await self._application(scope, receive, send)
        except asyncio.CancelledError:
            logger.debug("%s: cancelled", scope["path"])
        except Exception:  # one request's fault ends its connection, not the server
            logger.exception("the application failed on %s", scope["path"])
        if self._running is running:
            self._running = None
        if not cycle.response_complete:
            cycle.disconnected = True  # for uvicorn, which would make an answer of its own
            if self._refusal is None:
                self._break()

    def _break(self) -> None:
        """Close so that the client does not take what it has for the whole answer: where only the
        connection's end tells the answer's (HTTP/1.0), a reset does."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None and not self.lost and self.scope["http_version"] == "1.0":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.transport.abort()

    def on_response_complete(self) -> None:
        # As uvicorn's, less its keep-alive timer: ``check_time`` closes idle connections.
        self._unanswered.popleft()
        self.since = self.loop.time()
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        if self._refusal is not None:
            if not self._unanswered:
                self._send_refusal(self._refusal)
        elif self.held and len(self.pipeline) < MAX_PIPELINED:
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        held, self.held = self.held, b""
        if self.deaf or self.lost or self._refusal is not None:
            return
        self._feed(held)
        self.flow.resume_reading()

    def _refuse(self, error: RequestError) -> None:
        """Answer what cannot be served, after the answers to what came before it."""
        self._refusal = error
        if self._in_body:
            faulty = self._unanswered.pop() if self._unanswered else None
            if faulty is None:  # answered already
                self.transport.close()
                return
            faulty.disconnected = True
            if self._unanswered:
                self.pipeline.popleft()
            elif self._running is not None:
                self._running[1].cancel()
            if faulty.response_started:
                self.transport.abort()
                return
        if not self._unanswered:
            self._send_refusal(error)

    def _send_refusal(self, error: RequestError) -> None:
        body = error_body(error)
        headers = [*self.server_state.default_headers, *error_headers(error)]
        headers += [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.transport.write(STATUS_LINE[error.status] + lines + b"\r\n" + body)
        self.transport.close()
