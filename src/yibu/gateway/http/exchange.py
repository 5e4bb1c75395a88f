"""One HTTP request and its answer."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal

from yibu.accounts.limits import Admission
from yibu.accounts.live import ANYBODY
from yibu.accounts.usage import Slot, Tokens, Used
from yibu.errors import InvalidRequestError, RequestError, TooLargeError
from yibu.gateway.envelope import Dialect, error_body, error_event, error_headers
from yibu.gateway.monitoring.tracing import Trace, passed_on
from yibu.messages import accepted, tr

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:@/+=-]{1,128}")
_WANTED = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"cookie",
        b"host",
        b"origin",
        b"x-api-key",
        b"x-request-id",
        b"sec-fetch-site",
        b"x-csrf-token",
        b"traceparent",
        b"accept-language",
        b"access-control-request-headers",
        b"access-control-request-method",
    }
)
_SINGLE = _WANTED - {b"cookie", b"x-request-id", b"access-control-request-headers", b"traceparent"}

KEEP_ALIVE = b": keep-alive\n\n"

ANSWERS = "yibu.whole_answer"
"""An ASGI extension: a function that sends a whole answer at once, or returns False (``Cycle.answer``)."""

PROBE = "yibu.probe"
"""An ASGI extension, set by the application: a coroutine function that sends what a client may ignore."""

CLIENT_GONE = 499
"""What nginx logs for a client that left; never sent."""


class UnsupportedEncodingError(InvalidRequestError):
    """The request's body is compressed: its real size would be known too late."""

    status = 415
    default_code = "unsupported_encoding"


class ClientGoneError(Exception):
    """The client left before its request was complete."""


