"""Streams of Chat Completions and Completions, normalized chunk by chunk.

Each is parsed and held against the specification, but for those that differ from one that was in
their text alone: most do.
"""

from __future__ import annotations

from typing import Any

import orjson

from yibu.accounts.usage import Tokens
from yibu.engines.answers import Answers, objects
from yibu.errors import RequestError
from yibu.gateway.answers.choices import (
    TEXT_REASONS,
    complete_head,
    complete_usage,
    cut_alternatives,
    finish_reason,
    join_content,
    place_of,
    says_something,
)
from yibu.gateway.answers.conform import conform
from yibu.gateway.answers.engine_errors import BROKEN_OFF, Translator, no_tool_call, says_failure
from yibu.gateway.answers.ids import new_id, with_prefix
from yibu.gateway.answers.normalize import fill_text_choice
from yibu.gateway.answers.sse import DONE, EventReader, make_event, other_shape, parse_event
from yibu.gateway.answers.surrogates import SurrogateJoiner
from yibu.gateway.answers.template import ChunkTemplate
from yibu.gateway.answers.toolcalls import ToolCallDeltas
from yibu.gateway.answers.usage import prompt_count, tokens_of
from yibu.gateway.envelope import EngineAnswerError
from yibu.gateway.requests.body import JsonRequest
from yibu.gateway.requests.toolchoice import tool_names
from yibu.gateway.schemas.answers import ChatChunk, TextChunk
from yibu.gateway.schemas.base import Strict
from yibu.messages import tr
from yibu.upstream.connection import UpstreamError

