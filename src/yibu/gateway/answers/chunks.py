"""Streams of Chat Completions and Completions, normalized chunk by chunk.

Most chunks need nothing, or one field put in, so that they are searched and patched as bytes. Those
that may need more are parsed: the first ones of an engine that leaves out fields, tool calls, the
last chunk of a choice, and usages.
"""

from __future__ import annotations

import re
import time
from typing import Any

import orjson

from yibu.accounts.usage import Tokens
from yibu.engines.answers import Answers, objects
from yibu.errors import RequestError
from yibu.gateway.answers.engine_errors import BROKEN_OFF, Translator, no_tool_call
from yibu.gateway.answers.ids import new_id, with_prefix
from yibu.gateway.answers.normalize import fill_text_choice
from yibu.gateway.answers.sse import DONE, EventReader, make_event, parse_event
from yibu.gateway.answers.template import ChunkTemplate
from yibu.gateway.answers.toolcalls import ToolCallDeltas
from yibu.gateway.answers.usage import prompt_count, tokens_of
from yibu.gateway.requests.body import JsonRequest
from yibu.messages import tr
from yibu.upstream.connection import UpstreamError

_MODEL = re.compile(rb'("model"\s*:\s*)"(?:[^"\\]|\\.)*"')
_LOGPROBS = re.compile(rb'("logprobs"\s*:\s*\{)')
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"')
_FIELDS = (b'"id"', b'"object"', b'"created"', b'"model"', b'"choices"', b'"finish_reason"', b'"index"')  # fmt: skip
_OBJECTS = {"chat": "chat.completion.chunk", "completions": "text_completion"}


class ChunkNormalizer:
    """One stream. ``feed`` its bytes as they come, ``finish`` it when the engine is done."""

    def __init__(
        self,
        kind: str,
        request: JsonRequest,
        rules: Answers,
        translate: Translator,
        *,
        conforming: bool,
    ) -> None:
        self._kind = kind
        self._request = request
        self._rules = rules
        self._translate = translate
        self._conforming = conforming
        self._reader = EventReader()
        self._template = ChunkTemplate()
        self._choices = (request.body.get("n") or 1) * prompt_count(request.body)
        self._finished: set[int] = set()
        self._calls: dict[int, ToolCallDeltas] = {}
        self._offsets: dict[int, int] = {}
        self._usage = UsageCount(request, rules)
        self._shaped = False
        """The engine's chunks have every field and the right ids: only special ones are parsed."""
        self._id = ""
        # The published schema of text completions has no null there, that of chat chunks has.
        self._wants_null_usage = request.include_usage and kind == "chat"
        self._counts_text = kind == "completions" and request.body.get("logprobs") is not None
        self._named = b'"model":' + orjson.dumps(request.model)
        self._model = rb"\1" + orjson.dumps(request.model).replace(b"\\", rb"\\")
        self.ended = False
        """The client has been told that the answer is whole."""
        self.error: RequestError | None = None
        """What the engine failed with in the middle; nothing behind it counts."""
        self.number = 0
        """Of the next event, in APIs that number theirs."""

    audio_seconds = 0.0

    @property
    def tokens(self) -> Tokens | None:
        return self._usage.tokens

    def feed(self, data: bytes) -> bytes:
        """The events that end in ``data``, normalized.

        Raises:
            UpstreamError: it is not the stream of an OpenAI-compatible server.
        """
        if self._reader.is_between_events and not self.ended and self.error is None:
            plain = self._template.apply(data)
            if plain is not None:
                return plain
        return b"".join([self._event(block) for block in self._reader.blocks(data)])

    def finish(self) -> bytes:
        """What is still owed at the end: ``[DONE]``, where the engine left only that out.

        Raises:
            UpstreamError: the answer was cut.
        """
        last = b""
        rest = self._reader.rest()
        if rest.endswith((b"}", b"[DONE]")):  # whole, but for the blank line
            last = self._event(rest)
        if self.ended or self.error is not None:
            return last
        if len(self._finished) >= self._choices:
            return last + self._end()
        raise UpstreamError("closed", BROKEN_OFF)

    def _event(self, block: bytes) -> bytes:
        if self.ended or self.error is not None:
            return b""
        name, data = parse_event(block)
        if data is None:
            # llama.cpp's older form of an error; else a comment.
            if block.startswith(b"error:"):
                self._fail(block[6:])
            return b""
        data = data.strip()
        if data == b"[DONE]":
            return self._end()
        if data == b"null":  # llama.cpp's first event of a text completion
            return b""
        if name == b"error":
            return self._fail(data)
        if not (data.startswith(b"{") and data.endswith(b"}")):
            raise UpstreamError(
                "protocol", tr("an event of the engine's stream is not a JSON object")
            )
        if self._shaped and not self._is_special(data):
            sent = self._patched(data)
            self._template.learn(b"data: " + data + b"\n\n", sent)
            return sent
        return self._parsed(data)

    def _is_special(self, data: bytes) -> bool:
        return (
            b'"usage"' in data
            or b"_call" in data
            or b'"error"' in data
            or data.count(b'"model"') != 1
            or _FINISH.search(data) is not None
        )

    def _patched(self, data: bytes) -> bytes:
        if self._named not in data:
            data = _MODEL.sub(self._model, data, count=1)
        if self._conforming:
            return b"data: " + data + b"\n\n"
        if b'"logprobs"' in data and b'"refusal"' not in data and self._kind == "chat":
            data = _LOGPROBS.sub(rb'\1"refusal":null,', data)
        if self._wants_null_usage:
            return b'data: {"usage":null,' + data[1:] + b"\n\n"
        return b"data: " + data + b"\n\n"

    def _parsed(self, data: bytes) -> bytes:
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise UpstreamError(
                "protocol", tr("an event of the engine's stream is not JSON")
            ) from None
        if chunk.get("error") is not None:
            return self._fail(data)
        choices = objects(chunk.get("choices"))
        self._finished |= {
            choice.get("index", at)
            for at, choice in enumerate(choices)
            if choice.get("finish_reason")
        }
        if self._conforming:
            taken = self._usage.add(dict(chunk))
            self._shaped = True
            if taken and not choices and not self._request.include_usage:
                return b""  # the gateway asked for it, not the client
            if chunk.get("model", self._request.model) == self._request.model:
                return b"data: " + data + b"\n\n"
            chunk["model"] = self._request.model
            return make_event(orjson.dumps(chunk))
        given = chunk.get("id")
        self._id = self._id or with_prefix(self._kind, given)
        # A first chunk with every field is followed by others with every field.
        self._shaped = (
            not self._counts_text and given == self._id and all(field in data for field in _FIELDS)
        )
        return self._completed(chunk, choices)

    def _completed(self, chunk: dict[str, Any], choices: list[dict[str, Any]]) -> bytes:
        """A chunk with every field of the specification."""
        chunk["id"] = self._id
        chunk.setdefault("object", _OBJECTS[self._kind])
        chunk.setdefault("created", int(time.time()))
        chunk["model"] = self._request.model
        chunk["choices"] = choices
        if chunk.get("usage") and self._usage.add(chunk) and not choices:
            return b""
        if self._wants_null_usage:
            chunk.setdefault("usage", None)
        elif chunk.get("usage", 0) is None:
            del chunk["usage"]
        for at, choice in enumerate(choices):
            self._complete_choice(choice, choice.setdefault("index", at))
        return make_event(orjson.dumps(chunk))

    def _complete_choice(self, choice: dict[str, Any], index: int) -> None:
        choice.setdefault("finish_reason", None)
        if self._kind == "completions":
            offset = self._offsets.get(index, 0)
            fill_text_choice(choice, self._rules, offset)
            self._offsets[index] = offset + len(choice["text"])
            return
        delta = choice.setdefault("delta", {})
        if isinstance(delta, dict) and "tool_calls" in delta:
            self._calls.setdefault(index, ToolCallDeltas()).normalize(delta)
        if choice["finish_reason"] == "stop" and self._calls.get(index):
            choice["finish_reason"] = "tool_calls"
        if isinstance(logprobs := choice.get("logprobs"), dict):
            logprobs.setdefault("content", None)
            logprobs.setdefault("refusal", None)

    def _end(self) -> bytes:
        if self._request.needs_tool_call and not any(self._calls.values()) and not self._conforming:
            self.error = no_tool_call(self._request.model)
            return b""
        self.ended = True
        usage = None if self._conforming else self._usage.chunk()
        if usage is None:
            return DONE
        usage |= {"id": self._id or new_id(self._kind), "model": self._request.model, "choices": []}
        usage.setdefault("object", _OBJECTS[self._kind])
        usage.setdefault("created", int(time.time()))
        return make_event(orjson.dumps(usage)) + DONE

    def _fail(self, data: bytes) -> bytes:
        self.error = self._translate(500, data[max(0, data.find(b"{")) :])
        return b""


