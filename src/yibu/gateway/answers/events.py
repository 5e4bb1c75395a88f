"""Streams of named events: those of the Responses and the Messages API, and of transcriptions.

Events come as the engine makes them, but for the model's name and what the engine left out. The usage
is read in passing.
"""

from __future__ import annotations

import time
from typing import Any

import orjson

from yibu.accounts.usage import Tokens
from yibu.engines.answers import Answers, Kind, objects
from yibu.errors import RequestError
from yibu.gateway.answers.choices import name_stop
from yibu.gateway.answers.engine_errors import BROKEN_OFF, Translator, no_tool_call
from yibu.gateway.answers.ids import new_id, with_prefix
from yibu.gateway.answers.normalize import calls_tool
from yibu.gateway.answers.responses import EventNumbers, fill_response
from yibu.gateway.answers.sse import EventReader, make_event, parse_event
from yibu.gateway.answers.surrogates import SurrogateJoiner
from yibu.gateway.answers.usage import audio_seconds, tokens_of
from yibu.gateway.requests.body import JsonRequest
from yibu.messages import tr
from yibu.upstream.connection import UpstreamError

_HOLDERS = {b"message_start": "message", **{
    b"response." + name: "response"
    for name in (b"created", b"queued", b"in_progress", b"completed", b"incomplete", b"failed")
}}  # fmt: skip
"""Events that hold a whole answer, with its model and its usage so far, and where."""

_LAST = {
    "responses": frozenset({b"response.completed", b"response.incomplete", b"response.failed"}),
    "messages": frozenset({b"message_stop"}),
    "transcription": frozenset({b"transcript.text.done"}),
}
"""Events with which a stream is whole."""


