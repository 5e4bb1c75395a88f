"""One HTTP/1.1 connection to an engine, as an asyncio protocol over httptools.

A connection hands a response out as it comes, pauses reading when nobody takes the bytes, and is
``reusable`` only when it is clean: the answer ended by its own framing, every byte of it was
taken, nothing came after it, and reading is on. What an answer may look like is RFC 9112,
section 6.3; whatever could be read in two ways is an error, as it is for h11.
"""

from __future__ import annotations

import asyncio
import select
import socket
from typing import Literal, cast

import httptools

from yibu.messages import tr

Headers = list[tuple[bytes, bytes]]
Kind = Literal["connect", "closed", "timeout", "protocol"]

MAX_HEADER_BYTES = 64 * 1024
"""Of an answer's head with its interim answers, and of what stands between two pieces of its body
(chunk extensions, trailers)."""

HIGH_WATER = 256 * 1024
"""Bytes of an answer that may wait for the client before the engine is made to wait."""

_READ_BYTES = 256 * 1024
_OPENING = b"HTTP/"
_BODILESS = frozenset({204, 304})


class UpstreamError(Exception):
    """The engine could not be reached, or broke off; ``kind`` says how.

    ``stale`` is true when a reused connection failed before an answer to this request began: it
    ended, or bytes came that belong to no answer. The same request may be sent again.
    """

    def __init__(self, kind: Kind, message: str, *, stale: bool = False) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.message = message
        self.stale = stale


class StillWaitingError(Exception):
    """Nothing has come yet, and ``interrupt`` was called; waiting can go on."""


