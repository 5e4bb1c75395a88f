"""The size of prompts: those that cannot fit a model's context are refused before an engine reads them.

llama.cpp reads a prompt whole before it counts: 24 MB for a context of 8,192 tokens took it minutes
and 7 GB. How many tokens a text has is known to the engine alone, so the limit here is far above
any real text, which has 1 to 6 characters a token.
"""

from __future__ import annotations

from typing import Any

from yibu.engines.answers import CONTEXT_EXCEEDED, PROMPT_FIELDS, Kind, objects
from yibu.errors import InvalidRequestError
from yibu.gateway.requests.body import Body, JsonRequest

CHARACTERS_PER_TOKEN = 256
"""Far above any text's mean. Single tokens may be long, rows of one character for the most part; blanks, of
which there are the longest rows, are not counted."""

_GENERATING = frozenset({"chat", "completions", "messages", "responses"})
"""Of embedding models some cut what is too long, and some take a word of any length for one token."""


_INLINE = frozenset({"url", "image_url", "data", "file_data"})
"""Fields of a prompt's parts that hold a picture, a sound or a file."""


def inline_bytes(body: Body) -> int:
    """Bytes of the pictures, sounds and files in a prompt: they tell nothing of its tokens."""
    messages = objects(body.get("messages") or body.get("input"))
    return sum(_inline(part) for message in messages for part in objects(message.get("content")))


def _inline(part: Any) -> int:
    if isinstance(part, dict):
        return sum(
            len(value) if isinstance(value, str) and name in _INLINE else _inline(value)
            for name, value in part.items()
        )
    return sum(map(_inline, part)) if isinstance(part, list) else 0


def refuse_overlong(kind: Kind, request: JsonRequest, max_context: int | None) -> None:
    """Refuse a request whose prompt has more characters than ``max_context`` tokens can have.

    Raises:
        InvalidRequestError: with OpenAI's code for it.
    """
    if max_context is None or request.size <= max_context * CHARACTERS_PER_TOKEN:
        return
    body = request.body
    if kind not in _GENERATING or body.get("truncate_prompt_tokens"):
        return
    field = PROMPT_FIELDS[kind]
    prompt = body.get(field)
    several = kind == "completions" and isinstance(prompt, list)
    characters = max(map(_characters, prompt or [""])) if several else _characters(prompt)
    if characters <= max_context * CHARACTERS_PER_TOKEN:
        return
    raise InvalidRequestError(
        "The prompt has {characters} characters, which cannot fit this model's context length "
        "of {context} tokens",
        characters=characters,
        context=max_context,
        hint="Send a shorter prompt, or raise the model's context in yibu.yaml",
        param=field,
        code=CONTEXT_EXCEEDED,
    )


def _characters(value: Any) -> int:
    """Characters of the texts in a prompt, blanks and line breaks aside.

    Without the assistant's turns, of which chat templates may leave out parts, and without pictures.
    """
    if isinstance(value, str):
        return len(value) - value.count(" ") - value.count("\n")
    if isinstance(value, list):
        return sum(map(_characters, value))
    if isinstance(value, dict) and value.get("role") != "assistant":
        return _characters(value.get("content")) + _characters(value.get("text"))
    return 0
