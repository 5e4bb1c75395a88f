"""Multipart uploads, streamed through: only as much is held as is needed to find the model.

The format is RFC 7578 (multipart/form-data) over RFC 2046 (boundaries).
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import AsyncIterator
from typing import IO

from yibu.errors import InvalidRequestError
from yibu.gateway.backend import Backend, Route
from yibu.gateway.exchange import Exchange
from yibu.gateway.operations import Operation, find_route, only_route
from yibu.gateway.proxy import Payload, Proxy
from yibu.gateway.requests import JsonRequest

_BOUNDARY = re.compile(rb'boundary=(?:"([^"\r\n]{1,70})"|([^;,\s"]{1,70}))', re.IGNORECASE)
_NAME = re.compile(rb'[;\s]name="?([^";\r\n]*)"?', re.IGNORECASE)

MAX_FIELD_BYTES = 1024
"""Of the model's name."""
MAX_PART_HEADER_BYTES = 16 * 1024
MEMORY_BYTES = 4 * 1024 * 1024
"""What waits for the model's name beyond this waits in an unlinked temporary file."""
SPOOL_READ_BYTES = 256 * 1024


class FormScanner:
    """Looks for the field ``model`` in a multipart body that comes in pieces of any size."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        # The first boundary has no line break before it; with one put there, all look the same.
        self._buffer = b"\r\n"
        self._offset = -2
        self._in_headers = False
        self._in_model = False
        self.model: str | None = None
        self.span = (0, 0)
        """Where the value of ``model`` stands in the body."""
        self.ended = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            InvalidRequestError: the form is broken, or ``model`` is not text.
        """
        self._buffer += data
        while self.model is None and not self.ended and self._step():
            pass

    def _step(self) -> bool:
        """Take one part's headers, or skip to the next part; False when more bytes are needed."""
        return self._headers() if self._in_headers else self._body()

    def _body(self) -> bool:
        at = self._buffer.find(self._delimiter)
        size = at if at >= 0 else len(self._buffer) - len(self._delimiter)
        if self._in_model and size > MAX_FIELD_BYTES:
            raise broken_form(f"the field 'model' is longer than {MAX_FIELD_BYTES} bytes")
        if at < 0:
            if not self._in_model:
                self._drop(max(0, len(self._buffer) - len(self._delimiter) + 1))
            return False
        after = at + len(self._delimiter)
        if len(self._buffer) < after + 2:
            return False
        if self._in_model:
            self.span = (self._offset, self._offset + at)
            try:
                self.model = self._buffer[:at].decode().strip()
            except UnicodeDecodeError:
                raise broken_form("the field 'model' is not UTF-8") from None
            return False
        self.ended = self._buffer[after : after + 2] == b"--"
        self._drop(after)
        self._in_headers = True
        return True

    def _headers(self) -> bool:
        at = self._buffer.find(b"\r\n\r\n")
        if at < 0:
            if len(self._buffer) > MAX_PART_HEADER_BYTES:
                raise broken_form(f"a part's headers exceed {MAX_PART_HEADER_BYTES} bytes")
            return False
        disposition = b""
        for line in self._buffer[:at].split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-disposition":
                disposition = value
        field = _NAME.search(disposition)
        self._in_model = field is not None and field[1] == b"model"
        self._in_headers = False
        self._drop(at + 4)
        return True

    def _drop(self, count: int) -> None:
        self._buffer = self._buffer[count:]
        self._offset += count


def broken_form(reason: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"The multipart form cannot be read: {reason}", code="invalid_multipart"
    )


async def upload(
    proxy: Proxy, backend: Backend, exchange: Exchange, operation: Operation, limit: int
) -> None:
    """Forward one upload of at most ``limit`` bytes to the model that it names.

    Raises:
        RequestError: it is refused, or no engine could answer it.
    """
    length = exchange.expect_length(limit)
    content_type = exchange.headers.get(b"content-type", b"")
    boundary = _BOUNDARY.search(content_type)
    if boundary is None or not content_type.lower().startswith(b"multipart/form-data"):
        raise broken_form("expected Content-Type multipart/form-data with a boundary")
    scanner = FormScanner(boundary[1] or boundary[2])
    more = True
    with tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES) as spool:
        while more and scanner.model is None and not scanner.ended:
            part, more = await exchange.next_part(limit)
            scanner.feed(part)
            spool.write(part)
        route = _route(backend, operation, scanner.model)
        named = scanner.model or route.model
        exchange.model = route.meant(named)
        spool.seek(0)
        data = spool.read(MEMORY_BYTES)
        held = spool.tell() < exchange.bytes_in
        rest = _rest(exchange, limit, spool if held else None, more) if more or held else None
        payload = Payload(content_type, data, rest, length, scanner.span)
        request = JsonRequest(named, {}, stream=False, include_usage=False)
        await proxy.forward(exchange, operation, route, request, payload)


def _route(backend: Backend, operation: Operation, model: str | None) -> Route:
    if model:
        return find_route(backend, model, operation)
    if not operation.model_required:
        return only_route(backend, operation)
    raise InvalidRequestError(
        "'model' is missing", param="model", code="missing_required_parameter"
    )


async def _rest(
    exchange: Exchange, limit: int, spool: IO[bytes] | None, more: bool
) -> AsyncIterator[bytes]:
    """What is on disk, then what the client still sends."""
    while spool is not None and (part := spool.read(SPOOL_READ_BYTES)):
        yield part
    while more:
        part, more = await exchange.next_part(limit)
        if part:
            yield part