class EngineConnection(asyncio.Protocol):
    """One connection to an engine. Use: ``send``, ``wait_head``, ``read`` until ``b""``."""

    def __init__(self, loop: asyncio.AbstractEventLoop, address: tuple[str, int]) -> None:
        self.address = address
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.last_activity = loop.time()
        self.patience = 0.0
        """Seconds the engine may be silent in this request, if more than the pool's."""
        self.reused = False
        self.overran = False
        """Whether the engine sent bytes after a whole answer."""
        self._loop = loop
        self._poll = select.poll()
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._interrupted = False
        self._writable: asyncio.Future[None] | None = None
        self._write_paused = False
        self._closed = False
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headers: Headers = []
        self.complete = False
        self.request_whole = True
        """False during an upload: an answer may come before its end."""
        self._error: UpstreamError | None = None
        self._opening = b""
        self._began = False
        """Whether a status line has come."""
        self._head_done = False
        self._overhead = 0
        """Bytes since the last piece of the body."""
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._read_paused = False
        self._ends_with_connection = False
        self._keep_alive = False

    # What the caller uses -----------------------------------------------------------------

    def take(self, idle: float) -> bool:
        """Begin another request on a connection that was idle for less than ``idle`` seconds; False
        when it was longer, or is not clean any more.

        The socket is asked, not only the event loop: bytes or an end that have come already and
        that the loop has not read yet would be taken for the next request's answer.
        """
        now = self._loop.time()
        if not self.reusable or now - self.last_activity >= idle or self.transport.is_closing():
            return False
        if self._poll.poll(0):
            self.overran = bool(self._unread(1, socket.MSG_PEEK))
            return False
        self._reset()
        self.reused = True
        self.patience = 0.0
        self.last_activity = now
        return True

    def _unread(self, size: int, flags: int = 0) -> bytes:
        """Unread bytes on the socket; none at its end."""
        own = self.transport.get_extra_info("socket")
        with socket.fromfd(own.fileno(), own.family, own.type) as copy:
            try:
                return copy.recv(size, flags | socket.MSG_DONTWAIT)
            except OSError:
                return b""

    def send(self, *parts: bytes) -> None:
        self.last_activity = self._loop.time()
        if not self._closed:
            # An empty part stays in the buffer of asyncio's own transport (Python 3.12, 3.13): such a
            # connection would neither end nor close.
            self.transport.writelines([part for part in parts if part])

    async def drain(self) -> None:
        """Wait until the engine has taken most of what was sent."""
        if self._write_paused and not self._closed:
            self._writable = self._loop.create_future()
            await self._writable

    async def wait_head(self) -> None:
        """Wait for the status line and the headers.

        Raises:
            UpstreamError: the connection ended, timed out or sent something else.
            StillWaitingError: it was interrupted.
        """
        while not self._head_done:
            if self._error is not None:
                raise self._error
            await self._wait()

    async def read(self) -> bytes:
        """Return what has come of the body, at least one byte, or ``b""`` at its end.

        Raises:
            UpstreamError: the body ended before it was whole.
            StillWaitingError: it was interrupted.
        """
        while not self._chunks:
            self._resume_reading()
            if self.complete:
                return b""
            if self._error is not None:
                raise self._error
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
                message = tr("the engine's answer is longer than {limit} bytes", limit=limit)
                raise UpstreamError("protocol", message)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @property
    def answered(self) -> bool:
        """Whether the engine has answered, or has gone: time to stop uploading."""
        return self._head_done or self._closed

    @property
    def waits_for_reader(self) -> bool:
        """Whether reading is paused because the answer so far has not been taken."""
        return self._read_paused

    @property
    def reusable(self) -> bool:
        """Whether the connection is clean: another request's answer cannot be mistaken on it."""
        return (
            self.complete
            and self.request_whole
            and self._keep_alive
            and not self._chunks
            and not self._read_paused
            and not self._write_paused
            and not self._closed
        )

    def fail(self, kind: Kind, message: str) -> None:
        """Abandon the answer and close."""
        if self._error is None and not self.complete:
            stale = self.reused and not self._began and kind in ("closed", "protocol")
            self._error = UpstreamError(kind, message, stale=stale)
        self.abort()
        self._wake()

    def abort(self) -> None:
        self._closed = True
        if self.transport is not None:
            self.transport.abort()

    def _resume_reading(self) -> None:
        if self._read_paused:
            self._read_paused = False
            if not self._closed:
                self.transport.resume_reading()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self._interrupted:
            self._interrupted = False
            raise StillWaitingError

    def interrupt(self) -> None:
        """Wake whoever waits for the answer, if anybody does."""
        if self._waiter is not None and not self._waiter.done():
            self._interrupted = True
            self._waiter.set_result(None)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What the event loop calls ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        self.last_activity = self._loop.time()
        if self.complete:
            # While it is idle, or before it is given back: it must never be used again.
            self.overran = True
            self.fail("protocol", tr("the engine sent bytes that nobody asked for"))
            return
        self._overhead += len(data)
        if len(self._opening) < len(_OPENING):
            self._opening = (self._opening + data[: len(_OPENING)])[: len(_OPENING)]
            if not _OPENING.startswith(self._opening):  # the parser takes RTSP, and blank lines
                self.overran = self.reused  # it may as well belong to the request before this one
                self.fail(
                    "protocol",
                    tr("the engine's answer begins with {opening!r}", opening=self._opening),
                )
                return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.fail("protocol", tr("the engine changed the protocol, which nobody asked for"))
            return
        except httptools.HttpParserError as error:
            self.fail("protocol", tr("the engine's answer is not HTTP/1.1: {error}", error=error))
            return
        if self._overhead > MAX_HEADER_BYTES and not self.complete:
            self.fail(
                "protocol",
                tr(
                    "the engine's headers exceed {limit} bytes",
                    limit=MAX_HEADER_BYTES,
                ),
            )
            return
        if self._buffered > HIGH_WATER and not self._read_paused and not self._closed:
            self._read_paused = True
            self.transport.pause_reading()
        if self._head_done or self._error is not None:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None and not self._closed and self._head_done and self._ends_with_connection:
            self.complete = True  # the engine closed, not we: that is this answer's end
        broke = exc is not None and not self._closed
        self._closed = True
        if broke and self.transport.get_extra_info("sslcontext") is None:
            # An engine that answers before a body has come whole may close under it. Whoever then
            # fails to write reads no more, although the answer is there.
            while not (self.complete or self._error) and (data := self._unread(_READ_BYTES)):
                self.data_received(data)
        self.fail("closed", tr("the engine closed the connection before its answer was whole"))
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
            self.overran = True
            self._keep_alive = False

    def on_status(self, reason: bytes) -> None:
        self._began = True
        if b"\0" in reason:
            self.fail("protocol", tr("the engine's status line holds a null byte"))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._began = True
        if not self._head_done:  # else it is a trailer, which is no header
            self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        if self.complete or self._error is not None:  # it answers nothing, whatever it is
            return
        self._began = True
        status = self._parser.get_status_code()
        if not 200 <= status <= 599:
            if status in (100, 102, 103):  # interim: the answer is still to come
                self.headers.clear()
                return
            self.fail("protocol", tr("the engine answered with the status {status}", status=status))
            return
        fault = _framing_fault(self._parser.get_http_version(), self.headers)
        if fault:
            self.fail("protocol", fault)
            return
        self.status = status
        self._head_done = True
        self._keep_alive = self._parser.should_keep_alive()
        framing = [value for name, value in self.headers if name in _FRAMING]
        if status in _BODILESS:
            # The parser would wait for what the headers say; by RFC 9110 nothing comes.
            self.complete = True
            self._keep_alive = self._keep_alive and framing in ([], [b"0"])
        else:
            self._ends_with_connection = not framing

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self._chunks.append(body)
            self._buffered += len(body)
            self._overhead = 0

    def on_message_complete(self) -> None:
        if self._head_done:
            self.complete = True


_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


def _framing_fault(version: str, headers: Headers) -> str | None:
    """What makes an answer's end ambiguous although the parser accepts it; None when nothing does."""
    if version not in {"1.0", "1.1"}:
        return tr("the engine answered in HTTP/{version}; expected HTTP/1.1", version=version)
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings and (len(codings) > 1 or codings[0].lower() != b"chunked"):
        shown = b", ".join(codings)[:60].decode("latin-1")
        return tr(
            "the engine answered with the transfer coding {shown!r}; expected 'chunked'",
            shown=shown,
        )
    lengths = [value for name, value in headers if name == b"content-length"]
    if len(lengths) > 1 or (lengths and codings):
        return tr("the engine's answer gives its length twice")
    return None
