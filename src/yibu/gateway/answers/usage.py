"""The tokens that answers count, under each API's names."""

from __future__ import annotations

from yibu.accounts.usage import Tokens


def tokens_of(usage: object) -> Tokens | None:
    """Tokens by a ``usage`` object: OpenAI's older names, or those of Responses and Messages."""
    if not isinstance(usage, dict):
        return None
    prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
    if not isinstance(prompt, int):
        return None
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    # Anthropic counts what came from a cache apart.
    read = usage.get("cache_read_input_tokens") or 0
    prompt += read + (usage.get("cache_creation_input_tokens") or 0)
    completion = usage.get("completion_tokens", usage.get("output_tokens")) or 0
    return Tokens(prompt, completion, cached or read)


def audio_seconds(usage: object) -> float:
    """Seconds of audio, where the usage of a transcript counts those."""
    seconds = usage.get("seconds") if isinstance(usage, dict) else None
    return float(seconds) if isinstance(seconds, int | float) else 0.0


def prompt_count(body: dict[str, object]) -> int:
    """The prompts of a text completion: a list of texts, or of lists of tokens, has several."""
    prompt = body.get("prompt")
    several = isinstance(prompt, list) and prompt and not isinstance(prompt[0], int)
    return len(prompt) if several else 1  # type: ignore[arg-type]
