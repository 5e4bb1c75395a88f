"""What mixes tokens in one layer (attention, latent attention, state space …): its weights, and what
it keeps of a sequence. Every function is pure: settings in, ``Mixer`` out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from yibu.messages import tr
from yibu.planner.cache import CacheGroup, CacheKind
from yibu.planner.hf.settings import (
    CannotTellError,
    Settings,
    head_dim,
    kv_heads,
    need,
    number,
    section,
    setting,
)


@dataclass(frozen=True, slots=True)
class Mixer:
    weights: int
    """Elements of its matrices, which are what is quantized."""
    small: int = 0
    """Elements of biases, norms, convolutions."""
    keeps: tuple[CacheGroup, ...] = ()


MixerRule = Callable[[Settings], Mixer]


# ---------------------------------------------------------------------------- attention


def attention(settings: Settings) -> Mixer:
    """Multi-head attention, grouped or not, that sees all tokens."""
    return _attention(settings, window=0)


def windowed(settings: Settings) -> Mixer:
    """Attention to the last tokens alone; all of them where no window is set."""
    return _attention(settings, window=window(settings))


def chunked(settings: Settings) -> Mixer:
    """Llama 4: attention within chunks of so many tokens (modeling_llama4.py)."""
    return _attention(settings, window=number(settings, "attention_chunk_size"))


def window(settings: Settings) -> int:
    if settings.get("use_sliding_window") is False:
        return 0
    names = ("sliding_window", "sliding_window_size", "sliding_window_attn_size", "window_size")
    found = number(settings, *names)
    # As long as the whole context (Phi-3.5), it is none.
    return 0 if found >= number(settings, "max_position_embeddings") > 0 else found


def _attention(settings: Settings, window: int) -> Mixer:
    hidden, heads, kv = need(settings, "hidden"), need(settings, "heads"), kv_heads(settings)
    width = head_dim(settings)
    value = number(settings, "v_head_dim") or width
    query = 2 if settings.get("attn_output_gate") else 1  # Qwen3-Next's gate is in q_proj
    values = 0 if settings.get("attention_k_eq_v") else kv * value  # Gemma 4's global layers
    source = number(settings, "attention_input_size") or hidden  # Zamba's is twice as wide
    weights = source * (query * heads * width + kv * width + values) + heads * value * hidden
    if settings.get("use_head_wise_attn_gate") or settings.get("gating") == "per-head":
        weights += hidden * heads
    small = 0
    if settings.get("qkv_bias") or settings.get("attention_bias") or settings.get("add_qkv_bias"):
        small += heads * width + kv * (width + value)
    if settings.get("attention_bias") and not settings.get("qkv_bias"):
        small += hidden
    if settings.get("qk_norm"):
        small += 2 * width
    if settings.get("use_bidirectional_attention") is True:  # EmbeddingGemma reads at once
        return Mixer(weights, small)
    if number(settings, "shares_cache"):  # Gemma 3n and 4: the last layers read another's cache
        shared = settings.get("keeps_own_projections")
        weights -= 0 if shared else source * (kv * width + values)
        return Mixer(weights, small)
    kind: CacheKind = "window" if window else "full"
    return Mixer(weights, small, (CacheGroup(kind, 1, kv, width + value, window),))


def indexed(settings: Settings) -> Mixer:
    """MiniMax-M3: attention to blocks that an indexer chooses, whose key of a token is kept in half
    precision (modeling_minimax_m3_vl.py; vllm/models/minimax_m3/common/indexer.py)."""
    own = attention(settings)
    index, heads = number(settings, "index_head_dim"), number(settings, "index_n_heads")
    weights = own.weights + need(settings, "hidden") * index * (heads + 1)
    return Mixer(weights, own.small, tuple(replace(kept, fixed=2 * index) for kept in own.keeps))


def latent(settings: Settings) -> Mixer:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434; modeling_deepseek_v3.py).

    With an indexer (DeepSeek-V3.2, GLM 5) a key of 8 bits a token is kept for it besides, with a
    4-byte scale for every 128 (vllm/model_executor/models/deepseek_v2.py, ``Indexer``).
    """
    if settings.get("use_mla") is False:  # the small ones of DeepSeek-VL2
        return attention(settings)
    hidden, heads, rank = (
        need(settings, "hidden"),
        need(settings, "heads"),
        need(settings, "kv_rank"),
    )
    nope, rope = number(settings, "qk_nope_head_dim"), number(settings, "qk_rope_head_dim")
    value, query_rank = number(settings, "v_head_dim"), number(settings, "q_lora_rank")
    query = heads * (nope + rope)
    weights = hidden * query_rank + query_rank * query if query_rank else hidden * query
    weights += hidden * (rank + rope) + rank * heads * (nope + value) + heads * value * hidden
    small = rank + query_rank
    index = number(settings, "index_head_dim")
    if index and not settings.get("indexer_left_out"):
        index_heads = number(settings, "index_n_heads")
        weights += (query_rank or hidden) * index_heads * index + hidden * (index + index_heads)
        kept = index + 4 * math.ceil(index / 128)
    else:
        kept = 0
    return Mixer(weights, small, (CacheGroup("latent", 1, 1, rank + rope, fixed=kept),))


