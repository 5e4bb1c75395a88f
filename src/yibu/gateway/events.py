"""Streams of named events, those of the Responses and the Messages API, on their way through.

They come as the engine makes them, but for the model's name, which is put in where an event has it,
the numbers that llama.cpp does not give, and an error of the engine's, which is told in the words of
the API. The usage is read in passing.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from yibu.gateway.envelope import Dialect, error_event, translate
from yibu.gateway.mend import Tokens, tokens_of
from yibu.gateway.requests import JsonRequest
from yibu.gateway.responses import EventNumbers, fill_response
from yibu.gateway.sse import EventReader, next_number

_NAME = re.compile(rb"^event:[ ]?([\w.]+)", re.MULTILINE)
_DATA = re.compile(rb"^data:[ ]?", re.MULTILINE)

_HOLDERS = {b"message_start": "message", **{
    b"response." + name: "response"
    for name in (b"created", b"queued", b"in_progress", b"completed", b"incomplete", b"failed")
}}  # fmt: skip
"""Events that hold a whole answer, with its model and its usage so far, and where."""


class EventMender:
    """Mends one stream. ``feed`` its bytes as they come; ``finish`` it when the engine is done."""

    def __init__(self, request: JsonRequest, dialect: Dialect) -> None:
        self._request = request
        self._dialect: Dialect = dialect
        self._reader = EventReader(request)
        self._numbers = EventNumbers()
        self._number = 0
        self._usage: dict[str, Any] = {}
        self.failed = False
        """The engine ended the stream with an error of its own."""

    @property
    def tokens(self) -> Tokens | None:
        """Prompt and completion tokens, as the events so far have counted them."""
        return tokens_of(self._usage)

    def feed(self, data: bytes) -> bytes:
        """Return the whole events in ``data`` and what was left before it, mended."""
        return b"".join([self._event(event) for event in self._reader.events(data)])

    def finish(self) -> bytes:
        """Return what is still owed: an event that no blank line ended."""
        rest = self._reader.last()
        return self._event(rest) if rest else b""

    def _event(self, event: bytes) -> bytes:
        if self.failed:
            return b""
        named, at = _NAME.search(event), _DATA.search(event)
        name = named[1] if named else b""
        data = event[at.end() :] if at else b""
        if name == b"error" or data.startswith(b'{"error"'):
            self.failed = True
            error = translate(500, data, model=self._request.model)
            return error_event(error, self._dialect, self._number)
        if name == b"message_delta":
            self._count(orjson.loads(data).get("usage"))
        elif name in _HOLDERS or self._lacks_number(name, data):
            return b"event: " + name + b"\ndata: " + self._mended(name, data) + b"\n\n"
        self._number = next_number(event) or self._number
        return event + b"\n\n"

    def _lacks_number(self, name: bytes, data: bytes) -> bool:
        return name.startswith(b"response.") and b'"sequence_number"' not in data

    def _mended(self, name: bytes, data: bytes) -> bytes:
        event = orjson.loads(data)
        answer = event.get(_HOLDERS.get(name, ""))
        if isinstance(answer, dict):
            answer["model"] = self._request.model
            self._count(answer.get("usage"))
        if self._dialect == "responses":
            if isinstance(answer, dict):
                fill_response(answer, self._request.body)
            self._numbers.fill(event)
            self._number = event["sequence_number"] + 1
        return orjson.dumps(event)

    def _count(self, usage: object) -> None:
        """Later events give what they know: Messages counts the prompt first and the rest last."""
        if isinstance(usage, dict):
            self._usage |= {name: count for name, count in usage.items() if count is not None}
