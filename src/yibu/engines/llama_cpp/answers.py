"""Differences of llama.cpp's answers from the API (xllamacpp 2026.10.11549)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from yibu.engines.answers import (
    CONTEXT_EXCEEDED,
    PROMPT_FIELDS,
    Answers,
    Fields,
    Kind,
    RequestFault,
)

_FAULTS = (
    (re.compile(r"^input \(\d+ tokens\) is too large to process"), RequestFault(CONTEXT_EXCEEDED)),
    (re.compile(r"^Failed to parse |\[json\.exception\."), RequestFault("invalid_value")),
    (
        re.compile(r"^Unknown reasoning format"),
        RequestFault("invalid_value", "reasoning_format"),
    ),
)
"""Messages of llama.cpp about faulty requests, sent with status 500 and the type of its own failures."""
_SCHEMA = re.compile(r"JSON schema ")
_FORMATS = {"chat": "response_format", "responses": "text.format", "messages": "output_config"}
_FIELD = re.compile(r"""^(?:Field '|")([^'"]+)['"]""")
_PROMPT = re.compile(
    r"^(Assistant message must|Cannot continue an assistant|Cannot determine type of 'item'"
    r"|'type' must be one of|unsupported content)"
)
"""Messages about a conversation that do not name its field."""
_CONTEXT_TYPE = "exceed_context_size_error"


class LlamaCppAnswers(Answers):
    usage_per_choice = True

    def whole_from_stream(self, kind: Kind, body: Fields) -> bool:
        """Whether it has several choices or prompts: a whole answer counts the tokens of the first only."""
        if kind not in {"chat", "completions"} or body.get("stream"):
            return False
        prompt = body.get("prompt")
        several = isinstance(prompt, list) and len(prompt) > 1 and not isinstance(prompt[0], int)
        return several or (body.get("n") or 1) > 1

    def request_fault(
        self, kind: Kind, status: int, error: Mapping[str, Any]
    ) -> RequestFault | None:
        param = PROMPT_FIELDS.get(kind)
        if error.get("type") == _CONTEXT_TYPE:
            return RequestFault(CONTEXT_EXCEEDED, param)
        message = str(error.get("message"))
        if status == 400 and (named := _FIELD.match(message)):
            return RequestFault(None, named[1])
        if status == 400 and _PROMPT.search(message):
            return RequestFault(None, param)
        if status == 400 and _SCHEMA.search(message):
            return RequestFault("unsupported_schema", _FORMATS.get(kind))
        if status != 500:
            return None
        if kind == "detokenize":
            # The only thing in its request is the tokens, and one was out of the vocabulary's range.
            return RequestFault("invalid_value", param)
        for pattern, fault in _FAULTS:
            if pattern.search(message):
                return replace(fault, param=fault.param or param)
        return super().request_fault(kind, status, error)

    def lacks_path(self, status: int, error: Mapping[str, Any]) -> bool:
        return status == 404 and error.get("type") == "not_found_error"

    def complete(
        self, kind: Kind, answer: Fields, body: Fields, *, max_context: int | None
    ) -> None:
        if kind == "responses":
            _mark_incomplete(answer, body, max_context)
        elif kind in {"chat", "messages"}:
            _drop_prefill(answer, body)

    def logprobs(self, logprobs: Fields, offset: int) -> Fields:
        """Convert chat's log probabilities, which llama.cpp sends in text completions."""
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


def _mark_incomplete(answer: Fields, body: Fields, max_context: int | None) -> None:
    """Mark a cut response as incomplete: llama.cpp calls it completed, and only its usage tells."""
    usage = answer.get("usage")
    if answer.get("status") != "completed" or not isinstance(usage, dict):
        return
    limit = body.get("max_output_tokens")
    at_limit = limit is not None and usage.get("output_tokens", 0) >= limit
    full = max_context is not None and usage.get("total_tokens", 0) >= max_context
    if not at_limit and not full:
        return
    answer["status"] = "incomplete"
    answer["incomplete_details"] = {"reason": "max_output_tokens"}
    answer.pop("completed_at", None)
    if answer.get("output"):
        answer["output"][-1]["status"] = "incomplete"


def _drop_prefill(answer: Fields, body: Fields) -> None:
    """Remove the assistant's words that the conversation ended with: a whole answer repeats them, a
    stream does not."""
    last = body["messages"][-1]
    if last.get("role") != "assistant":
        return
    prefill = last.get("content")
    if isinstance(prefill, list):
        prefill = "\n\n".join(str(part.get("text", "")) for part in prefill)
    if not prefill:
        return
    for choice in answer.get("choices", ()):
        message = choice.get("message", {})
        if isinstance(message.get("content"), str):
            message["content"] = message["content"].removeprefix(prefill)
    for block in answer.get("content", ())[:1]:
        if block.get("type") == "text":
            block["text"] = block["text"].removeprefix(prefill)