class EventNormalizer:
    """One stream. ``feed`` its bytes as they come, ``finish`` it when the engine is done."""

    def __init__(
        self,
        kind: Kind,
        request: JsonRequest,
        rules: Answers,
        translate: Translator,
        *,
        conforming: bool,
        max_context: int | None = None,
    ) -> None:
        self._kind: Kind = kind
        self._request = request
        self._rules = rules
        self._translate = translate
        self._conforming = conforming
        self._max_context = max_context
        self._reader = EventReader()
        self._surrogates = SurrogateJoiner()
        self._numbers = EventNumbers()
        self._named = b'"model":' + orjson.dumps(request.model)
        # One of each for all events, where the engine gives none.
        self._id = new_id(kind)
        self._created = int(time.time())
        self._usage: dict[str, Any] = {}
        self._message: dict[str, Any] = {"content": []}
        """What of a message decides whether it calls a tool."""
        self.ended = False
        """The client has been told that the answer is whole."""
        self.error: RequestError | None = None
        """What the engine failed with in the middle; nothing behind it counts."""
        self.number = 0
        """Of the next event, in APIs that number theirs."""

    @property
    def tokens(self) -> Tokens | None:
        """Prompt and completion tokens, as the events so far have counted them."""
        return tokens_of(self._usage)

    @property
    def audio_seconds(self) -> float:
        return audio_seconds(self._usage)

    def feed(self, data: bytes) -> bytes:
        """The events that end in ``data``, normalized.

        Raises:
            UpstreamError: it is not a stream of JSON objects.
        """
        return b"".join([self._event(block) for block in self._reader.blocks(data)])

    def finish(self) -> bytes:
        """The last event, where no blank line ended it.

        Raises:
            UpstreamError: the answer was cut.
        """
        rest = self._reader.rest()
        last = self._event(rest) if rest.endswith((b"}", b"[DONE]")) else b""
        if self.ended or self.error is not None or self._kind not in _LAST:
            return last
        raise UpstreamError("closed", BROKEN_OFF)

    def _event(self, block: bytes) -> bytes:
        if self.error is not None:
            return b""
        name, data = parse_event(block)
        if not data or data.isspace():  # empty data is no event either
            return b""
        if data != b"[DONE]":
            if self.ended:
                return b""
            data = self._surrogates.join(data)
        else:
            self.ended = self.ended or self._kind == "transcription"
            return block + b"\n\n"
        if name == b"error" or data.startswith(b'{"error"'):
            self.error = self._translate(500, data)
            return b""
        if name:
            return self._relayed(name, data, name)
        event = _parse(data)
        return self._relayed(str(event.get("type")).encode(), data, name)

    def _relayed(self, type_: bytes, data: bytes, name: bytes) -> bytes:
        last = type_ in _LAST.get(self._kind, ())
        if not (
            last
            or type_ in _HOLDERS
            or type_ in {b"message_delta", b"content_block_start"}
            or (b'"model"' in data and self._named not in data)
            or self._lacks_number(data)
        ):
            self.number += 1
            return make_event(data, name or self._default_name(type_))
        event = _parse(data)
        changed = self._normalized(event, _HOLDERS.get(type_))
        if last and not self._is_complete(event):
            self.error = no_tool_call(self._request.model)
            return b""
        self.ended = self.ended or last
        if not changed:
            return make_event(data, name or self._default_name(type_))
        if type_ in _HOLDERS:
            name = str(event["type"]).encode()
        return make_event(orjson.dumps(event), name or self._default_name(type_))

    def _default_name(self, type_: bytes) -> bytes:
        """Clients of the other APIs tell events by their names."""
        return b"" if self._kind == "transcription" else type_

    def _lacks_number(self, data: bytes) -> bool:
        return (
            self._kind == "responses" and not self._conforming and b'"sequence_number"' not in data
        )

    def _normalized(self, event: dict[str, Any], holder: str | None) -> bool:
        """Complete an event in place; whether it was changed."""
        self._count(event.get("usage"))
        changed = False
        if self._kind == "messages":
            self._note_message(event)
            if isinstance(delta := event.get("delta"), dict) and not self._conforming:
                before = delta.get("stop_reason")
                name_stop(delta)
                changed = delta.get("stop_reason") != before
        answer = event.get(holder) if holder is not None else event
        if isinstance(answer, dict):
            if "model" in answer or holder is not None:
                changed |= answer.get("model") != self._request.model
                answer["model"] = self._request.model
            if holder is not None:
                changed |= self._complete_answer(event, answer)
        if self._kind == "responses":
            changed |= "sequence_number" not in event
            self._numbers.fill(event)
            self.number = event["sequence_number"] + 1
        return changed

    def _complete_answer(self, event: dict[str, Any], answer: dict[str, Any]) -> bool:
        self._count(answer.get("usage"))
        if self._conforming:
            return False
        answer["id"] = with_prefix(self._kind, answer.get("id") or self._id)
        if self._kind == "responses":
            answer.setdefault("created_at", self._created)
            self._rules.complete(
                self._kind, answer, self._request.body, max_context=self._max_context
            )
            fill_response(answer, self._request.body)
            if event["type"] == "response.completed" and answer["status"] == "incomplete":
                event["type"] = "response.incomplete"
        return True

    def _note_message(self, event: dict[str, Any]) -> None:
        if isinstance(block := event.get("content_block"), dict):
            self._message["content"] += objects([block])
        if isinstance(delta := event.get("delta"), dict):
            self._message["stop_reason"] = delta.get("stop_reason")

    def _is_complete(self, event: dict[str, Any]) -> bool:
        if not self._request.needs_tool_call or self._conforming:
            return True
        answer = event.get("response") if self._kind == "responses" else self._message
        return not isinstance(answer, dict) or calls_tool(answer, self._kind)

    def _count(self, usage: object) -> None:
        """Later events give what they know: Messages counts the prompt first and the rest last."""
        if isinstance(usage, dict):
            self._usage |= {name: count for name, count in usage.items() if count is not None}


def _parse(data: bytes) -> dict[str, Any]:
    try:
        event = orjson.loads(data)
    except orjson.JSONDecodeError:
        event = None
    if not isinstance(event, dict):
        raise UpstreamError("protocol", tr("an event of the engine's stream is not a JSON object"))
    return event
