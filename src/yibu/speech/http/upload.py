"""Multipart uploads, parsed as they arrive and kept in nameless temporary files.

A ``TemporaryFile`` has no name in the directory (``O_TMPFILE`` on Linux, unlinked at once
elsewhere), so that nothing remains of it however the process ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import IO, Self

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from yibu.errors import InvalidRequestError, NotReadyError, RequestError, TooLargeError
from yibu.messages import tr
from yibu.speech.settings import MIB, EngineLimits

FILE_FIELDS = frozenset({"file", "audio"})
"""``file`` is OpenAI's; scripts around SenseVoice use either."""

_IN_MEMORY = 64 * 1024
"""Bytes; larger uploads go to a file, so that many clients need no more memory."""
_FLUSH_AT = 128 * 1024
_FIELD_BYTES = 64 * 1024
_PARTS = 256
_CHARSET = re.compile(
    r"""charset\s*=\s*"?((?:utf-?(?:8|16|32)|iso-8859|windows|gb|big5|shift|euc|us-ascii|koi8)[\w-]*)""",
    re.IGNORECASE,
)
"""The charset of a field: Java's clients write ISO-8859-1 by default."""


class UploadStalledError(RequestError):
    """The client stopped sending in the middle of its upload."""

    status = 408
    type = "invalid_request_error"
    default_code = "upload_timeout"


@dataclass(slots=True)
class Upload:
    """The uploaded file; ``file`` is closed and removed with the form."""

    file: IO[bytes]
    filename: str
    content_type: str
    size: int = 0


