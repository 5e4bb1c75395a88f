"""The longest context a model is made for, as vLLM derives it (vllm/config/model.py,
``_get_and_verify_max_len``; transformers_utils/model_arch_config_convertor.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from yibu.planner.hf.settings import Settings

_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
_SCALED_ALREADY = frozenset(
    {
        "su",
        "longrope",
        "llama3",
        "yarn",
        "deepseek_yarn",
        "deepseek_llama_scaling",
        "default",
        "mrope",
    }
)
"""Kinds of scaling whose configs state the scaled length in ``max_position_embeddings``."""
_ENDLESS = 1 << 31
"""Tokenizers write 10³⁰ for "no limit"."""


def max_context(settings: Settings, model_type: str) -> int | None:
    """Tokens; None where the config states no length."""
    stated = {key: length for key in _KEYS if (length := _length(settings.get(key)))}
    # Cohere states the length it was trained for beside that of its positions.
    longest = stated.get("model_max_length") or min(stated.values(), default=None)
    if longest is None:
        return None
    factor = 1.0
    for rope in _rope(settings):
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind in {"longrope", "su"}:
            original = rope.get("original_max_position_embeddings")
            return _length(settings.get("original_max_position_embeddings", original)) or longest
        scale = rope.get("factor")
        scales = kind not in _SCALED_ALREADY and "gemma3" not in model_type
        if scales and isinstance(scale, int | float) and not isinstance(scale, bool):
            factor = float(scale)
    return int(longest * factor)


def _length(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _ENDLESS:
        return None
    return int(value)


def _rope(settings: Settings) -> Iterator[Mapping[str, Any]]:
    """The rotary settings, of every layer type where they differ."""
    for key in ("rope_parameters", "rope_scaling"):
        rope = settings.get(key)
        if not isinstance(rope, Mapping):
            continue
        inner = [value for value in rope.values() if isinstance(value, Mapping)]
        yield from inner or [rope]