def compressed(settings: Settings) -> Mixer:
    """DeepSeek-V4: one key that is the value too, a window of it, and beyond the window one entry
    for every ``ratio`` tokens, with an indexer where the ratio is small
    (modeling_deepseek_v4.py; vllm/models/deepseek_v4/attention.py)."""
    hidden, heads = need(settings, "hidden"), need(settings, "heads")
    width, rank = head_dim(settings), number(settings, "q_lora_rank")
    groups, low = number(settings, "o_groups"), number(settings, "o_lora_rank")
    weights = hidden * (rank + width) + rank * heads * width
    weights += heads * width * low + groups * low * hidden
    keeps = [CacheGroup("window", 1, 1, width, window(settings))]
    ratio = number(settings, "compress_ratio")
    if ratio > 1:
        overlapping = 2 if ratio <= 4 else 1
        weights += 2 * hidden * overlapping * width
        kept = 0
        if ratio <= 4:
            index, index_heads = (
                number(settings, "index_head_dim"),
                number(settings, "index_n_heads"),
            )
            weights += rank * index_heads * index + hidden * (4 * index + index_heads)
            kept = index + 4
        keeps.append(CacheGroup("latent", 1, 1, width, fixed=kept, ratio=ratio))
    return Mixer(weights, 0, tuple(keeps))


def double_latent(settings: Settings) -> Mixer:
    """LongCat-Flash has two latent attentions in a layer (modeling_longcat_flash.py)."""
    one = latent(settings)
    return Mixer(2 * one.weights, 2 * one.small, 2 * one.keeps)


# ---------------------------------------------------------------------------- states


def mamba(settings: Settings) -> Mixer:
    """Mamba 1 (arXiv 2312.00752; modeling_mamba.py, modeling_jamba.py)."""
    hidden = need(settings, "hidden")
    inner = number(settings, "mamba_intermediate_size", "d_inner") or hidden * number(
        settings, "mamba_expand", "expand", default=2
    )
    kept = number(settings, "mamba_d_state", "state_size", "d_state", default=16)
    kernel = number(settings, "mamba_d_conv", "conv_kernel", "d_conv", default=4)
    rank = settings.get("mamba_dt_rank", settings.get("time_step_rank", "auto"))
    rank = rank if isinstance(rank, int) else math.ceil(hidden / 16)
    weights = 2 * hidden * inner + inner * (rank + 2 * kept) + rank * inner + inner * hidden
    small = inner * (kernel + kept + 3)
    return Mixer(weights, small, (_state(inner * kept + inner * (kernel - 1)),))