@dataclass(slots=True)
class Form:
    """The parsed form: text fields by name (each may come several times), and the file."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    upload: Upload | None = None

    def first(self, name: str) -> str | None:
        """A field's value; an empty one counts as missing.

        Raises:
            InvalidRequestError: it is given twice, with two values.
        """
        values = [value for value in self.fields.get(name, ()) if value]
        if len(set(values)) > 1:
            raise InvalidRequestError(
                "The field {name!r} is given {count} times",
                name=name,
                count=len(values),
                param=name,
            )
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        """Every value of a field but empty ones: ``name``, ``name[]``, ``name[0]`` as some clients
        number them, and ``name[key]`` of an object."""
        written = re.compile(rf"{re.escape(name)}(\[\w*\])*")
        return [
            value
            for field, values in self.fields.items()
            if written.fullmatch(field)
            for value in values
            if value.strip()
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.upload is not None:
            self.upload.file.close()


async def read_form(request: Request, limits: EngineLimits) -> Form:
    """Parse the request's body.

    Raises:
        InvalidRequestError: it is not a form, or is broken or cut short.
        TooLargeError: it is over ``limits.upload_bytes``.
        UploadStalledError: nothing came for ``limits.upload_idle_seconds``.
        NotReadyError: the disk for temporary files is full.
        starlette.requests.ClientDisconnect: the client left.
    """
    boundary = _boundary(request)
    declared = request.headers.get("content-length", "")
    parser = _FormParser(boundary)
    try:
        if declared.isdecimal() and int(declared) > limits.upload_bytes:
            raise _too_large(limits)
        received = 0
        async for chunk in _chunks(request, limits.upload_idle_seconds):
            received += len(chunk)
            if received > limits.upload_bytes:
                raise _too_large(limits)
            parser.feed(chunk)
            if parser.pending >= _FLUSH_AT:
                await asyncio.to_thread(parser.flush)
        await asyncio.to_thread(parser.flush)
        return parser.finish()
    except BaseException as error:  # cancellation too: no temporary file may stay
        parser.form.__exit__()
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise NotReadyError(
                "The server's disk for temporary files is full", retry_after=30
            ) from error
        raise


async def _chunks(request: Request, idle_seconds: float) -> AsyncIterator[bytes]:
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(idle_seconds):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise UploadStalledError(
                "The upload stopped: nothing came for {idle_seconds:g} s", idle_seconds=idle_seconds
            ) from None
        if chunk is None:
            return
        yield chunk


def _boundary(request: Request) -> bytes:
    kind, parameters = parse_options_header(request.headers.get("content-type", ""))
    boundary = parameters.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidRequestError(
            "The body must be multipart/form-data with a boundary, not {kind!r}",
            kind=kind.decode("latin-1") or tr("without a content type"),
            hint="curl -F file=@speech.wav -F model=… sends it so",
        )
    return bytes(boundary)


def _too_large(limits: EngineLimits) -> TooLargeError:
    return TooLargeError(
        "The upload is over {upload_bytes:.0f} MiB, the limit of this server",
        upload_bytes=limits.upload_bytes / MIB,
        param="file",
    )


class _FormParser:
    """Collects the callbacks of the byte-level parser into a ``Form``."""

    def __init__(self, boundary: bytes) -> None:
        self.form = Form()
        self.pending = 0
        self._chunk = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._name = ""
        self._value: bytearray | None = None
        self._in_file = self._ended = False
        self._parts = 0
        with _translated():
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begin,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value_data,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._part_data,
                    "on_part_end": self._part_end,
                    "on_end": self._end,
                },
            )

    def feed(self, chunk: bytes) -> None:
        with _translated():
            self._parser.write(chunk)

    def flush(self) -> None:
        """Write pending bytes to the file, on a worker thread: the disk may be slow."""
        if self.form.upload is not None and self._chunk:
            self.form.upload.file.write(self._chunk)
        self._chunk = bytearray()
        self.pending = 0

    def finish(self) -> Form:
        with _translated():
            self._parser.finalize()
        if not self._ended:
            raise InvalidRequestError("The form is cut short: its last boundary is missing")
        return self.form

    def _part_begin(self) -> None:
        self._parts += 1
        if self._parts > _PARTS:
            raise InvalidRequestError("The form has more than {limit} fields", limit=_PARTS)
        self._headers = {}

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _header_value_data(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_end(self) -> None:
        self._headers[bytes(self._header_name).lower()] = bytes(self._header_value)
        self._header_name = bytearray()
        self._header_value = bytearray()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        filename = options.get(b"filename")
        if filename is None and self._name not in FILE_FIELDS:
            self._value = bytearray()
            return
        if self._name not in FILE_FIELDS:
            raise InvalidRequestError(
                "The file came in the field {name!r}; it belongs in 'file'",
                name=self._name[:64],
                param="file",
            )
        if self.form.upload is not None:
            raise InvalidRequestError("One request takes one file, two came", param="file")
        self._in_file = True
        self.form.upload = Upload(
            file=tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY),  # noqa: SIM115 - with the form
            filename=(filename or b"").decode("utf-8", "replace"),
            content_type=self._headers.get(b"content-type", b"").decode("latin-1").strip(),
        )

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            assert self.form.upload is not None
            self._chunk += memoryview(data)[start:end]
            self.pending = len(self._chunk)
            self.form.upload.size += end - start
        elif self._value is not None:
            if len(self._value) + end - start > _FIELD_BYTES:
                raise InvalidRequestError(
                    "The field {name!r} is longer than {limit} bytes",
                    name=self._name[:64],
                    limit=_FIELD_BYTES,
                    param=self._name[:64],
                )
            self._value += data[start:end]

    def _part_end(self) -> None:
        if self._value is not None:
            kind = self._headers.get(b"content-type", b"").decode("latin-1")
            charset = found[1] if (found := _CHARSET.search(kind)) else "utf-8"
            try:
                text = self._value.decode(charset)
            except (UnicodeError, LookupError):
                raise InvalidRequestError("The field {name!r} is not {charset} text", name=self._name[:64], charset=charset.upper(), param=self._name[:64]) from None  # fmt: skip
            self.form.fields.setdefault(self._name, []).append(text)
        self._value = None
        self._in_file = False

    def _end(self) -> None:
        self._ended = True


@contextlib.contextmanager
def _translated():  # type: ignore[no-untyped-def]
    try:
        yield
    except FormParserError as error:
        raise InvalidRequestError("The form cannot be read: {error}", error=error) from error
