"""What a model's layers keep for every sequence: the shape of its KV cache.

Layers differ: full attention keeps every token, a sliding window keeps the last ones, latent
attention (MLA) keeps one compressed vector a token, linear attention and state-space layers keep
a state whose size does not grow. ``cache_groups`` sorts a model's layers by that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from yibu.planner import hf_config
from yibu.planner.hf_config import number
from yibu.planner.types import ModelFacts

CacheKind = Literal["full", "window", "latent", "state"]

_ENCODERS = ("Bert", "Roberta", "XLMRoberta", "ModernBert", "NomicBert", "NewModel", "Gte")

# Every n-th layer sees all tokens, the others a window. Families whose config.json or GGUF does
# not say so itself (transformers' modeling files; llama.cpp's llama-model.cpp, set_swa_pattern).
_WINDOW_PATTERNS = {
    "gemma2": 2,
    "gemma3": 6,
    "gemma3_text": 6,
    "gemma3n": 5,
    "gpt_oss": 2,
    "gpt-oss": 2,
    "cohere2": 4,
    "exaone4": 4,
}


@dataclass(frozen=True, slots=True)
class CacheGroup:
    """Layers that keep the same thing."""

    kind: CacheKind
    layers: int
    heads: int = 0
    """Key/value heads of a layer; 1 for a latent, which tensor parallelism cannot split."""
    width: int = 0
    """Elements a token and head: key and value together, or the latent."""
    window: int = 0
    """Tokens a sliding window keeps."""
    state: int = 0
    """Elements a sequence, for layers with a state."""


def cache_groups(facts: ModelFacts) -> tuple[CacheGroup, ...]:
    """The cache of a model's layers; empty for encoders and speech models, which keep none."""
    if facts.format == "gguf":
        return _gguf_groups(facts)
    if facts.format != "safetensors" or facts.architecture.startswith(_ENCODERS):
        return ()
    return _config_groups(facts)


def window_tokens(group: CacheGroup, context: int, batched: int) -> int:
    """Tokens a sequence keeps in a group's layers.

    A window needs room for the tokens of one step besides its own (vLLM's
    ``SlidingWindowSpec.max_memory_usage_bytes``, llama.cpp's ``llama_kv_cache_iswa``).
    """
    if group.kind == "window":
        return min(context, group.window + batched)
    return context


# ---------------------------------------------------------------------------- config.json


def _config_groups(facts: ModelFacts) -> tuple[CacheGroup, ...]:
    text = hf_config.text_config(facts.details)
    kinds = Counter(_layer_kinds(text, facts.layers))
    groups = []
    if latent := number(text, "kv_lora_rank"):
        width = latent + number(text, "qk_rope_head_dim")
        # DeepSeek-V3.2's sparse attention keeps an index key a token besides.
        width += number(text, "index_head_dim")
        groups.append(CacheGroup("latent", kinds["full"], heads=1, width=width))
    elif kinds["full"]:
        groups.append(CacheGroup("full", kinds["full"], facts.kv_heads, 2 * facts.head_dim))
    if kinds["window"]:
        groups.append(
            CacheGroup(
                "window",
                kinds["window"],
                number(text, "swa_num_key_value_heads") or facts.kv_heads,
                2 * (number(text, "swa_head_dim") or facts.head_dim),
                window=_window(text),
            )
        )
    if kinds["state"]:
        groups.append(CacheGroup("state", kinds["state"], state=_state(text)))
    return tuple(group for group in groups if group.layers)


def _window(text: Mapping[str, Any]) -> int:
    if text.get("use_sliding_window") is False:
        return 0
    return number(text, "sliding_window", "sliding_window_size", "attention_chunk_size")


def _layer_kinds(text: Mapping[str, Any], layers: int) -> list[str]:
    """``full``, ``window`` or ``state`` (or ``none``) for every layer."""
    window = _window(text)
    types = text.get("layer_types") or text.get("layers_block_type")
    if isinstance(types, list) and types:
        return [_kind_of(str(name), window) for name in types[:layers]]
    pattern = text.get("hybrid_override_pattern")
    if isinstance(pattern, str):  # Nemotron-H: M mamba, * attention, - feed-forward alone
        return [{"M": "state", "*": "full"}.get(letter, "none") for letter in pattern[:layers]]
    if interval := number(text, "full_attention_interval", "attn_layer_period"):
        offset = number(text, "attn_layer_offset", default=interval - 1)
        return ["full" if i % interval == offset else "state" for i in range(layers)]
    if not window:
        return ["full"] * layers
    model_type = str(text.get("model_type", ""))
    every = number(text, "sliding_window_pattern", "_sliding_window_pattern")
    if every := every or _WINDOW_PATTERNS.get(model_type, 0):
        return ["window" if (i + 1) % every else "full" for i in range(layers)]
    if model_type.startswith("qwen2"):
        first = number(text, "max_window_layers", default=layers)
        return ["window" if i >= first else "full" for i in range(layers)]
    return ["window"] * layers


def _kind_of(name: str, window: int) -> str:
    if name in ("sliding_attention", "chunked_attention"):
        return "window" if window else "full"
    return "full" if name in ("full_attention", "attention", "hybrid") else "state"


def _state(text: Mapping[str, Any]) -> int:
    """Elements of one layer's state for a sequence: gated delta net, Mamba 1 and 2, convolution.

    Gated delta net: value heads × key width × value width, and the convolution's last inputs
    (transformers, modeling_qwen3_next.py). Mamba: inner width × state width, likewise.
    """
    if heads := number(text, "linear_num_value_heads"):
        key, value = number(text, "linear_key_head_dim"), number(text, "linear_value_head_dim")
        mixed = 2 * number(text, "linear_num_key_heads") * key + heads * value
        return heads * key * value + mixed * (number(text, "linear_conv_kernel_dim", default=4) - 1)
    hidden = hf_config.hidden_size(text)
    inner = (
        number(text, "mamba_d_ssm")
        or number(text, "mamba_n_heads", "mamba_num_heads")
        * number(text, "mamba_d_head", "mamba_head_dim")
        or hidden * number(text, "mamba_expand", "expand", default=1)
    )
    kept = number(text, "mamba_d_state", "ssm_state_size", "state_size")
    groups = number(text, "mamba_n_groups", "n_groups", default=1)
    convolution = number(text, "mamba_d_conv", "conv_kernel", "conv_L_cache", default=4) - 1
    return inner * kept + (inner + 2 * groups * kept) * max(convolution, 0)


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
    inner, kept = metadata.count("ssm.inner_size"), metadata.count("ssm.state_size")
    convolution = max(metadata.count("ssm.conv_kernel") - 1, 0)
    mixed = inner + 2 * metadata.count("ssm.group_count") * kept
    return inner * kept + convolution * mixed
