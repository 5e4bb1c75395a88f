"""Whole answers, normalized to the API's schemas.

Only what is missing is filled in, and only what is wrong is changed: fields of an engine's own
(``timings``, ``reasoning_content``) stay.
"""

from __future__ import annotations

import base64
import struct
from typing import Any

import orjson

from yibu.engines.answers import Answers, Kind, objects
from yibu.errors import EngineGoneError
from yibu.gateway.answers.anthropic import fill_message
from yibu.gateway.answers.choices import (
    TEXT_REASONS,
    complete_head,
    complete_usage,
    cut_alternatives,
    finish_reason,
    join_content,
    place_of,
)
from yibu.gateway.answers.conform import conform
from yibu.gateway.answers.engine_errors import Translator, no_tool_call, says_failure
from yibu.gateway.answers.ids import PREFIXES, with_prefix
from yibu.gateway.answers.responses import fill_response
from yibu.gateway.answers.surrogates import SurrogateJoiner
from yibu.gateway.answers.toolcalls import normalize_calls
from yibu.gateway.envelope import NotCapableError
from yibu.gateway.operations import Operation
from yibu.gateway.requests.body import JsonRequest
from yibu.messages import tr

Answer = dict[str, Any]

_OBJECTS = {"chat": "chat.completion", "completions": "text_completion", "embeddings": "list"}
_MESSAGE_PARTS = ("annotations", "audio", "function_call")
"""Fields for which vLLM writes null where the specification has an object or nothing."""


def read_answer(raw: bytes, model: str) -> Answer:
    """An engine's JSON answer.

    Raises:
        EngineGoneError: it is not a JSON object.
    """
    try:
        answer = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if (joined := SurrogateJoiner().join(raw)) != raw:
            return read_answer(joined, model)
        raise bad_answer(
            model,
            tr(
                "found {raw_count} bytes that are not JSON ({error})",
                raw_count=len(raw),
                error=error,
            ),
        ) from None
    if not isinstance(answer, dict):
        raise bad_answer(model, tr("found JSON of the type {name}", name=type(answer).__name__))
    return answer


def bad_answer(model: str, found: str, *, stream: bool = False) -> EngineGoneError:
    """The error for a success of the engine's that is no answer; ``stream``: it was asked for events."""
    told = (
        tr("The engine of model {model!r} did not answer with events: {found}", model=model, found=found)
        if stream
        else tr("The engine of model {model!r} did not answer as the API promises: {found}",
                model=model, found=found)
    )  # fmt: skip
    return EngineGoneError(
        told,
        hint=tr("See why: yibu logs {model}", model=model),
        code="engine_protocol_error",
    )


def normalize_answer(
    answer: Answer,
    operation: Operation,
    request: JsonRequest,
    rules: Answers,
    translate: Translator,
    *,
    max_context: int | None = None,
) -> None:
    """Complete an answer in place, with the public name of the model.

    Raises:
        RequestError: the answer is an error or none at all, or a demanded tool call is not in it.
    """
    kind = operation.kind
    if answer.get("error") and answer.get("status") != "failed":
        raise translate(502, orjson.dumps(answer))
    try:
        _complete(answer, kind, request, rules, max_context)
        conform(answer, operation.answer)
    except (AttributeError, LookupError, TypeError, ValueError, struct.error) as error:
        # A list where the API has an object, text where it has a number.
        if says_failure(answer):
            raise translate(502, orjson.dumps(answer)) from None
        raise bad_answer(
            request.model, tr("one of another shape ({error})", error=error)
        ) from error
    if request.needs_tool_call and kind in PREFIXES and not calls_tool(answer, kind):
        raise no_tool_call(request.model)


def _complete(
    answer: Answer, kind: Kind, request: JsonRequest, rules: Answers, max_context: int | None
) -> None:
    if "model" in answer or kind in _OBJECTS or kind == "responses":
        answer["model"] = request.model
    rules.complete(kind, answer, request.body, max_context=max_context)
    if kind in PREFIXES:
        answer["id"] = with_prefix(kind, answer.get("id"))
    if kind in {"chat", "completions"}:
        _complete_choices(answer, kind, rules, request)
    elif kind == "embeddings":
        _complete_embeddings(answer, packed=request.body.get("encoding_format") == "base64")
    elif kind == "responses":
        fill_response(answer, request.body)
    elif kind == "tokenize":
        _complete_tokenized(answer, request.body, request.model)
    elif kind == "messages":
        fill_message(answer, request.model)
    elif kind == "detokenize":
        _complete_detokenized(answer)