class Exchange:
    """A request and its answer. Every answer carries ``x-request-id``.

    An answer is started once and ended once; nothing can be written after its end.
    """

    __slots__ = (
        "_answer", "_repeats", "_send", "_state", "admission", "audio_seconds", "bytes_in", "bytes_inline", "bytes_out", "caller", "closing", "compute", "cors",
        "dialect", "event_number", "failed", "first_byte", "headers", "key", "label", "limits", "method", "model", "noted", "path", "prompt_most", "receive", "replica", "request_id", "scope", "started",
        "status", "stream", "tokens", "trace", "working_since",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self._send = send
        self._answer: Callable[[int, Headers, bytes], bool] | None
        extensions = scope.get("extensions", {})
        self._answer = extensions.get(ANSWERS)
        extensions[PROBE] = self.probe
        self._state: Literal["unanswered", "answering", "ended"] = "unanswered"
        self.cors: Headers | None = None
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        wanted = [header for header in scope["headers"] if header[0] in _WANTED]
        self.headers: dict[bytes, bytes] = dict(wanted)
        self._repeats = len(wanted) > len(self.headers)
        given = self.headers.get(b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            self.request_id = given
        else:
            # It names the request and guards nothing: the system need not be asked for each.
            self.request_id = b"req-%024x" % random.getrandbits(96)
        self.trace: Trace | None = None
        self.started = time.perf_counter()
        self.first_byte = 0.0
        self.dialect: Dialect = "openai"
        self.label = "other"
        """The path as metrics name it: only those of the API, so that labels stay few."""
        self.model = "-"
        self.replica = "-"
        self.caller = ANYBODY
        self.key = "-"
        self.status = 0
        # Inline are pictures, sounds and files in its body.
        self.bytes_in = self.bytes_out = self.bytes_inline = 0
        self.tokens: Tokens | None = None
        self.prompt_most: int | None = None
        """The most tokens its single prompt can have; None where it may have several prompts."""
        self.audio_seconds = 0.0
        self.compute = self.working_since = 0.0
        """Seconds that replicas worked on it until, and when one began that works on it, by perf_counter; 0
        where none does."""
        self.noted: dict[Slot, Used] = {}
        """What of it is counted in the usage already, by hour."""
        self.admission: Admission | None = None
        """Its share of the limits of caller and model, where there are any."""
        self.limits: Headers | None = None
        """Rate limit headers for the answer."""
        self.failed = False
        """Whether a stream ended in an error."""
        self.stream = False
        self.closing = False
        """Whether the last part of the answer was sent."""
        self.event_number = 0
        """Of an error event that ends a stream, in APIs that number theirs."""

    def worked(self) -> float:
        """Seconds that replicas have worked on it by now."""
        since = self.working_since
        return self.compute + (time.perf_counter() - since if since else 0.0)

    def rest(self) -> None:
        """Note that no replica works on it any more."""
        self.compute, self.working_since = self.worked(), 0.0

    def trace_headers(self) -> Headers:
        """The trace context for an engine: of the request's own span, else the client's."""
        if self.trace is not None:
            return self.trace.headers()
        return passed_on(self.scope["headers"]) if b"traceparent" in self.headers else []

    # The request's body -------------------------------------------------------------------

    def expect_length(self, limit: int) -> int | None:
        """The Content-Length, or None for a chunked body.

        Raises:
            TooLargeError: it is over ``limit`` bytes.
        """
        header = self.headers.get(b"content-length")
        if header is None:
            return None
        length = int(header)
        if length > limit:
            raise self.too_large(limit)
        return length

    async def next_part(self, limit: int) -> tuple[bytes, bool]:
        """The next bytes of the body, and whether more will come.

        Raises:
            TooLargeError: more than ``limit`` bytes have come.
            ClientGoneError: the client left.
        """
        message = await self.receive_at_most(limit)
        if message["type"] != "http.request":
            raise ClientGoneError
        part: bytes = message.get("body", b"")
        return part, message.get("more_body", False)

    async def receive_at_most(self, limit: int) -> Message:
        """``receive`` for a body of at most ``limit`` bytes.

        Raises:
            TooLargeError: more have come.
        """
        message = await self.receive()
        self.bytes_in += len(message.get("body", b""))
        if self.bytes_in > limit:
            raise self.too_large(limit)
        return message

    async def read_parts(self, limit: int) -> list[bytes]:
        """The whole body, of at most ``limit`` bytes, in the pieces in which it came."""
        self.expect_length(limit)
        parts = []
        more = True
        while more:
            part, more = await self.next_part(limit)
            parts.append(part)
        return parts

    def replace_body(self, body: bytes) -> None:
        """Replace the body by this complete one, of type JSON, for later readers."""

        async def replay() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        self.receive = replay
        self.bytes_in = 0
        self.headers[b"content-length"] = b"%d" % len(body)
        self.headers[b"content-type"] = b"application/json"

    def translate(self, translator: Callable[[Send], Send]) -> None:
        """Pass everything sent from now on through ``translator``'s ``send``."""
        self._send = translator(self._send)
        self._answer = None

    def too_large(self, limit: int) -> TooLargeError:
        self.closing = True
        return TooLargeError(
            "The request's body is larger than {limit} bytes",
            limit=limit,
            hint="gateway.max_body and gateway.max_upload in yibu.yaml set the limits",
        )

    def require_single_headers(self) -> None:
        """Refuse repeated headers: this gateway and a proxy in front of it might read different ones.

        Raises:
            InvalidRequestError: one is.
        """
        if not self._repeats:
            return
        names = [name for name, _ in self.scope["headers"] if name in _SINGLE]
        for name in self.headers:
            if names.count(name) > 1:
                raise InvalidRequestError(
                    "The header {name} is given {times} times; expected once",
                    name=name.decode(),
                    times=names.count(name),
                    code="duplicate_header",
                )

    def require_plain_body(self) -> None:
        """Raises UnsupportedEncodingError: the request's body is compressed."""
        coding = self.headers.get(b"content-encoding", b"identity").strip().lower()
        if coding not in {b"identity", b""}:
            raise UnsupportedEncodingError(
                "The request's body has the Content-Encoding {coding}; expected it as it is",
                coding=coding[:100].decode("latin-1"),
            )

    def require_json(self) -> None:
        """Refuse what a page of another site can send without a CORS preflight.

        A program may leave the type out; a page could too, and tells its origin.

        Raises:
            InvalidRequestError: the Content-Type is not JSON.
        """
        kind = self.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if not kind and b"origin" not in self.headers and b"sec-fetch-site" not in self.headers:
            return
        if kind != b"application/json" and not kind.endswith(b"+json"):
            raise InvalidRequestError(
                "The Content-Type is {kind}; expected application/json",
                kind=kind.decode("latin-1") or tr("missing"),
                code="unsupported_media_type",
            )

    # The answer ---------------------------------------------------------------------------

    @property
    def answering(self) -> bool:
        """Whether the status has been sent."""
        return self._state != "unanswered"

    async def start(self, status: int, headers: Headers) -> None:
        self._complete(status, headers)
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def start_events(self) -> None:
        """Begin a stream of server-sent events, which no proxy is to hold back."""
        kind = (b"content-type", b"text/event-stream; charset=utf-8")
        held = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        await self.start(200, [kind, *held])

    def _complete(self, status: int, headers: Headers) -> None:
        """Begin the answer, with the headers that all answers have."""
        self._step("unanswered", "answering")
        self.status = status
        headers.append((b"x-request-id", self.request_id))
        if self.dialect == "anthropic":  # where its SDK looks
            headers.append((b"request-id", self.request_id))
        if self.cors is not None:
            headers += self.cors
        if self.limits is not None:
            headers += self.limits
        if self.closing:
            headers.append((b"connection", b"close"))

    async def write(self, data: bytes) -> None:
        """Send a part of the body; waits when the client is slow."""
        self._step("answering", "answering")
        if not self.first_byte:
            self.first_byte = time.perf_counter()
        self.bytes_out += len(data)
        if self.trace is not None:
            self.trace.sent(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def keep_alive(self) -> None:
        """Send a comment in an event stream: ignored by its reader, and not counted as first byte."""
        self._step("answering", "answering")
        await self._send({"type": "http.response.body", "body": KEEP_ALIVE, "more_body": True})

    async def probe(self) -> None:
        """Send a comment if an event stream has begun, for a server that checks whether its client is
        gone."""
        if self.stream and self._state == "answering":
            await self.keep_alive()

    async def end(self, data: bytes = b"") -> None:
        """Send the last part of the body."""
        self._end(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        if status != 204:  # which may not have one (RFC 9110, 8.6)
            headers.append((b"content-length", b"%d" % len(body)))
        self._complete(status, headers)
        if self._answer is not None and self._answer(status, headers, body):
            self._end(body)
            return
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self.end(body)

    def _end(self, data: bytes) -> None:
        self._step("answering", "ended")
        if not self.first_byte:
            self.first_byte = time.perf_counter()
        self.bytes_out += len(data)
        if self.trace is not None:
            self.trace.sent(data)

    def _step(self, before: str, after: Literal["answering", "ended"]) -> None:
        """Raises RuntimeError where it would be a second answer, or a second end."""
        if self._state != before:
            raise RuntimeError(f"the answer is {self._state}, and is to be {after}")
        self._state = after

    @property
    def language(self) -> str:
        """The client's language, by Accept-Language."""
        return accepted(self.headers.get(b"accept-language", b"").decode("latin-1"))

    async def refuse(self, error: RequestError) -> None:
        """Send an error response, or an error event in a stream that has begun. Does nothing after the
        answer's end."""
        if self._state == "ended":
            return
        if not self.answering:
            body = error_body(error, self.dialect, self.request_id, self.language)
            await self.respond(error.status, error_headers(error), body)
        elif self.stream:
            self.failed = True
            event = error_event(error, self.dialect, self.event_number, self.language)
            await self.end(event)

    async def surface_send(self, message: Message) -> None:
        """``send`` for the documented surface, an ASGI application of its own."""
        if message["type"] == "http.response.start":
            await self.start(message["status"], list(message["headers"]))
        elif message.get("more_body", False):
            await self.write(message.get("body", b""))
        else:
            await self.end(message.get("body", b""))

    async def head_send(self, message: Message) -> None:
        """``send`` for HEAD: the headers alone."""
        if message["type"] == "http.response.start":
            await self.start(message["status"], list(message["headers"]))
        elif not message.get("more_body", False):
            await self.end()
