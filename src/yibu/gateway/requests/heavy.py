"""Bodies that take long to parse and check: done in the offload process.

Of such a request the gateway has an outline, which is what reading an answer needs of it, and
forwards the JSON that the other process has written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from yibu.gateway.requests.body import JsonRequest, parse
from yibu.gateway.requests.offload import OffloadProcess
from yibu.gateway.schemas.base import Strict

HEAVY_BYTES = 2 * 2**20
HEAVY_COMMAS = 2000
"""A body with more than either is heavy: it would hold the event loop up for over 10 ms."""

_SMALL_BYTES = 64 * 1024
"""A field's JSON, up to which the gateway writes it itself."""
_OUTLINE_VALUES = 5000
"""Values in an outline; a request that is heavy by its bytes alone has them all."""


class LongList(list[Any]):
    """The first and the last item of a list that is left out; ``len`` is the whole list's."""

    def __init__(self, items: Iterable[Any] = (), length: int = 0) -> None:
        super().__init__(items)
        self.length = length

    def __len__(self) -> int:
        return self.length


def is_heavy(parts: Sequence[bytes]) -> bool:
    """Whether parsing and checking a body would block the event loop."""
    size = sum(map(len, parts))
    if size > HEAVY_BYTES:
        return True
    return size > HEAVY_COMMAS and sum(part.count(b",") for part in parts) > HEAVY_COMMAS


async def parse_body(
    parts: Sequence[bytes], schema: type[Strict], offload: OffloadProcess
) -> JsonRequest:
    """``parse`` for a body in pieces, in the offload process where it takes long."""
    if is_heavy(parts):
        return await offload.run(parse_heavy, parts, schema)
    return parse(b"".join(parts), schema)


def parse_heavy(parts: Sequence[bytes], schema: type[Strict]) -> JsonRequest:
    """``parse``, with the large fields written, and outlined in the body."""
    return outlined(parse(b"".join(parts), schema))


def outlined(request: JsonRequest) -> JsonRequest:
    """The request with the large fields of its body written, and outlined in the body."""
    written = {name: orjson.dumps(value) for name, value in request.body.items()}
    request.written = {
        name: data
        for name, data in written.items()
        if len(data) > _SMALL_BYTES and name not in {"model", "stream", "stream_options"}
    }
    request.body = _Outline().of(request.body)
    return request


class _Outline:
    """Copies JSON values until there are too many."""

    def __init__(self) -> None:
        self._left = _OUTLINE_VALUES

    def of(self, value: Any) -> Any:
        """The value, with long lists as ``LongList`` and without what exceeds the limit."""
        if isinstance(value, dict):
            self._left -= len(value)
            return {key: self.of(item) for key, item in value.items() if self._left >= 0}
        if not isinstance(value, list):
            return value
        if self._left < 2 * len(value):
            ends = [value[0], value[-1]] if self._left > 0 else []
            self._left -= 2
            return LongList(map(self.of, ends), len(value))
        self._left -= len(value)
        return [self.of(item) for item in value]
