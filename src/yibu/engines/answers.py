"""How an engine's answers and errors differ from the API's.

The gateway completes what any engine may leave out; what is one engine's own stands in its folder, as
a subclass of ``Answers``. Pure: objects in, objects out.
"""

# ruff: noqa: ARG002  - the base ignores what its subclasses decide by

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["chat", "completions", "embeddings", "responses", "messages", "tokenize",
               "detokenize", "transcription", "ranking", "other"]  # fmt: skip
"""The kinds of operations."""

Fields = dict[str, Any]

CONTEXT_EXCEEDED = "context_length_exceeded"
"""OpenAI's code for a prompt that is longer than the model's context."""

PROMPT_FIELDS: Mapping[str, str] = {
    "chat": "messages",
    "messages": "messages",
    "completions": "prompt",
    "responses": "input",
    "embeddings": "input",
    "detokenize": "tokens",
}
"""The request's field that holds the prompt."""

_TOO_LONG = re.compile(
    r"(?i)\bcontext (?:length|size|window)|\bcontext(?: the)? overflow|(?:model|allowed) length|max_(?:model|seq)_len"
    r"|`inputs` must have less|`max_new_tokens` must be"
)
"""Errors about a prompt that is too long, with whatever status: of vLLM (0.32), SGLang (0.5.23),
LMDeploy (0.18), llama-server, llama-cpp-python, TGI, LM Studio and TabbyAPI."""
_NO_MEDIA = re.compile(
    r"(?i)\b(?:image|audio|video)s?(?: inputs?)? (?:is|are) not supported"
    r"|\bnot support (?:image|audio|video|vision|multi-?modal)|\bnot a multi-?modal model"
    r"|missing data required for image"
)
"""Errors about pictures and sound that a model cannot take: of llama-server, vLLM, Ollama and LM Studio."""


def objects(value: object) -> list[Fields]:
    """The objects in a list; an empty list for anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


@dataclass(frozen=True, slots=True)
class RequestFault:
    """An engine's error that is the request's fault, whatever status the engine gave it."""

    code: str | None
    param: str | None = None
    status: int = 400


class Answers:
    """The rules of an engine that needs none."""

    usage_per_choice = False
    """Whether a stream has a usage for each choice, which counts the prompt again; else one for all."""

    def whole_from_stream(self, kind: Kind, body: Fields) -> bool:
        """Whether a whole answer lacks something that the same answer streamed has."""
        return False

    def request_fault(
        self, kind: Kind, status: int, error: Mapping[str, Any]
    ) -> RequestFault | None:
        """The request's fault in an engine's error; None where the engine's own status and code are right."""
        message, param = str(error.get("message")), PROMPT_FIELDS.get(kind)
        if _TOO_LONG.search(message):
            return RequestFault(CONTEXT_EXCEEDED, param)
        return RequestFault("unsupported_content", param) if _NO_MEDIA.search(message) else None

    def lacks_path(self, status: int, error: Mapping[str, Any]) -> bool:
        """Whether an error says that the engine lacks the path; by default in Starlette's words."""
        return status in {404, 405} and error.get("message") in {"Not Found", "Method Not Allowed"}

    def complete(
        self, kind: Kind, answer: Fields, body: Fields, *, max_context: int | None
    ) -> None:
        """Correct a whole answer in place; of Responses also the one that ends a stream."""

    def logprobs(self, logprobs: Fields, offset: int) -> Fields:
        """Log probabilities of a text completion; ``offset`` characters precede the text."""
        return logprobs
