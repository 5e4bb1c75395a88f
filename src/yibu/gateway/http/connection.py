"""A client connection: uvicorn's HTTP/1.1 protocol, with the bounds that uvicorn leaves to a proxy.

uvicorn (on httptools) parses requests, frames answers, keeps connections alive and hands
websockets over. What is added at its extension points: bounds in bytes and seconds for heads,
trailers, bodies, pipelined requests (``parsing``) and answers that nobody takes; refusal of heads
that could be read in two ways; the gateway's error object for what cannot be parsed; cancelling the application
when the client leaves; and a connection that is closed under a client that still sends is read a
little longer, so that the client sees the answer instead of a reset.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from yibu.errors import InvalidRequestError, RequestError
from yibu.gateway.envelope import error_body, error_headers
from yibu.gateway.http.connections import TooManyConnectionsError
from yibu.gateway.http.cycle import Cycle
from yibu.gateway.http.exchange import PROBE, Receive, Scope, Send
from yibu.gateway.http.parsing import MAX_PIPELINED, ParsedConnection
from yibu.gateway.http.request_head import BadRequestError
from yibu.gateway.http.transport import AnswerTransport, HeldFlow, until_closed

logger = logging.getLogger("yibu.gateway.http")

HEAD_SECONDS = 20.0
"""From a request's first byte to the end of its headers."""
KEEP_ALIVE_SECONDS = 75.0
"""For a connection's first request, or the next one."""
STALL_SECONDS = 60.0
"""Seconds after which a client that sends no byte of its body, or reads no byte of its answer, is given
up."""
BODY_SECONDS = 60.0
"""A body may take this long, and one more second for every ``BODY_RATE`` bytes."""
BODY_RATE = 1024
LINGER_SECONDS = 5.0
"""Seconds to read from a client that still sends after its answer."""
_FIRST_PROBE = 0.25
_PROBES_APART = 15.0
"""Seconds between probes whether a half-closed client still reads; doubled each time."""
_UNPROBED = 2.0
"""Seconds after which a half-closed client that cannot be probed (HTTP/1.0) is given up."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with a timeout of 0: closing sends a reset."""


class SlowRequestError(InvalidRequestError):
    """The request's headers or body did not come in time."""

    status = 408
    default_code = "request_timeout"


class HttpConnection(ParsedConnection):
    """One client connection."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._application = cast("Callable[[Scope, Receive, Send], Any]", self.app)
        self.lost = False
        self.deaf = False
        """Whether input is discarded until the client closes or ``LINGER_SECONDS`` are over."""
        self._newest: asyncio.Task[None] | None = None
        """The task of the latest request."""
        self._running: tuple[Cycle, asyncio.Task[None]] | None = None
        self._refusal: RequestError | None = None
        self._half_closed = False
        """Whether the client has closed its sending half; its requests are still answered."""
        # Time-outs.
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
                    "{limit} requests are being answered: no more connections are served",
                    limit=self.server_state.limit,
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
        elif not self.deaf and self._refusal is None and not self._take_known(data):
            self._feed(data)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's may return one
        """Keep the connection for the answers that are owed; False closes it.

        The client may have closed all of it, which looks the same until something is sent.
        """
        self._wire.flush()
        if self.deaf or self._in_body or not self._unanswered:
            return False
        if not self._half_closed:
            self._half_closed = True
            self.loop.call_later(_FIRST_PROBE, self._probe, _FIRST_PROBE)
        return True

    def _probe(self, waited: float) -> None:
        """Send what a client may ignore: a client that is gone answers with a reset, seen at the next
        check."""
        if self.lost or not self._unanswered:
            return
        cycle = self._unanswered[0]
        sock = self.transport.get_extra_info("socket")
        interim = cycle.scope["http_version"] == "1.1"
        silent = not (interim or cycle.response_started) and waited >= _UNPROBED
        if silent or sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
            return
        if cycle.response_started:
            probe: Any = cycle.scope["extensions"].get(PROBE)
            if probe is not None:
                self.tasks.add(task := self.loop.create_task(probe(), name="probing a client"))
                task.add_done_callback(self.tasks.discard)
        elif interim:
            self._wire.write_whole(b"HTTP/1.1 100 Continue\r\n\r\n")
        after = min(2 * waited, _PROBES_APART)
        self.loop.call_later(after, self._probe, after)

    def handle_websocket_upgrade(self) -> None:
        if self._unanswered:
            self._refuse(BadRequestError("A websocket cannot be opened behind other requests"))
        else:
            self.server_state.timed.discard(self)
            super().handle_websocket_upgrade()

    def close(self) -> None:
        """Close; first read for a while from a client that still sends."""
        sending = self._in_body or self._refusal is not None or self.held
        if self.lost or self._half_closed or not sending:
            self._wire.close_now()
        elif not self.deaf:
            self.deaf = True
            self.held = b""
            self.since = self.loop.time()
            self.flow.resume_reading()
            if self.transport.can_write_eof():
                self.transport.write_eof()

    def shutdown(self) -> None:
        """Close once everything in flight is answered; called by the server when it stops."""
        self._draining = True
        if self._unanswered:
            super().shutdown()
        else:
            self._wire.close_now()

    @property
    def idle(self) -> bool:
        """Whether closing it now loses nothing for the client."""
        return self.deaf or not (self._unanswered or self.transport.get_write_buffer_size())

    # Time ---------------------------------------------------------------------------------

    def check_time(self, now: float) -> None:
        """Close if a timeout has passed; called once a second."""
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

    # Requests -----------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: Any, app: Any = None) -> None:  # noqa: ARG002  (uvicorn's)
        self._newest = self.loop.create_task(self._run(cycle))
        self.tasks.add(self._newest)

    async def _run(self, cycle: Cycle) -> None:
        """Run the application for the oldest request; an exception ends that request alone."""
        task = self._newest
        assert task is not None
        try:
            if not self.lost and self._unanswered and self._unanswered[0] is cycle:
                await self._answer(cycle, (cycle, task))
        finally:
            self.tasks.discard(task)
            # They hold the cycle, which holds its scope: garbage that only the collector would find.
            cycle.scope["extensions"].clear()

    async def _answer(self, cycle: Cycle, running: tuple[Cycle, asyncio.Task[None]]) -> None:
        self._running = running
        self._wire.hold_head()
        scope: Any = cycle.scope
        send: Any = cycle.send
        if scope["http_version"] == "1.0":
            send = until_closed(cycle, send)
        try:
            await self._application(scope, cycle.receive, send)
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
        """Close so that the client cannot take a part for the whole answer: by a reset where only the
        connection's end ends the answer (HTTP/1.0)."""
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
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        if self._refusal is not None:
            if not self._unanswered:
                self._send_refusal(self._refusal)
        elif self.held and len(self.pipeline) < MAX_PIPELINED:
            self.loop.call_soon(self._go_on)
        elif self._half_closed and not self._unanswered:
            self._wire.close_now()

    def _go_on(self) -> None:
        held, self.held = self.held, b""
        if self.deaf or self.lost or self._refusal is not None:
            return
        self._feed(held)
        self.flow.resume_reading()

    def _refuse(self, error: RequestError) -> None:
        """Send an error response, after the answers to earlier requests."""
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
        logger.info("%s: refused: %s", self.client, error.message)
        body = error_body(error)
        headers = [*self.server_state.default_headers, *error_headers(error)]
        headers += [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.transport.write(STATUS_LINE[error.status] + lines + b"\r\n" + body)
        self.transport.close()
