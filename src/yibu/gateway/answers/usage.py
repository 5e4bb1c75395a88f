"""Token counts of answers, under each API's names."""

from __future__ import annotations

from yibu.accounts.usage import Tokens

_MOST = 10**9
"""Tokens or seconds; an engine that counts more is not believed."""


def tokens_of(usage: object) -> Tokens | None:
    """The token counts of a ``usage`` object: OpenAI's older names, or those of Responses and Messages.
    None where one of them is no count."""
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    cached = _number(details.get("cached_tokens")) if isinstance(details, dict) else None
    # Rerankers may have the total alone.
    prompt = _number(
        usage.get("prompt_tokens", usage.get("input_tokens", usage.get("total_tokens")))
    )
    completion = _number(usage.get("completion_tokens", usage.get("output_tokens")) or 0)
    # Anthropic counts what came from a cache apart.
    read = _number(usage.get("cache_read_input_tokens") or 0)
    created = _number(usage.get("cache_creation_input_tokens") or 0)
    if prompt is None or completion is None or read is None or created is None:
        return None
    return Tokens(prompt + read + created, completion, cached or read)


def _number(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= _MOST else None


def audio_seconds(usage: object) -> float:
    """Seconds of audio, where the usage of a transcript counts those."""
    seconds = usage.get("seconds") if isinstance(usage, dict) else None
    counts = isinstance(seconds, int | float) and 0 <= seconds <= _MOST
    return float(seconds) if counts else 0.0  # type: ignore[arg-type]


def prompt_count(body: dict[str, object]) -> int:
    """The number of prompts of a text completion: a list of texts, or of lists of tokens, has several."""
    prompt = body.get("prompt")
    several = isinstance(prompt, list) and prompt and not isinstance(prompt[0], int)
    return len(prompt) if several else 1  # type: ignore[arg-type]


_GENERATED = frozenset({"choices", "output", "message", "content", "text", "reasoning", "reasoning_content",
                        "thinking", "tool_calls", "function", "arguments", "input"})  # fmt: skip
"""Fields of answers that lead to what the model wrote."""


def generated(part: object) -> int:
    """Characters that a model wrote in a whole answer."""
    if isinstance(part, dict):
        return sum(generated(value) for name, value in part.items() if name in _GENERATED)
    if isinstance(part, list):
        return sum(map(generated, part))
    return len(part) if isinstance(part, str) else 0
