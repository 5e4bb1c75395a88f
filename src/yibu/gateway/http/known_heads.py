"""A cache of parsed and checked request heads: clients send the same one again and again.

A head that differs from a known one in its Content-Length alone is read the same. What is kept was
parsed by httptools and passed every check; nothing here parses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ([0-9]{1,10})\r\n")
_LONGEST = 4096
"""Bytes of a head that may be cached."""
_MOST = 512


@dataclass(frozen=True, slots=True)
class Head:
    """A parsed head."""

    scope: dict[str, Any]
    """The ASGI scope, without what differs by connection and request."""
    headers: list[tuple[bytes, bytes]]
    at: int
    """The position of Content-Length in ``headers``."""


class KnownHeads:
    """The cached heads of one server, the oldest dropped first."""

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}

    def find(self, data: bytes) -> tuple[Head, bytes, bytes] | None:
        """The head at the beginning of ``data``, its Content-Length and the body; None where the
        head is not known, or what follows is not exactly the body."""
        end = data.find(b"\r\n\r\n", 0, _LONGEST)
        length = _LENGTH.search(data, 0, end + 2) if end >= 0 else None
        if length is None:
            return None
        head = self._heads.get(_key(data, length, end))
        if head is None or len(data) - end - 4 != int(length[1]):
            return None
        return head, length[1], data[end + 4 :]

    def keep(
        self, data: bytes, start: int, scope: dict[str, Any], headers: list[tuple[bytes, bytes]]
    ) -> None:
        """Cache the head that begins at ``start`` in ``data``, parsed to ``scope`` and ``headers``, if
        it has a length."""
        data = data[start : start + _LONGEST]
        end = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data, 0, end + 2) if end >= 0 else None
        if length is None or (b"content-length", length[1]) not in headers:
            return
        if len(self._heads) >= _MOST:
            del self._heads[next(iter(self._heads))]
        at = headers.index((b"content-length", length[1]))
        self._heads[_key(data, length, end)] = Head(scope, headers, at)


def _key(data: bytes, length: re.Match[bytes], end: int) -> bytes:
    # A null byte, which no head may have, stands for the Content-Length.
    return data[: length.start()] + b"\0" + data[length.end() : end]
