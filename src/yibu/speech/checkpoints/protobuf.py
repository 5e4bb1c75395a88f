"""The fields of a protocol buffer's message, read without its schema.

Every length is checked against the bytes that are there.
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_LONGEST_VARINT = 10


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Each field's number, and its value as a whole number or as the bytes of it.

    Raises:
        ValueError: it is no such message.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == _BYTES:
            length, at = _varint(message, at)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            length = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"a field of wire type {kind} at byte {at}")
        if length > len(message) - at:
            raise ValueError(f"field {number} ends {length - (len(message) - at)} bytes too late")
        yield number, message[at : at + length]
        at += length


def varints(packed: memoryview) -> list[int]:
    """Signed numbers that are packed into one field."""
    values, at = [], 0
    while at < len(packed):
        value, at = _varint(packed, at)
        values.append(signed(value))
    return values


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The whole number that begins at byte ``at``, and where the next thing begins."""
    value = 0
    for n, byte in enumerate(message[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * n)
        if byte < 0x80:
            return value & (2**64 - 1), at + n + 1
    raise ValueError(f"a number without an end at byte {at}")


def signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
