"""Whole answers of engines that do not keep to OpenAI's specification, mended.

What is mended was seen: llama.cpp leaves out ``choices[].logprobs``, ``message.refusal`` and
``logprobs.refusal``, and gives text completions the log probabilities of chat. Fields of an
engine's own (``timings``) stay.
"""

from __future__ import annotations

import base64
import struct
import time
import uuid
from typing import Any, Literal

import orjson

from yibu.errors import EngineGoneError
from yibu.gateway.envelope import EngineAnswerError
from yibu.gateway.requests import JsonRequest
from yibu.gateway.responses import fill_response
from yibu.gateway.tokens import mend_detokenized, mend_tokenized

Kind = Literal["chat", "completions", "embeddings", "responses", "messages", "tokenize",
             "detokenize", "other"]  # fmt: skip
Answer = dict[str, Any]
Tokens = tuple[int, int]
"""Of the prompt, and generated."""

_MENDED = frozenset({"chat", "completions", "embeddings"})
_OBJECTS = {"chat": "chat.completion", "completions": "text_completion", "embeddings": "list"}
# vLLM writes null where the specification has an object or nothing.
_USAGE_DETAILS = ("prompt_tokens_details", "completion_tokens_details")
_MESSAGE_PARTS = ("annotations", "audio", "function_call")
_PREFIXES = {"chat": "chatcmpl-", "completions": "cmpl-"}


def new_id(kind: Kind) -> str:
    return _PREFIXES.get(kind, "") + uuid.uuid4().hex


def mend_answer(
    raw: bytes, kind: Kind, request: JsonRequest, *, conforming: bool
) -> tuple[bytes, Tokens | None]:
    """Return the answer as the specification has it, with the public name of the model, and the
    tokens that it counts.

    Raises:
        EngineGoneError: the engine's answer is not a JSON object.
        EngineAnswerError: a tool call was demanded and the engine made none.
        NotCapableError: the engine cannot cut messages into tokens.
    """
    try:
        answer = orjson.loads(raw)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        raise EngineGoneError(
            f"The engine of model {request.model!r} answered 200 with something else than a JSON "
            "object",
            code="engine_protocol_error",
        )
    if "model" in answer or kind in _MENDED:
        answer["model"] = request.model
    if not conforming:
        _mend(answer, kind, request)
    return orjson.dumps(answer), tokens_of(answer.get("usage"))


def _mend(answer: Answer, kind: Kind, request: JsonRequest) -> None:
    if kind not in _MENDED:
        _mend_others(answer, kind, request)
        return
    answer.setdefault("object", _OBJECTS[kind])
    _drop_nulls(answer.get("usage"), _USAGE_DETAILS)
    if kind == "embeddings":
        _mend_embeddings(answer, request)
        return
    if "id" not in answer:
        answer["id"] = new_id(kind)
    answer.setdefault("created", int(time.time()))
    for index, choice in enumerate(answer.setdefault("choices", [])):
        choice.setdefault("index", index)
        _mend_choice(choice, kind)
    if request.needs_tool_call and not has_tool_call(answer):
        raise no_tool_call(request.model)


def _mend_others(answer: Answer, kind: Kind, request: JsonRequest) -> None:
    if kind == "responses":
        answer["model"] = request.model
        fill_response(answer, request.body)
    elif kind == "tokenize":
        mend_tokenized(answer, request.body, request.model)
    elif kind == "detokenize":
        mend_detokenized(answer)


def tokens_of(usage: object) -> Tokens | None:
    """Tokens by a ``usage`` object: OpenAI's older names, or those of Responses and Messages."""
    if not isinstance(usage, dict):
        return None
    prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
    if not isinstance(prompt, int):
        return None
    # Anthropic counts what came from a cache apart.
    for name in ("cache_read_input_tokens", "cache_creation_input_tokens"):
        prompt += usage.get(name) or 0
    return prompt, usage.get("completion_tokens", usage.get("output_tokens")) or 0


def _drop_nulls(part: Any, names: tuple[str, ...]) -> None:
    if isinstance(part, dict):
        for name in names:
            if name in part and part[name] is None:
                del part[name]


def has_tool_call(answer: Answer) -> bool:
    """Whether every choice calls a tool, or was cut by ``max_tokens`` before it could."""
    return all(
        choice.get("finish_reason") == "length" or choice.get("message", {}).get("tool_calls")
        for choice in answer["choices"]
    )


def no_tool_call(model: str) -> EngineAnswerError:
    return EngineAnswerError(
        502,
        f"'tool_choice' demands a tool call and model {model!r} made none: its engine does not "
        "enforce the choice, or its chat template knows no tools. Use tool_choice 'auto'",
        "server_error",
        param="tool_choice",
        code="tool_choice_not_enforced",
    )


def _mend_choice(choice: Answer, kind: Kind) -> None:
    choice["finish_reason"] = choice.get("finish_reason") or "stop"
    logprobs = choice.setdefault("logprobs", None)
    if kind == "chat":
        message = choice.setdefault("message", {})
        message.setdefault("role", "assistant")
        message.setdefault("content", None)
        message.setdefault("refusal", None)
        _drop_nulls(message, _MESSAGE_PARTS)
        if logprobs is not None:
            logprobs.setdefault("content", None)
            logprobs.setdefault("refusal", None)
    else:
        choice.setdefault("text", "")
        if logprobs is not None:
            choice["logprobs"] = text_logprobs(logprobs)


def text_logprobs(logprobs: Answer, offset: int = 0) -> Answer:
    """Log probabilities in the shape of text completions, out of that of chat completions.

    ``offset`` is the number of characters before this text. A token's text may be half a
    character; offsets count what its own bytes decode to.
    """
    tokens = logprobs.get("content")
    if not isinstance(tokens, list):
        return logprobs
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token["token"])
    return {
        "tokens": [token["token"] for token in tokens],
        "token_logprobs": [token["logprob"] for token in tokens],
        "text_offset": offsets,
        "top_logprobs": [
            {other["token"]: other["logprob"] for other in token.get("top_logprobs", [])}
            for token in tokens
        ],
    }


def _mend_embeddings(answer: Answer, request: JsonRequest) -> None:
    usage = answer.setdefault("usage", {})
    usage.setdefault("prompt_tokens", 0)
    usage.setdefault("total_tokens", usage["prompt_tokens"])
    packed = request.body.get("encoding_format") == "base64"
    for index, item in enumerate(answer.setdefault("data", [])):
        item.setdefault("object", "embedding")
        item.setdefault("index", index)
        vector = item.get("embedding")
        if packed and isinstance(vector, list):
            item["embedding"] = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        elif not packed and isinstance(vector, str):
            data = base64.b64decode(vector)
            item["embedding"] = list(struct.unpack(f"<{len(data) // 4}f", data))
