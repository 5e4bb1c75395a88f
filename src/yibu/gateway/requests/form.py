"""Scans a multipart form as it passes: where its model is named, and whether it is complete.

The parser is python-multipart's. The format is RFC 7578 (multipart/form-data) over RFC 2046
(boundaries).
"""

from __future__ import annotations

import logging
import re

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from yibu.errors import InvalidRequestError
from yibu.messages import tr

MAX_PARTS = 256
MAX_MODEL_BYTES = 1024
SLICE_BYTES = 16 * 1024
"""Feed no more than this at once: a few milliseconds of work, whatever the form is like."""

_TYPE = re.compile(rb"\s*multipart/form-data\s*", re.IGNORECASE)
_PARAMETER = re.compile(rb';\s*([!#-\'*+.0-9A-Z^-z|~-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*))\s*')
_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"')
_NAME = re.compile(rb";\s*name\*?\s*=", re.IGNORECASE)
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")

_AS_IT_IS = frozenset({b"7bit", b"8bit", b"binary"})
"""The others are deprecated by RFC 7578, 4.7, and no server that is asked here decodes them."""

_silent = logging.getLogger("yibu.gateway.requests.form.parser")
_silent.disabled = True  # the parser logs each fault that it raises, too


def broken_form(reason: str) -> InvalidRequestError:
    return InvalidRequestError(
        "The multipart form cannot be read: {reason}", reason=reason, code="invalid_multipart"
    )


def find_boundary(content_type: bytes) -> bytes:
    """The boundary that a Content-Type names.

    Raises:
        InvalidRequestError: it is none of a form, or names no boundary, two, or one that cannot be.
    """
    opening = _TYPE.match(content_type)
    found: list[bytes] = []
    at = opening.end() if opening else 0
    while opening and (parameter := _PARAMETER.match(content_type, at)):
        at = parameter.end()
        if parameter[1].lower() == b"boundary":
            found.append(parameter[2] if parameter[2] is not None else parameter[3])
    rest = content_type[at:].strip(b"; \t")
    if opening is None or rest or len(found) != 1:
        shown = content_type[:100].decode("latin-1") or tr("missing")
        raise broken_form(
            tr(
                "the Content-Type is {shown!r}; expected multipart/form-data with one boundary",
                shown=shown,
            )
        )
    if not _BOUNDARY.fullmatch(found[0]):
        raise broken_form(
            tr(
                "the boundary {boundary!r} has {length} characters; expected 1 to 70 of "
                "letters, digits and '()+_,-./:=? without a space at its end",
                boundary=found[0][:80].decode("latin-1"),
                length=len(found[0]),
            )
        )
    return found[0]


class FormScanner:
    """Takes a form in pieces and finds its field ``model``."""

    def __init__(self, boundary: bytes) -> None:
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begins,
                "on_header_begin": self._header_begins,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_ends,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._part_data,
                "on_part_end": self._part_ends,
                "on_end": self._ends,
            },
        )
        self._parser.logger = _silent
        self._piece = b""
        self._passed = 0
        self._name = b""
        self._value = b""
        self._in_model = self._named = False
        self._model: bytes | None = None
        self._start = 0
        self.parts = 0
        self.model: str | None = None
        """The field's value once its part has ended."""
        self.span = (0, 0)
        """Start and end of the value in the form."""
        self.ended = False
        """Whether the last boundary has come."""

    def feed(self, piece: bytes) -> None:
        """Take the next bytes.

        Raises:
            InvalidRequestError: the form is broken, or ``model`` is not one short text.
        """
        self._piece = piece
        try:
            self._parser.write(piece)
        except MultipartParseError as error:
            if not self.parts:
                raise broken_form(
                    tr("the body does not begin with the boundary that the Content-Type names")
                ) from None
            raise broken_form(tr("part {parts}: {error}", parts=self.parts, error=error)) from None
        self._passed += len(piece)

    def finish(self) -> None:
        """Check that the form is whole.

        Raises:
            InvalidRequestError: it ends before its last boundary.
        """
        if not self.ended:
            raise broken_form(tr("it ends before its last boundary: the upload was cut off"))

    def _part_begins(self) -> None:
        self.parts += 1
        self._in_model = self._named = False
        if self.parts > MAX_PARTS:
            raise broken_form(tr("it has more than {limit} parts", limit=MAX_PARTS))

    def _header_begins(self) -> None:
        self._name = self._value = b""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        name = self._name.lower()
        if name == b"content-transfer-encoding" and self._value.strip().lower() not in _AS_IT_IS:
            encoding = self._value[:40].decode("latin-1")
            raise broken_form(
                tr("part {parts} has the Content-Transfer-Encoding {encoding!r}; expected the bytes as they are",
                   parts=self.parts, encoding=encoding)
            )  # fmt: skip
        if name != b"content-disposition":
            return
        names = _NAME.findall(_QUOTED.sub(b"", self._value))
        if self._named or len(names) > 1:
            raise broken_form(tr("part {parts} is named twice", parts=self.parts))
        _, options = parse_options_header(self._value)
        self._named = b"name" in options
        self._in_model = options.get(b"name") == b"model"
        if not self._in_model:
            return
        if b"filename" in options:
            raise broken_form(tr("the field 'model' is a file; expected text"))
        if self._model is not None:
            raise broken_form(tr("the field 'model' is given twice"))
        self._model = b""

    def _headers_end(self) -> None:
        if not self._named:
            raise broken_form(
                tr("part {parts} has no Content-Disposition with a name", parts=self.parts)
            )

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if not self._in_model:
            return
        if not self._model:
            # What looked like the start of a boundary at the end of the piece before is handed
            # over by itself, out of another object.
            here = self._piece is data
            self._start = self._passed + (start if here else start - end)
        assert self._model is not None
        self._model += data[start:end]
        if len(self._model) > MAX_MODEL_BYTES:
            raise broken_form(
                tr(
                    "the field 'model' is longer than {limit} bytes",
                    limit=MAX_MODEL_BYTES,
                )
            )

    def _part_ends(self) -> None:
        if not self._in_model or not self._model:
            return
        try:
            self.model = self._model.decode().strip()
        except UnicodeDecodeError:
            raise broken_form(tr("the field 'model' is not UTF-8")) from None
        self.span = (self._start, self._start + len(self._model))

    def _ends(self) -> None:
        self.ended = True
