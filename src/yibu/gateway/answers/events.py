"""Streams of named events: those of the Responses and the Messages API, and of transcriptions.

Events come as the engine makes them, but for the model's name and what the engine left out. The usage
is read in passing.
"""

from __future__ import annotations

import time
from typing import Any

import orjson

from yibu.accounts.usage import Tokens
from yibu.engines.answers import Answers, Fields, Kind
from yibu.errors import RequestError
from yibu.gateway.answers.anthropic import StreamedMessage, fill_message
from yibu.gateway.answers.conform import conform
from yibu.gateway.answers.engine_errors import BROKEN_OFF, Translator, no_tool_call, says_failure
from yibu.gateway.answers.ids import new_id, with_prefix
from yibu.gateway.answers.normalize import calls_tool
from yibu.gateway.answers.responses import EventNumbers, fill_item, fill_response
from yibu.gateway.answers.sse import EventReader, make_event, other_shape, parse_event
from yibu.gateway.answers.surrogates import SurrogateJoiner
from yibu.gateway.answers.usage import audio_seconds, tokens_of
from yibu.gateway.envelope import EngineAnswerError
from yibu.gateway.requests.body import JsonRequest
from yibu.gateway.schemas.answers import EVENTS
from yibu.messages import tr
from yibu.upstream.connection import UpstreamError

_HOLDERS = {b"message_start": "message", **{
    b"response." + name: "response"
    for name in (b"created", b"queued", b"in_progress", b"completed", b"incomplete", b"failed")
}}  # fmt: skip
"""Events that hold a whole answer, with its model and usage so far, and the field that holds it."""

_ONCE = frozenset({b"message_start", b"response.created", b"response.in_progress"})

_LAST = {
    "responses": frozenset({b"response.completed", b"response.incomplete", b"response.failed"}),
    "messages": frozenset({b"message_stop"}),
    "transcription": frozenset({b"transcript.text.done"}),
}
"""Events that end a complete stream."""


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
        # One of each for all events, where the engine gives none.
        self._id = new_id(kind)
        self._created = int(time.time())
        self._usage: dict[str, Any] = {}
        self._told: set[bytes] = set()
        """Once-only events that have been seen."""
        self._message = StreamedMessage(request.model)
        self.ended = False
        """Whether the client has been sent the end of the answer."""
        self.error: RequestError | None = None
        """The engine's error in mid-stream; events after it are ignored."""
        self.number = 0
        """The next event's number, in APIs that number them."""

    @property
    def tokens(self) -> Tokens | None:
        """Prompt and completion tokens, as counted by the events so far."""
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
        event = _parse(data)
        type_ = name or str(event.get("type", "")).encode()
        if type_ == b"error" or event.get("type") == "error" or (not type_ and says_failure(event)):
            self.error = self._translate(502, data)
            return b""
        try:
            return self._relayed(type_, event, data)
        except EngineAnswerError as error:
            self.error = error
            return b""
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise other_shape(error) from error

    def _relayed(self, type_: bytes, event: Fields, data: bytes) -> bytes:
        if type_ in _ONCE and not self._conforming:
            if type_ in self._told:  # llama.cpp begins again behind a part of a character
                return b""
            self._told.add(type_)
        opening = b""
        if self._message.lacks_start(type_) and not self._conforming:
            start: Fields = {"type": "message_start", "message": {}}
            opening = self._relayed(b"message_start", start, b"")
            self._usage.clear()  # nobody has counted the prompt
        last = type_ in _LAST.get(self._kind, ())
        before = orjson.dumps(event)
        self._normalize(type_, event)
        if last and not self._is_complete(event):
            self.error = no_tool_call(self._request.model)
            return b""
        self.ended = self.ended or last
        # Clients of the other APIs tell events by their names.
        name = b"" if self._kind == "transcription" else type_
        if type_ in _HOLDERS:
            name = str(event.get("type", name.decode())).encode()
        after = orjson.dumps(event)
        return opening + make_event(data if after == before else after, name)

    def _normalize(self, type_: bytes, event: Fields) -> None:
        """Complete an event in place."""
        holder = _HOLDERS.get(type_)
        if holder is not None:
            self._complete_answer(event, event[holder])
        elif "model" in event:
            event["model"] = self._request.model
        self._count(event.get("usage"))  # before it is filled with zeros
        if self._kind == "messages" and not self._conforming:
            self._message.fill(type_, event)
        if self._kind == "responses":
            if isinstance(item := event.get("item"), dict) and not self._conforming:
                fill_item(item, whole=type_ != b"response.output_item.added")
            self._numbers.fill(event)
            self.number = event["sequence_number"] + 1
        if not self._conforming and (shape := EVENTS.get(type_)) is not None:
            conform(event, shape)

    def _complete_answer(self, event: Fields, answer: Fields) -> None:
        answer["model"] = self._request.model
        self._count(answer.get("usage"))
        if self._conforming:
            return
        answer["id"] = with_prefix(self._kind, answer.get("id") or self._id)
        if self._kind == "messages":
            answer["content"] = answer.get("content") or []
            fill_message(answer, self._request.model, whole=False)
            return
        answer.setdefault("created_at", self._created)
        self._rules.complete(self._kind, answer, self._request.body, max_context=self._max_context)
        fill_response(answer, self._request.body)
        if event.get("type") == "response.completed" and answer["status"] == "incomplete":
            event["type"] = "response.incomplete"

    def _is_complete(self, event: Fields) -> bool:
        if not self._request.needs_tool_call or self._conforming:
            return True
        answer = event["response"] if self._kind == "responses" else self._message.fields
        return calls_tool(answer, self._kind)

    def _count(self, usage: object) -> None:
        """Merge an event's counts: Messages counts the prompt first and the rest last."""
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
