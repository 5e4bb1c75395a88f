"""The shape of a model's KV cache: what its layers keep for every sequence.

A transformers model's comes from ``yibu.planner.hf``; a GGUF's is told here from its metadata.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from yibu.planner.cache import CacheGroup, CacheKind
from yibu.planner.types import ModelFacts

# Every n-th layer sees all tokens, the others a window. Architectures whose GGUF does not say so
# itself (llama.cpp's llama-model.cpp, set_swa_pattern).
_WINDOW_PATTERNS = {
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gpt-oss": 2,
    "cohere2": 4,
    "exaone4": 4,
}


def cache_groups(facts: ModelFacts) -> tuple[CacheGroup, ...]:
    """The cache of a model's layers; empty for encoders and speech models, which keep none."""
    return _gguf_groups(facts) if facts.format == "gguf" else facts.cache


def window_tokens(group: CacheGroup, context: int, batched: int) -> int:
    """Tokens a sequence keeps in a group's layers.

    A window needs room for the tokens of one step besides its own (vLLM's
    ``SlidingWindowSpec.max_memory_usage_bytes``, llama.cpp's ``llama_kv_cache_iswa``).
    """
    if group.kind == "window":
        return min(context, group.window + batched)
    return context


# ---------------------------------------------------------------------------- GGUF


def _gguf_groups(facts: ModelFacts) -> tuple[CacheGroup, ...]:
    metadata = _Metadata(facts.details, facts.architecture)
    if metadata.get("attention.causal") is False or facts.architecture.endswith(
        ("bert", "bert-moe", "encoder")
    ):
        return ()
    key = metadata.count("attention.key_length", facts.head_dim)
    value = metadata.count("attention.value_length", facts.head_dim)
    if metadata.count("attention.kv_lora_rank") and metadata.count("attention.key_length_mla"):
        return (CacheGroup("latent", facts.layers, heads=1, width=key),)
    state, window = _gguf_state(metadata), metadata.count("attention.sliding_window")
    windows = _gguf_windows(metadata, facts.layers)
    tally: Counter[tuple[CacheKind, int]] = Counter()
    for heads, windowed in zip(_gguf_heads(metadata, facts, state), windows, strict=True):
        if heads:
            tally["window" if window and windowed else "full", heads] += 1
        elif state:
            tally["state", 0] += 1
    return tuple(
        CacheGroup("state", layers, state=state)
        if kind == "state"
        else CacheGroup(kind, layers, heads, key + value, window if kind == "window" else 0)
        for (kind, heads), layers in tally.items()
    )


@dataclass(frozen=True, slots=True)
class _Metadata:
    """GGUF metadata of one architecture."""

    values: Mapping[str, Any]
    architecture: str

    def get(self, key: str) -> Any:
        return self.values.get(f"{self.architecture}.{key}")

    def count(self, key: str, default: int = 0) -> int:
        value = self.get(key)
        return value if isinstance(value, int) and 0 <= value < 1 << 32 else default


def _gguf_heads(metadata: _Metadata, facts: ModelFacts, state: int) -> list[int]:
    """Key/value heads of every layer; 0 for one that has a state instead."""
    per_layer = metadata.get("attention.head_count_kv")
    if isinstance(per_layer, list) and len(per_layer) >= facts.layers:
        return [int(heads) for heads in per_layer[: facts.layers]]
    if interval := metadata.count("full_attention_interval"):
        return [0 if (i + 1) % interval else facts.kv_heads for i in range(facts.layers)]
    # A pure state-space model names no attention heads.
    return [0 if state and not facts.attention_heads else facts.kv_heads] * facts.layers


def _gguf_windows(metadata: _Metadata, layers: int) -> list[bool]:
    """Which layers have a window; where that is not known, none: that errs on the safe side."""
    pattern = metadata.get("attention.sliding_window_pattern")
    if isinstance(pattern, list) and len(pattern) >= layers:
        return [bool(value) for value in pattern[:layers]]
    known = _WINDOW_PATTERNS.get(metadata.architecture, 0)
    every = pattern if isinstance(pattern, int) and pattern > 0 else known
    return [bool(every and (i + 1) % every) for i in range(layers)]


def _gguf_state(metadata: _Metadata) -> int:
    """llama.cpp's ``n_embd_r`` + ``n_embd_s``: the convolution's inputs and the state itself."""
    if width := metadata.count("wkv.head_size"):  # RWKV: a matrix a head, and the last tokens
        hidden = metadata.count("embedding_length")
        return hidden * width + metadata.count("token_shift_count", 2) * hidden
    inner, kept = metadata.count("ssm.inner_size"), metadata.count("ssm.state_size")
    convolution = max(metadata.count("ssm.conv_kernel") - 1, 0)
    mixed = inner + 2 * metadata.count("ssm.group_count") * kept
    return inner * kept + convolution * mixed
