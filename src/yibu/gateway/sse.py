"""Streams of server-sent events on their way through: what must change is changed in the bytes.

A stream is JSON only inside its events, and most events need nothing, or one field put in. So
an event is searched and patched as bytes; it is parsed only where that cannot do.
"""

from __future__ import annotations

import re
import time
from typing import Any

import orjson

from yibu.errors import EngineGoneError, RequestError
from yibu.gateway.envelope import Dialect, error_event, translate
from yibu.gateway.mend import Kind, Tokens, new_id, no_tool_call, text_logprobs
from yibu.gateway.requests import JsonRequest

DONE = b"data: [DONE]\n\n"

_ENDS = 2048
"""Where the usage is looked for in an answer that is not parsed."""

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""A longer event would be an engine gone wild."""

_USAGE = re.compile(rb'"usage":\s*\{')
_PROMPT = re.compile(rb'"(?:prompt|input)_tokens":\s*(\d+)')
_COMPLETION = re.compile(rb'"(?:completion|output)_tokens":\s*(\d+)')
_NUMBER = re.compile(rb'"sequence_number":\s*(\d+)')
_MODEL = re.compile(rb'("model":\s*)"(?:[^"\\]|\\.)*"')
_LOGPROBS = re.compile(rb'("logprobs":\s*\{)')
_CHUNK_FIELDS = (
    b'"id"',
    b'"object"',
    b'"created"',
    b'"model"',
    b'"choices"',
    b'"finish_reason"',
    b'"index"',
)


def find_usage(answer: bytes) -> Tokens | None:
    """Prompt and completion tokens from the ends of an answer, when they say so: engines put the
    usage first or last, and the middle may be long. Of several the last one counts."""
    if len(answer) > 2 * _ENDS:
        answer = answer[:_ENDS] + answer[-_ENDS:]
    usage = _USAGE.search(answer)
    if usage is None:
        return None
    prompt = _PROMPT.findall(answer, usage.end())
    completion = _COMPLETION.findall(answer, usage.end())
    return (int(prompt[-1]), int(completion[-1]) if completion else 0) if prompt else None


def broken_off(error: RequestError, last: bytes, dialect: Dialect) -> bytes:
    """The error event that ends a stream, on a line of its own whatever stands before it."""
    separator = b"" if not last or last.endswith(b"\n\n") else b"\n\n"
    return separator + error_event(error, dialect, next_number(last))


def next_number(events: bytes) -> int:
    """The number of the event after these, in streams that count theirs; else 0."""
    numbers = _NUMBER.findall(events)
    return int(numbers[-1]) + 1 if numbers else 0


class EventReader:
    """Cuts a stream into its events. ``feed`` it bytes as they come."""

    def __init__(self, request: JsonRequest) -> None:
        self._request = request
        self._rest = b""

    def events(self, data: bytes) -> list[bytes]:
        """The whole events in ``data`` and what was left before it."""
        data = self._rest + data
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        events = data.split(b"\n\n")
        self._rest = events.pop()
        if len(self._rest) > MAX_EVENT_BYTES:
            message = f"The engine of model {self._request.model!r} sent an endless event"
            raise EngineGoneError(message, code="engine_protocol_error")
        return [event for event in events if event]

    def last(self) -> bytes:
        """What stands behind the last whole event, for the end of the stream."""
        rest, self._rest = self._rest, b""
        return rest if rest.strip() else b""


class StreamMender:
    """Mends one stream. ``feed`` its bytes as they come; ``finish`` it when the engine is done."""

    def __init__(self, kind: Kind, request: JsonRequest, *, conforming: bool) -> None:
        self._kind: Kind = kind
        self._request = request
        self._conforming = conforming
        self._reader = EventReader(request)
        self._done = False
        self._tool_called = False
        self._id = ""
        self._offsets: dict[int, int] = {}
        self._usage: dict[str, int] | None = None
        self._usages = 0
        self._prompt = 0
        """Prompt tokens, as often as they were counted."""
        self._choices: int = request.body.get("n") or 1
        # The published schema of text completions has no null there, that of chat chunks has.
        self._wants_null_usage = request.include_usage and kind == "chat"
        self._shaped = False
        self._named = b'"model":' + orjson.dumps(request.model)
        self._model = rb"\1" + orjson.dumps(request.model).replace(b"\\", rb"\\")
        self.tokens: Tokens | None = None
        """Prompt and completion tokens, when the engine gave its usage to a client that did not
        ask for it."""
        self.failed = False
        """The engine ended the stream with an error of its own."""

    def feed(self, data: bytes) -> bytes:
        """Return the whole events in ``data`` and what was left before it, mended."""
        return b"".join([self._event(event) for event in self._reader.events(data)])

    def finish(self) -> bytes:
        """Return what is still owed: the last event, and ``[DONE]`` if the engine forgot it."""
        rest = self._reader.last()
        last = self._event(rest) if rest else b""
        if self._done or self.failed or self._kind == "other":
            return last
        return last + self._end()

    def _event(self, event: bytes) -> bytes:
        if self._done or self.failed:
            return b""
        if not event.startswith(b"data:"):
            if event.startswith((b"error:", b"event: error")):
                return self._error(event)
            return event + b"\n\n"
        data = event[5:].lstrip()
        if data == b"[DONE]":
            return self._end()
        if data.startswith((b'{"error"', b'{ "error"')):
            return self._error(event)
        if data == b"null":  # llama.cpp's first event of a text completion
            return b""
        if self._kind == "other" or self._conforming:
            return _MODEL.sub(self._model, event, count=1) + b"\n\n"
        return self._chunk(data)

    def _chunk(self, data: bytes) -> bytes:
        if b'"tool_calls"' in data:
            self._tool_called = True
        if self._kind == "completions" and (b'"usage"' in data or b'"content"' in data):
            return self._text_chunk(orjson.loads(data))
        if not self._shaped:
            # An engine whose first chunk has every field gives them to all of its chunks.
            self._shaped = all(field in data for field in _CHUNK_FIELDS)
            if not self._shaped and b'"usage"' not in data:
                return self._incomplete_chunk(orjson.loads(data))
        if self._named not in data:
            data = _MODEL.sub(self._model, data, count=1)
        if b'"logprobs"' in data and b'"refusal"' not in data:
            data = _LOGPROBS.sub(rb'\1"refusal":null,', data)
        if b'"usage"' in data:
            if self._choices > 1 or not self._request.include_usage:
                return self._usage_chunk(orjson.loads(data), data)
        elif self._wants_null_usage:
            return b'data: {"usage":null,' + data[1:] + b"\n\n"
        return b"data: " + data + b"\n\n"

    def _incomplete_chunk(self, chunk: Any) -> bytes:
        """A chunk that lacks a field of the specification: filled in."""
        if not isinstance(chunk, dict):
            return b""
        if "id" not in chunk:
            self._id = self._id or new_id(self._kind)
            chunk["id"] = self._id
        chunk.setdefault(
            "object", "chat.completion.chunk" if self._kind == "chat" else "text_completion"
        )
        chunk.setdefault("created", int(time.time()))
        chunk["model"] = self._request.model
        for index, choice in enumerate(chunk.setdefault("choices", [])):
            choice.setdefault("index", index)
            choice.setdefault("finish_reason", None)
            if self._kind == "chat":
                choice.setdefault("delta", {})
            else:
                choice.setdefault("text", "")
                choice.setdefault("logprobs", None)
        if self._wants_null_usage:
            chunk.setdefault("usage", None)
        return _dump(chunk)

    def _usage_chunk(self, chunk: dict[str, Any], data: bytes) -> bytes:
        """A chunk with a usage that was not asked for, or that may be one choice's only."""
        if self._choices > 1 and chunk.get("usage") and not chunk.get("choices"):
            self._count(chunk)
            return b""
        if self._request.include_usage:
            return b"data: " + data + b"\n\n"
        return self._without_usage(chunk)

    def _without_usage(self, chunk: dict[str, Any]) -> bytes:
        """Nobody asked for the usage: a chunk that brings nothing else is left out."""
        usage = chunk.pop("usage", None)
        if usage:
            self.tokens = (usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))
        return _dump(chunk) if chunk.get("choices") else b""

    def _text_chunk(self, chunk: dict[str, Any]) -> bytes:
        """llama.cpp's text completions: chat's logprobs, and the usage beside each last choice."""
        chunk["model"] = self._request.model
        if chunk.get("usage"):
            self._count(chunk)
            if not chunk.get("choices"):
                return b""
        chunk.pop("usage", None)
        for choice in chunk.get("choices", ()):
            index = choice.setdefault("index", 0)
            offset = self._offsets.get(index, 0)
            if choice.get("logprobs"):
                choice["logprobs"] = text_logprobs(choice["logprobs"], offset)
            self._offsets[index] = offset + len(choice.get("text", ""))
        return self._incomplete_chunk(chunk)

    def _count(self, chunk: dict[str, Any]) -> None:
        """Add one usage to the request's, which is sent at the end.

        llama.cpp gives one for each choice, and each counts the prompt again, which was read once;
        of engines that give one in all, that is the request's.
        """
        usage = chunk["usage"]
        self._id = chunk.get("id") or self._id
        self._usages += 1
        self._prompt += usage.get("prompt_tokens", 0)
        completion = (self.tokens or (0, 0))[1] + usage.get("completion_tokens", 0)
        prompt = self._prompt // max(1, self._usages // _prompts(self._request))
        self.tokens = (prompt, completion)
        self._usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }

    def _end(self) -> bytes:
        if self._request.needs_tool_call and not self._tool_called and not self._conforming:
            self.failed = True
            return error_event(no_tool_call(self._request.model))
        self._done = True
        if self._usage is not None and self._request.include_usage:
            return self._incomplete_chunk({"choices": [], "usage": self._usage}) + DONE
        return DONE

    def _error(self, event: bytes) -> bytes:
        """The engine's own error in the middle of a stream."""
        self.failed = True
        start = event.find(b"{")
        error = translate(500, event[start:] if start >= 0 else event, model=self._request.model)
        return error_event(error)


def _prompts(request: JsonRequest) -> int:
    """How many prompts the request has: a list of texts, or of lists of tokens, has several."""
    prompt = request.body.get("prompt")
    several = isinstance(prompt, list) and prompt and not isinstance(prompt[0], int)
    return len(prompt) if several else 1  # type: ignore[arg-type]


def _dump(chunk: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"