class UsageCount:
    """The usage of a whole stream, out of what its chunks count; sent once, at the end."""

    def __init__(self, request: JsonRequest, rules: Answers) -> None:
        options = request.body.get("stream_options") or {}
        self._asked = request.include_usage
        self._in_chunks = self._asked and bool(options.get("continuous_usage_stats"))
        self._sum = rules.usage_per_choice
        self._prompts = prompt_count(request.body)
        self._seen = 0
        self._prompt = 0
        self._chunk: dict[str, Any] | None = None
        self.tokens: Tokens | None = None

    def add(self, chunk: dict[str, Any]) -> bool:
        """Count a chunk's usage and take it out of the chunk; False where it stays in."""
        usage = chunk.get("usage")
        counted = tokens_of(usage)
        if counted is None:
            return False
        if not self._sum:
            self.tokens = counted
        else:
            # Each choice counts the prompt again, which was read once.
            self._seen += 1
            self._prompt += counted[0]
            prompt = self._prompt // max(1, self._seen // self._prompts)
            before = self.tokens.completion if self.tokens else 0
            self.tokens = Tokens(prompt, before + counted.completion, counted.cached)
        if self._in_chunks and chunk.get("choices"):
            return False
        rest = {name: value for name, value in chunk.items() if name != "choices"}
        self._chunk = rest if not chunk.get("choices") else {"usage": usage}
        del chunk["usage"]
        return True

    def chunk(self) -> dict[str, Any] | None:
        """What the last chunk says beside its id and model; None where nobody asked, or nothing was
        counted."""
        if not self._asked or self._chunk is None or self.tokens is None:
            return None
        if self._seen > 1:
            prompt, completion = self.tokens[:2]
            self._chunk["usage"] = {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
            }
        return self._chunk
