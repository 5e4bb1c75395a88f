"""Server-sent events, parsed as https://html.spec.whatwg.org/multipage/server-sent-events.html says."""

from __future__ import annotations

from yibu.messages import tr
from yibu.upstream.connection import UpstreamError

DONE = b"data: [DONE]\n\n"

MAX_EVENT_BYTES = 16 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"


class EventReader:
    """Splits a byte stream into event blocks. Time is linear in the bytes, however they are split.

    A block is an event's lines, joined by LF, without the blank line that ends it. Lines may end in
    LF, CR or CRLF. Bytes that are not UTF-8 become U+FFFD.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        """The beginning of an incomplete block."""
        self._size = 0
        self._skip_lf = False
        """Whether the last byte was a CR, already read as a line end: a following LF belongs to it."""
        self._opening = b""
        """The bytes so far of a byte order mark."""
        self._begun = False

    @property
    def is_between_events(self) -> bool:
        """Whether no incomplete event has been read."""
        return self._begun and not self._parts and not self._skip_lf

    def blocks(self, data: bytes) -> list[bytes]:
        """The blocks that end in ``data``.

        Raises:
            UpstreamError: an event is longer than ``MAX_EVENT_BYTES``.
        """
        if not self._begun:
            data = self._without_bom(data)
        if self._skip_lf and data:
            self._skip_lf = False
            if data[0] == 10:
                data = data[1:]
        if b"\r" in data:
            self._skip_lf = data[-1] == 13
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if not data:
            return []
        parts = self._parts
        if parts and data[0] == 10 and parts[-1][-1] == 10:
            # The blank line is split between two pieces.
            data = b"\n" + data
            parts[-1] = parts[-1][:-1]
        blocks = data.split(b"\n\n")
        last = blocks.pop()
        if blocks and parts:
            parts.append(blocks[0])
            blocks[0] = b"".join(parts)
            parts.clear()
            self._size = 0
        if last:
            parts.append(last)
            self._size += len(last)
            if self._size > MAX_EVENT_BYTES:
                message = tr(
                    "an event of the engine's stream is longer than {limit} bytes",
                    limit=MAX_EVENT_BYTES,
                )
                raise UpstreamError("protocol", message)
        return [text for block in blocks if (text := _text(block))]

    def rest(self) -> bytes:
        """The last block, which no blank line has ended."""
        rest = b"".join(self._parts)
        self._parts.clear()
        return _text(rest)

    def _without_bom(self, data: bytes) -> bytes:
        data = self._opening + data
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._opening = data
            return b""
        self._begun = True
        return data.removeprefix(_BOM)


def _text(block: bytes) -> bytes:
    # A blank line more than is needed stands before the block.
    block = block.lstrip(b"\n")
    return block if is_utf8(block) else block.decode("utf-8", "replace").encode()


def is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def parse_event(block: bytes) -> tuple[bytes, bytes | None]:
    """A block's event type (``b""``: none) and its data; None when it has no data and is no event."""
    if block.startswith(b"data: ") and b"\n" not in block:
        return b"", block[6:]
    name = b""
    data: list[bytes] = []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return name, b"\n".join(data) if data else None


def make_event(data: bytes, name: bytes = b"") -> bytes:
    """One event's bytes; ``data`` may have several lines."""
    opening = b"event: " + name + b"\ndata: " if name else b"data: "
    if b"\n" in data:
        data = data.replace(b"\n", b"\ndata: ")
    return opening + data + b"\n\n"


def other_shape(error: Exception) -> UpstreamError:
    """The error for an event with a list where the API has an object, or text where it has a number."""
    return UpstreamError(
        "protocol", tr("an event of the engine's stream has another shape ({error})", error=error)
    )
