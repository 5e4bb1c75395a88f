"""The reading half of a client connection: what httptools parses, checked and bounded.

A head that was parsed before is not parsed again (``known_heads``).
"""

from __future__ import annotations

import asyncio
import urllib.parse
from abc import abstractmethod
from collections import deque
from typing import Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from yibu.errors import RequestError
from yibu.gateway.http.connections import Connections
from yibu.gateway.http.cycle import Cycle
from yibu.gateway.http.exchange import ANSWERS
from yibu.gateway.http.request_head import (
    MAX_HEAD_BYTES,
    BadRequestError,
    check_head,
    check_websocket,
    too_large,
)
from yibu.messages import tr

MAX_PIPELINED = 16
"""Parsed requests that may wait for the answers before them; the rest stays unparsed, unread."""
_OF_CONNECTION = frozenset({b"connection", b"proxy-connection"})
_PIECE = 4096
"""Bytes given to the parser at a time: it creates a request for every head in them."""


class ParsedConnection(HttpToolsProtocol):
    """Creates requests from a client's bytes."""

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
        self.since = self.loop.time()
        """When the head began, the body's last byte came, or the last answer ended."""
        self.held = b""
        """Bytes read but not parsed: too many requests wait already."""
        self.cycle: Cycle = cast("Cycle", None)
        self._unanswered: deque[Cycle] = deque()
        self._draining = False
        # The message that is being parsed.
        self._in_head = False
        self._in_body = False
        self._keep_alive = False
        self._unaccounted = 0
        """Bytes parsed since the last head or part of a body: of heads, trailers, extensions."""
        self._raw = b""
        """The bytes with the message's head, from ``_start`` on (-1: unknown)."""
        self._start = 0
        self._ignores_upgrade = False
        self._received = 0
        """Bytes of the body received so far."""
        self._waited = 0.0
        """Seconds spent waiting for the body."""

    @abstractmethod
    def _refuse(self, error: RequestError) -> None:
        """Send an error response."""

    @abstractmethod
    def _start_asgi_task(self, cycle: Any, app: Any = None) -> None:
        """Answer the oldest request."""

    def _take_known(self, data: bytes) -> bool:
        """Begin a request whose head was parsed before and whose body has come; False for others."""
        begun = self._unanswered or self._in_head or self._in_body or self.pipeline
        if begun or self._start != len(self._raw):
            return False
        if self.cycle is not None and not self._keep_alive:
            return False
        known = self.server_state.known_heads.find(data)
        if known is None:
            return False
        head, length, body = known
        self._keep_alive = True  # or its head had not been kept
        headers = head.headers.copy()
        headers[head.at] = (b"content-length", length)
        cycle = self._open({**head.scope, "headers": headers}, keep_alive=not self._draining)
        cycle.body, cycle.more_body = bytearray(body), False
        cycle.message_event.set()
        self._start_asgi_task(cycle)
        return True

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
                rest = data[at - len(piece) + upgrade.args[0] :]
                if self._ignores_upgrade:
                    data, at = self._without_upgrade() + rest, 0
                elif rest:
                    early = tr("Bytes came behind a websocket's handshake before its answer")
                    self._refuse(BadRequestError(early))
                    return
                else:
                    self.handle_websocket_upgrade()
                    return
            except httptools.HttpParserError as error:
                cause = error.__context__
                if not isinstance(cause, RequestError):
                    cause = BadRequestError(_instead_of_http(data, error))
                self._refuse(cause)
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

    # What the parser calls ----------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._in_head = True
        self._ignores_upgrade = False
        self.since = self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            super().on_header(name, value)
        elif name.lower() in _OF_CONNECTION:  # which the parser heeds in a trailer, too
            raise BadRequestError("A trailer cannot be about the connection")

    def on_headers_complete(self) -> None:
        method, version = self.parser.get_method(), self.parser.get_http_version()
        length = check_head(method, self.url, version, self.headers)
        start = self._start
        self._check_first_line(b"%b %b HTTP/%b\r\n" % (method, self.url, version.encode()), length)
        self._in_head = False
        self._unaccounted = 0
        target = httptools.parse_url(self.url)
        raw_path = target.path or b"/"
        path = raw_path.decode("ascii")
        if version == "1.0":
            self.expect_100_continue = False  # such a client knows no interim answer
        shared = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "method": method.decode("ascii"),
            "scheme": "http",
            "path": urllib.parse.unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": target.query or b"",
            "root_path": "",
        }
        upgrade = self.parser.should_upgrade()
        if upgrade:
            self.scope = cast("Any", {**shared, "headers": self.headers})
            self._ignores_upgrade = not self._should_upgrade()
            if not self._ignores_upgrade:
                check_websocket(method, self.headers, length)
            return
        # An answer that is sent before the body has come whole ends the connection.
        self._keep_alive = version != "1.0" and self.parser.should_keep_alive()
        if self._keep_alive and start >= 0 and not self.expect_100_continue:
            self.server_state.known_heads.keep(self._raw, start, shared, self.headers)
        first = not self._unanswered
        cycle = self._open({**shared, "headers": self.headers}, keep_alive=False)
        self._in_body = True
        self._received, self._waited = 0, 0.0
        if first:
            self._start_asgi_task(cycle)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, cast("Any", None)))

    def _open(self, scope: dict[str, Any], *, keep_alive: bool) -> Cycle:
        """Create a request whose head is parsed."""
        scope["server"], scope["client"], scope["state"] = self.server, self.client, {}
        self.scope = cast("Any", scope)
        self.cycle = cycle = Cycle(
            self.scope, self.transport, self.flow, self.logger, self.access_logger, False,
            self.server_state.default_headers, asyncio.Event(), self.expect_100_continue,
            keep_alive, self.on_response_complete,
        )  # fmt: skip
        scope["extensions"] = {ANSWERS: cycle.answer}
        self._unanswered.append(cycle)
        return cycle

    def _check_first_line(self, line: bytes, length: int | None) -> None:
        """Refuse what httptools accepts beyond HTTP: other protocols' names (RTSP, ICE) and empty lines."""
        start = self._start
        if start >= 0:
            begins = self._raw.startswith(line, start)
        else:  # behind a body in chunks, whose end is httptools' to know
            begins = b" RTSP/" not in self._raw and b" ICE/" not in self._raw
        if not begins:
            raise BadRequestError("The request does not begin with 'METHOD TARGET HTTP/1.1'")
        end = self._raw.find(b"\r\n\r\n", start) if start >= 0 else -1
        if end - start > MAX_HEAD_BYTES:
            raise too_large()
        self._start = end + 4 + length if end >= 0 and length is not None else -1

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


def _instead_of_http(data: bytes, error: Exception) -> str:
    """The error message for a client that speaks another protocol."""
    if data.startswith(b"\x16\x03"):
        return tr(
            "This is TLS, and the gateway speaks HTTP: write http:// instead of https://, or put a "
            "proxy in front that ends TLS"
        )
    if data.startswith(b"PRI * HTTP/2.0"):
        return tr("This is HTTP/2, and the gateway speaks HTTP/1.1")
    return tr("This is not HTTP/1.1: {error}", error=error)
