"""Families that mix attention with states: their layer patterns and what single ones do otherwise."""

from __future__ import annotations

from dataclasses import replace

from yibu.messages import tr
from yibu.planner.cache import CacheGroup
from yibu.planner.hf import layers, mixers
from yibu.planner.hf.mixers import Mixer
from yibu.planner.hf.settings import (
    CannotTellError,
    Settings,
    head_dim,
    need,
    number,
    numbers,
    setting,
)
from yibu.planner.hf.weights import Weights


def mamba_layer(settings: Settings, i: int, n: int, kind: str) -> Settings:
    """``intermediate_size`` is the width of the state's inputs, whatever ``expand`` says."""
    width = number(settings, "intermediate_size")
    return {**settings, "mamba_intermediate_size": width, "feed_forward": "none"}


def nemotron_h_pattern(settings: Settings, n: int) -> list[str] | None:
    named = layers.layer_types(settings, n)
    found = named if named is not None else layers.block_letters(settings, n)
    if found is None:
        raise CannotTellError(tr("its config.json has no hybrid_override_pattern"))
    return ["mamba" if name == "linear_attention" else name for name in found]


def nemotron_h_layer(settings: Settings, i: int, n: int, kind: str) -> Settings:
    """Every layer is one thing alone: a mixer, a feed-forward part or experts."""
    named = settings.get("layers_block_type") or settings.get("layer_types")
    if isinstance(named, list):
        part = {"mlp": "dense", "moe": "moe"}.get(named[i], "none")
    else:
        letters = str(settings.get("hybrid_override_pattern")).replace("|", "")
        part = {"-": "dense", "E": "moe"}.get(letters[i], "none")
    return {**settings, "feed_forward": part}