def _complete_choices(answer: Answer, kind: Kind, rules: Answers, request: JsonRequest) -> None:
    complete_head(answer, _OBJECTS[kind])
    complete_usage(answer)
    choices = answer["choices"] = objects(answer.get("choices"))
    if not choices:
        raise ValueError("no choices")
    for index, choice in enumerate(choices):
        choice["index"] = place_of(choice, index)
        choice["finish_reason"] = (
            finish_reason(choice.get("finish_reason"), request.model) or "stop"
        )
        if kind == "completions":
            fill_text_choice(choice, rules, 0)
            if choice["finish_reason"] not in TEXT_REASONS:
                choice["finish_reason"] = "stop"
        else:
            _fill_chat_choice(choice)
        cut_alternatives(choice, request.alternatives or 0)


def _fill_chat_choice(choice: Answer) -> None:
    message = choice["message"]
    message["role"] = "assistant"
    message.setdefault("content", None)
    join_content(message)
    message.setdefault("refusal", None)
    for name in _MESSAGE_PARTS:
        if name in message and message[name] is None:
            del message[name]
    called = normalize_calls(message, cut=choice["finish_reason"] == "length")
    if called and choice["finish_reason"] == "stop" and "tool_calls" in message:
        choice["finish_reason"] = "tool_calls"
    logprobs = choice.get("logprobs")
    choice["logprobs"] = (
        {"content": None, "refusal": None} | logprobs if isinstance(logprobs, dict) else None
    )


def fill_text_choice(choice: Answer, rules: Answers, offset: int) -> None:
    """Complete a choice of a text completion; ``offset`` characters stand before its text."""
    if choice.setdefault("text", None) is None:
        other = choice.pop("message", None) or choice.pop("delta", None) or {}
        choice["text"] = other.get("content") or ""
    logprobs = choice.setdefault("logprobs", None)
    if isinstance(logprobs, dict):
        choice["logprobs"] = rules.logprobs(logprobs, offset)


def calls_tool(answer: Answer, kind: Kind) -> bool:
    """Whether an answer calls a tool, every choice of it, or was cut before it could."""
    if kind == "responses":
        cut = answer.get("status") in {"incomplete", "failed"}
        return cut or any(
            str(item.get("type")).endswith("_call") for item in objects(answer.get("output"))
        )
    if kind == "messages":
        return answer.get("stop_reason") == "max_tokens" or any(
            block.get("type") == "tool_use" for block in objects(answer.get("content"))
        )
    return all(
        choice.get("finish_reason") == "length" or choice.get("message", {}).get("tool_calls")
        for choice in objects(answer.get("choices"))
    )


def _complete_embeddings(answer: Answer, *, packed: bool) -> None:
    answer["object"] = "list"
    complete_usage(answer)
    usage = answer.setdefault("usage", {"prompt_tokens": 0, "total_tokens": 0})
    usage.pop("completion_tokens", None)
    for index, item in enumerate(objects(answer.get("data"))):
        item["object"], item["index"] = "embedding", place_of(item, index)
        vector = item.get("embedding")
        if packed and isinstance(vector, list):
            item["embedding"] = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        elif not packed and isinstance(vector, str):
            data = base64.b64decode(vector, validate=True)
            item["embedding"] = list(struct.unpack(f"<{len(data) // 4}f", data))


def _complete_tokenized(answer: Answer, body: Answer, model: str) -> None:
    """Add the number of tokens where it is missing.

    Raises:
        NotCapableError: messages were given, and the engine knows nothing of them.
    """
    tokens = answer.get("tokens")
    if not isinstance(tokens, list):
        return
    if not tokens and "prompt" not in body:
        raise NotCapableError(
            "The engine of model {model!r} cuts a prompt into tokens, not messages",
            model=model,
            hint="/v1/messages/count_tokens counts those of a chat",
            param="messages",
        )
    answer.setdefault("count", len(tokens))


def _complete_detokenized(answer: Answer) -> None:
    """Write the text under both of its names."""
    for name, other in (("prompt", "content"), ("content", "prompt")):
        if name in answer:
            answer.setdefault(other, answer[name])
