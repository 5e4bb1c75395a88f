"""The tokens that answers count, under each API's names."""

from __future__ import annotations

Tokens = tuple[int, int]
"""Of the prompt, and generated."""


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


def prompt_count(body: dict[str, object]) -> int:
    """The prompts of a text completion: a list of texts, or of lists of tokens, has several."""
    prompt = body.get("prompt")
    several = isinstance(prompt, list) and prompt and not isinstance(prompt[0], int)
    return len(prompt) if several else 1  # type: ignore[arg-type]