def mamba2(settings: Settings) -> Mixer:
    """Mamba 2 (arXiv 2405.21060; modeling_mamba2.py, modeling_bamba.py, modeling_nemotron_h.py)."""
    hidden = need(settings, "hidden")
    heads = number(settings, "mamba_n_heads", "mamba_num_heads", "n_mamba_heads", "num_heads")
    width = settings.get(
        "mamba_d_head", settings.get("mamba_head_dim", settings.get("mamba_headdim"))
    )
    expand = number(settings, "mamba_expand", "expand", default=2)
    own_width = number(settings, "head_dim") if "num_heads" in settings else 0
    if isinstance(width, int) and heads:
        inner = heads * width
    else:
        inner = number(settings, "mamba_d_ssm", "mamba_intermediate_size") or hidden * expand
        heads = heads or (inner // own_width if own_width else 0)
    inner = number(settings, "mamba_d_ssm") or inner
    kept = number(settings, "mamba_d_state", "ssm_state_size", "state_size", "mamba_state_dim")
    groups = number(settings, "mamba_n_groups", "mamba_ngroups", "n_groups", default=1)
    kernel = number(settings, "mamba_d_conv", "conv_kernel", default=4)
    mixed = inner + 2 * groups * kept
    weights = hidden * (inner + mixed + heads) + inner * hidden
    small = mixed * (kernel + 1) + 3 * heads + inner
    return Mixer(weights, small, (_state(inner * kept + mixed * (kernel - 1)),))


def gated_delta(settings: Settings) -> Mixer:
    """Gated delta net (arXiv 2412.06464; modeling_qwen3_next.py)."""
    hidden = need(settings, "hidden")
    heads, value_width = (
        number(settings, "linear_num_value_heads"),
        number(settings, "linear_value_head_dim"),
    )
    key_width = number(settings, "linear_key_head_dim")
    key = number(settings, "linear_num_key_heads") * key_width
    value = heads * value_width
    kernel = number(settings, "linear_conv_kernel_dim", default=4)
    if not (key and value):
        raise CannotTellError(tr("its config.json has no linear_num_value_heads"))
    weights = hidden * (2 * key + 2 * value + 2 * heads) + value * hidden
    small = (2 * key + value) * kernel + 2 * heads + value_width
    state = heads * key_width * value_width + (2 * key + value) * (kernel - 1)
    return Mixer(weights, small, (_state(state),))


def kimi_delta(settings: Settings) -> Mixer:
    """Kimi delta attention (arXiv 2510.26692; modeling_kimi_linear.py)."""
    linear = section(settings, "linear_attn_config")
    hidden = need(settings, "hidden")
    heads = (
        number(linear, "num_heads")
        or number(settings, "linear_num_heads")
        or need(settings, "heads")
    )
    width = number(linear, "head_dim") or number(settings, "linear_head_dim") or head_dim(settings)
    kernel = number(linear, "short_conv_kernel_size", default=4)
    inner = heads * width
    # q, k, v, o; two low-rank gates through one head's width; the write strength.
    weights = 4 * hidden * inner + 2 * (hidden * width + width * inner) + hidden * heads
    small = 3 * inner * kernel + inner + heads + width
    return Mixer(weights, small, (_state(heads * width * width + 3 * inner * (kernel - 1)),))


def lightning(settings: Settings) -> Mixer:
    """Lightning attention (MiniMax-01, arXiv 2501.08313; modeling_minimax.py): q, k, v, a gate."""
    hidden, heads, width = need(settings, "hidden"), need(settings, "heads"), head_dim(settings)
    inner = heads * width
    return Mixer(5 * hidden * inner, inner, (_state(heads * width * width),))


def short_convolution(settings: Settings) -> Mixer:
    """LFM2's gated short convolution (modeling_lfm2.py)."""
    hidden = need(settings, "hidden")
    kernel = number(settings, "conv_L_cache", default=3)
    inner = number(settings, "conv_dim") or hidden
    return Mixer(4 * hidden * inner, inner * kernel, (_state(inner * (kernel - 1)),))


def recurrent(settings: Settings) -> Mixer:
    """RG-LRU (Griffin, arXiv 2402.19427; modeling_recurrent_gemma.py)."""
    hidden = need(settings, "hidden")
    width = number(settings, "lru_width") or hidden
    kernel = number(settings, "conv1d_width", default=4)
    gates = 2 * width * width // max(1, setting(settings, "heads"))
    small = width * (kernel + 6) + hidden
    return Mixer(3 * hidden * width + gates, small, (_state(width * kernel),))


def mamba_and_attention(settings: Settings) -> Mixer:
    """Falcon-H1: both beside each other in every layer (modeling_falcon_h1.py)."""
    one, other = mamba2(settings), attention(settings)
    return Mixer(one.weights + other.weights, one.small + other.small, one.keeps + other.keeps)


def nothing(settings: Settings) -> Mixer:
    """A layer that mixes no tokens: feed-forward alone, or skipped."""
    return Mixer(0)


def _state(elements: int) -> CacheGroup:
    return CacheGroup("state", 1, state=elements)


USUAL: Mapping[str, MixerRule] = {
    "full_attention": attention,
    "attention": attention,
    "global_attention": attention,
    "sliding_attention": windowed,
    "local_attention": windowed,
    "chunked_attention": chunked,
    "none": nothing,
}
"""Layer types with the same meaning in every family."""