_OBJECTS = {"chat": "chat.completion.chunk", "completions": "text_completion"}
_SHAPES: dict[str, type[Strict]] = {"chat": ChatChunk, "completions": TextChunk}


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
        self._surrogates = SurrogateJoiner()
        self._template = ChunkTemplate()
        self._choices = (request.body.get("n") or 1) * prompt_count(request.body)
        self._begun: dict[int, bool] = {}
        """Choices seen so far, and whether the client was sent their first chunk."""
        self._finished: set[int] = set()
        self._cut: set[int] = set()
        """Choices that ended at their token limit."""
        self._calls: dict[int, ToolCallDeltas] = {}
        self._named: set[int] = set()
        """The choices whose call in the older form has its name."""
        self._offsets: dict[int, int] = {}
        self._usage = UsageCount(request, rules)
        self._id = ""
        self._plain = False
        """Whether the last chunk carried text alone."""
        # The published schema of text completions has no null there, that of chat chunks has.
        self._wants_null_usage = request.include_usage and kind == "chat"
        self._alternatives = request.alternatives or 0
        self.ended = False
        """Whether the client has been sent the end of the answer."""
        self.error: RequestError | None = None
        """The engine's error in mid-stream; events after it are ignored."""
        self.number = 0
        """The next event's number, in APIs that number them."""

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
        """The rest of the answer: ``[DONE]``, where the engine left only that out.

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
        if not data or data.isspace():  # empty data is no event either
            # llama.cpp's older form of an error; else a comment.
            if block.startswith(b"error:"):
                self._fail(block[6:])
            return b""
        data = self._surrogates.join(data.strip())
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
        sent = self._checked(data)
        if self._plain and not self._surrogates.held:
            self._template.learn(b"data: " + data + b"\n\n", sent)
        else:  # such as when the next text begins with the rest of a character
            self._template.forget()
        return sent

    def _checked(self, data: bytes) -> bytes:
        """Raises UpstreamError: a list where the API has an object, text where it has a number."""
        try:
            return self._parsed(data)
        except EngineAnswerError as error:
            self.error = error
            return b""
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise other_shape(error) from error

    def _parsed(self, data: bytes) -> bytes:
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise UpstreamError(
                "protocol", tr("an event of the engine's stream is not JSON")
            ) from None
        if chunk.get("error") is not None or ("choices" not in chunk and says_failure(chunk)):
            return self._fail(data)
        if "choices" not in chunk and not (self._conforming or chunk.get("usage")):
            raise ValueError("no choices")
        choices = objects(chunk.get("choices"))
        self._plain = not chunk.get("usage") and all(map(self._is_plain, choices))
        open_ = [choice for at, choice in enumerate(choices) if not self._has_ended(choice, at)]
        if self._conforming:
            return self._conformed(chunk, choices, data)
        if not open_ and not chunk.get("usage"):
            return b""
        self._id = self._id or with_prefix(self._kind, chunk.get("id"))
        return self._completed(chunk, open_)

    def _is_plain(self, choice: dict[str, Any]) -> bool:
        """Whether a choice carries text alone, so that the next chunks may be like it."""
        delta = choice.get("delta") or choice
        known = self._begun.get(choice.get("index", 0))
        return (
            bool(known)
            and not self._finished
            and not choice.get("finish_reason")
            and not choice.get("logprobs")
            and not any("_call" in name for name in delta)
        )

    def _conformed(
        self, chunk: dict[str, Any], choices: list[dict[str, Any]], data: bytes
    ) -> bytes:
        """A chunk of an engine that conforms to the specification."""
        self._begun |= {choice["index"]: True for choice in choices}
        taken = self._usage.add(dict(chunk))
        if taken and not choices and not self._request.include_usage:
            return b""  # the gateway asked for it, not the client
        if chunk.get("model", self._request.model) == self._request.model:
            return b"data: " + data + b"\n\n"
        chunk["model"] = self._request.model
        return make_event(orjson.dumps(chunk))

    def _has_ended(self, choice: dict[str, Any], at: int) -> bool:
        """Whether an earlier chunk ended this choice; records that it came, and whether this chunk ends
        it.

        Raises:
            UpstreamError: it goes on behind its end.
        """
        index = choice["index"] = place_of(choice, at)
        reason = finish_reason(choice.get("finish_reason"), self._request.model)
        if index in self._finished:
            if says_something(choice):
                raise UpstreamError(
                    "protocol",
                    tr("a choice of the engine's stream goes on after its finish_reason"),
                )
            return True
        self._begun.setdefault(index, False)
        if reason:
            self._finished.add(index)
            if reason == "length":
                self._cut.add(index)
        if not self._conforming:
            choice["finish_reason"] = reason
        return False

    def _completed(self, chunk: dict[str, Any], choices: list[dict[str, Any]]) -> bytes:
        """A chunk with every field of the specification."""
        chunk["id"] = self._id
        complete_head(chunk, _OBJECTS[self._kind])
        chunk["model"] = self._request.model
        chunk["choices"] = choices
        complete_usage(chunk)
        if chunk.get("usage") and self._usage.add(chunk) and not choices:
            return b""
        if self._wants_null_usage:
            chunk.setdefault("usage", None)
        for choice in choices:
            self._complete_choice(choice, choice["index"])
        conform(chunk, _SHAPES[self._kind])
        return make_event(orjson.dumps(chunk))

    def _complete_choice(self, choice: dict[str, Any], index: int) -> None:
        begun, self._begun[index] = self._begun[index], True
        if self._kind == "completions":
            offset = self._offsets.get(index, 0)
            fill_text_choice(choice, self._rules, offset)
            if choice["finish_reason"] not in {None, *TEXT_REASONS}:
                choice["finish_reason"] = "stop"
            cut_alternatives(choice, self._alternatives)
            self._offsets[index] = offset + len(choice["text"])
            return
        if choice.get("delta") is None:
            text = {"content": choice.pop("text")} if choice.get("text") else {}
            choice["delta"] = choice.pop("message", None) or text
        delta = choice["delta"]
        join_content(delta)
        if not begun:
            delta["role"] = "assistant"
        elif "role" in delta:
            del delta["role"]
        self._name_once(delta, index)
        if "tool_calls" in delta and index not in self._calls:
            self._calls[index] = ToolCallDeltas(tool_names(self._request.body))
        if (calls := self._calls.get(index)) is not None:
            calls.normalize(delta, choice["finish_reason"])
        if choice["finish_reason"] == "stop" and self._calls.get(index):
            choice["finish_reason"] = "tool_calls"
        if isinstance(logprobs := choice.get("logprobs"), dict):
            logprobs.setdefault("content", None)
            logprobs.setdefault("refusal", None)
        cut_alternatives(choice, self._alternatives)

    def _name_once(self, delta: dict[str, Any], index: int) -> None:
        """llama-cpp-python tells the name of a call in the older form in every chunk."""
        call = delta.get("function_call")
        if isinstance(call, dict) and call.get("name"):
            if index in self._named:
                del call["name"]
            self._named.add(index)

    def _end(self) -> bytes:
        uncalled = [index for index in self._begun if not self._calls.get(index)]
        if self._request.needs_tool_call and not self._conforming and set(uncalled) - self._cut:
            self.error = no_tool_call(self._request.model)
            return b""
        if not (self._begun or self._conforming):
            raise UpstreamError("closed", BROKEN_OFF)
        self.ended = True
        if self._conforming:
            return DONE
        last = b""
        if unfinished := [index for index in self._begun if index not in self._finished]:
            # Clients that put the answer together raise where a choice has no reason.
            choices = [{"index": index, "finish_reason": "stop"} for index in unfinished]
            last = self._completed({"id": self._id}, choices)
        usage = self._usage.chunk()
        if usage is None:
            return last + DONE
        usage |= {"id": self._id or new_id(self._kind), "model": self._request.model, "choices": []}
        complete_head(usage, _OBJECTS[self._kind])
        return last + make_event(orjson.dumps(usage)) + DONE

    def _fail(self, data: bytes) -> bytes:
        self.error = self._translate(502, data[max(0, data.find(b"{")) :])
        return b""


class UsageCount:
    """The usage of a whole stream, from the counts in its chunks; sent once, at the end."""

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
        """The usage's fields for the last chunk; None where nobody asked for it, or nothing was counted."""
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