def recurrent_gemma_layer(settings: Settings, i: int, n: int, kind: str) -> Settings:
    """``intermediate_size`` counts gate and up together."""
    window = number(settings, "attention_window_size", default=2048)
    return {**settings, "sliding_window": window, "intermediate_size": need(settings, "inner") // 2}


def lfm2_layer(settings: Settings, i: int, n: int, kind: str) -> Settings:
    """``intermediate_size`` is scaled and rounded up (modeling_lfm2.py, ``Lfm2MLP``)."""
    width = number(settings, "block_ff_dim") or need(settings, "inner")
    if not settings.get("block_auto_adjust_ff_dim"):
        return {**settings, "intermediate_size": width}
    scale = settings.get("block_ffn_dim_multiplier")
    width = int((scale if isinstance(scale, int | float) else 1) * int(2 * width / 3))
    multiple = max(1, number(settings, "block_multiple_of", default=256))
    return {**settings, "intermediate_size": width + (-width) % multiple}


def olmo_hybrid_layer(settings: Settings, i: int, n: int, kind: str) -> Settings:
    """Heads of the gated delta net follow from the attention's (configuration_olmo_hybrid.py)."""
    heads, key = need(settings, "heads"), int(0.75 * head_dim(settings))
    own = {"linear_num_key_heads": heads, "linear_num_value_heads": heads,
           "linear_key_head_dim": key, "linear_value_head_dim": 2 * key}  # fmt: skip
    return {**own, **{name: value for name, value in settings.items() if value is not None}}


def bailing_delta(settings: Settings) -> Mixer:
    """Kimi delta attention with whole matrices for its gates (modeling_bailing_hybrid.py)."""
    hidden, heads, width = need(settings, "hidden"), need(settings, "heads"), head_dim(settings)
    own = mixers.kimi_delta(settings)
    return replace(own, weights=6 * hidden * heads * width + hidden * heads)


def minimax_pattern(settings: Settings, n: int) -> list[str]:
    """Its class has full attention in every other layer (configuration_minimax.py)."""
    named = layers.layer_types(settings, n) or layers.attention_list(settings, n)
    return named or ["linear_attention" if i % 2 else "full_attention" for i in range(n)]


def bamba_pattern(settings: Settings, n: int) -> list[str] | None:
    named = layers.layer_types(settings, n) or layers.attention_indices(settings, n)
    return named or ["mamba"] * n


def granite_hybrid_pattern(settings: Settings, n: int) -> list[str] | None:
    return layers.layer_types(settings, n) or ["mamba"] * n


def granite_hybrid_layer(settings: Settings, i: int, n: int, kind: str) -> Settings:
    """Granite 4 without experts has the shared part alone (modeling_granitemoehybrid.py)."""
    if setting(settings, "experts"):
        return settings
    return {**settings, "intermediate_size": number(settings, "shared_intermediate_size")}


# Zamba 1 and 2: Mamba layers, some with one of a few shared transformer blocks before them.


def zamba_pattern(settings: Settings, n: int) -> list[str] | None:
    named = settings.get("layers_block_type")
    if isinstance(named, list) and len(named) >= n:
        return [str(name) for name in named[:n]]
    if "hybrid_layer_ids" not in settings:
        raise CannotTellError(tr("its config.json has no hybrid_layer_ids"))
    hybrid = set(numbers(settings, "hybrid_layer_ids"))
    return ["hybrid" if i in hybrid else "mamba" for i in range(n)]


def zamba1_pattern(settings: Settings, n: int) -> list[str] | None:
    """As its class makes it (configuration_zamba.py)."""
    if "layers_block_type" in settings:
        return zamba_pattern(settings, n)
    period = max(1, number(settings, "attn_layer_period", default=6))
    offset = number(settings, "attn_layer_offset", default=4)
    rest = ["hybrid" if i % period == offset else "mamba" for i in range(n - 3)]
    return ["mamba", "mamba", "hybrid", *rest][:n]


def zamba_mixers(state: mixers.MixerRule, *, adapters: bool) -> dict[str, mixers.MixerRule]:
    def hybrid(settings: Settings) -> Mixer:
        own, hidden = state(settings), need(settings, "hidden")
        rank = number(settings, "adapter_rank", default=128) if adapters else 0
        adapter = rank * (hidden + 2 * need(settings, "inner"))
        kept = mixers.attention(_zamba_attention(settings)).keeps
        return Mixer(own.weights + hidden * hidden + adapter, own.small, own.keeps + kept)

    return dict.fromkeys(("mamba", "linear_attention"), state) | {"hybrid": hybrid}


def _zamba_attention(settings: Settings) -> Settings:
    """As wide as two hidden sizes: the state beside the embedding."""
    twice = 2 * need(settings, "hidden")
    width = number(settings, "attention_head_dim") or twice // need(settings, "heads")
    return {**settings, "attention_input_size": twice, "head_dim": width}


def zamba_extra(settings: Settings) -> Weights:
    """The shared blocks themselves (modeling_zamba.py, modeling_zamba2.py)."""
    blocks = number(settings, "num_mem_blocks", default=1)
    hidden, inner = need(settings, "hidden"), need(settings, "inner")
    one = mixers.attention(_zamba_attention(settings)).weights + 3 * hidden * inner
    return Weights(attention=blocks * one)


def rwkv(settings: Settings) -> Mixer:
    """RWKV 4 (arXiv 2305.13048; modeling_rwkv.py): time mixing, and the receptance of channel mixing,
    which a feed-forward part does not have; a state of five rows."""
    hidden = need(settings, "hidden")
    inner = number(settings, "attention_hidden_size") or hidden
    weights = 4 * hidden * inner + hidden * hidden
    state = CacheGroup("state", 1, state=3 * inner + 2 * hidden)
    return Mixer(weights, 2 * inner + 5 * hidden, (state,))


def xlstm(settings: Settings) -> Mixer:
    """A matrix LSTM (arXiv 2503.13427; modeling_xlstm.py), whose state is kept in float32: of twice as many
    bytes as others."""
    hidden, heads = need(settings, "hidden"), need(settings, "heads")
    keys = int(hidden * _factor(settings, "qk_dim_factor", 0.5))
    values = int(hidden * _factor(settings, "v_dim_factor", 1.0))
    weights = 2 * hidden * keys + 3 * hidden * values + 2 * hidden * heads
    state = 2 * (keys * values // heads + keys + heads)
    return Mixer(weights, values + 2 * heads, (CacheGroup("state", 1, state=state),))


def xlstm_layer(settings: Settings, i: int, n: int, kind: str) -> Settings:
    """The width of its feed-forward part is scaled and rounded up (modeling_xlstm.py)."""
    width = int(need(settings, "hidden") * _factor(settings, "ffn_proj_factor", 2.667))
    multiple = max(1, number(settings, "ffn_round_up_to_multiple_of", default=64))
    return {**settings, "intermediate_size": width + (-width) % multiple}


def _factor(settings: Settings, name: str, default: float) -> float:
    found = settings.get(name)
    return float(found) if isinstance(found, int | float) else default
