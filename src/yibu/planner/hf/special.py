"""Peculiarities of single families: settings of a layer, layer patterns, extra tables.

A ``layer`` function gives the settings of layer ``i`` of ``n`` with the given type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from yibu.messages import tr
from yibu.planner.hf import layers, mixers, towers
from yibu.planner.hf.feed_forward import heterogeneous
from yibu.planner.hf.mixers import Mixer
from yibu.planner.hf.settings import (
    CannotTellError,
    Settings,
    head_dim,
    need,
    number,
    numbers,
    section,
    setting,
)
from yibu.planner.hf.weights import Weights


def every(name: str) -> Callable[[Settings, int], list[str]]:
    """All layers are of one type."""
    return lambda settings, count: [name] * count


def without_feed_forward(settings: Settings, i: int, n: int, kind: str) -> Settings:
    return {**settings, "feed_forward": "none"}


def learned_positions(settings: Settings) -> Weights:
    """A table of positions instead of rotary embeddings."""
    positions = number(settings, "n_positions", "max_position_embeddings")
    return Weights(embedding=positions * need(settings, "hidden"))


def bert_tables(settings: Settings) -> Weights:
    """Positions and token types; embeddings may be narrower than the layers (ELECTRA)."""
    hidden = need(settings, "hidden")
    rows = number(settings, "max_position_embeddings") + number(settings, "type_vocab_size")
    narrow = number(settings, "embedding_size") or hidden
    saved = need(settings, "vocabulary") * (hidden - narrow)
    return Weights(embedding=rows * narrow - saved, feed_forward=hidden * narrow)


def nomic_layer(settings: Settings, i: int, n: int, kind: str) -> Settings:
    """Nomic's encoders are gated where their activation is a GLU's (modeling_nomic_bert.py)."""
    named = settings.get("activation_function", settings.get("hidden_act", "swiglu"))
    return {**settings, "gated": "glu" in str(named) or named == "silu"}


# ---------------------------------------------------------------------------- Llama


def llama4_layer(settings: Settings, i: int, n: int, kind: str) -> Settings:
    """``intermediate_size`` is that of the experts and of the shared one, ``intermediate_size_mlp``
    that of the dense layers (modeling_llama4.py)."""
    width = number(settings, "intermediate_size")
    return {**settings, "moe_intermediate_size": width, "n_shared_experts": 1}


def ernie_vl_layer(settings: Settings, i: int, n: int, kind: str) -> Settings:
    """ERNIE 4.5 VL: experts for text and experts for images, in lists of two."""
    widths, counts = (
        numbers(settings, "moe_intermediate_size"),
        numbers(settings, "moe_num_experts"),
    )
    if len(widths) < 2:
        return settings
    # One width for all: as many experts of the text's width as hold both kinds' weights.
    text = (counts or [64])[0]
    vision = (counts or [64, 64])[-1]
    return {
        **settings,
        "moe_intermediate_size": (text * widths[0] + vision * widths[1]) // (text + vision),
        "moe_num_experts": text + vision,
        "shared_expert_intermediate_size": widths[0]
        * max(1, number(settings, "moe_num_shared_experts")),
    }


def mllama_layer(settings: Settings, i: int, n: int, kind: str) -> Settings:
    """Llama 3.2 Vision: some layers look at the image alone (modeling_mllama.py)."""
    crosses = i in numbers(settings, "cross_attention_layers")
    return {**settings, "mixer": "cross_attention" if crosses else "full_attention"}


def cross(settings: Settings) -> Mixer:
    """Attention to an image's or an encoder's states, which are no tokens of the context."""
    own = mixers.attention(settings)
    return Mixer(own.weights, own.small)


def nas_layer(settings: Settings, i: int, n: int, kind: str) -> Settings:
    """Nemotron NAS: a block of its own for every layer, in two notations (DeciLM's
    configuration_decilm.py; Nemotron-Ultra's ``block_configs``)."""
    blocks = settings.get("block_configs")
    if not isinstance(blocks, list) or len(blocks) < n:
        raise CannotTellError(tr("its config.json has no block_configs for each layer"))
    block: Mapping[str, Any] = blocks[i]
    attention, ffn = section(block, "attention"), section(block, "ffn")
    own: dict[str, Any] = {}
    if attention.get("no_op") or attention.get("replace_with_linear"):
        own["mixer"] = "linear" if attention.get("replace_with_linear") else "none"
    elif group := number(attention, "n_heads_in_group"):
        own["num_key_value_heads"] = setting(settings, "heads") // group
    elif kv := number(attention, "num_key_value_heads"):
        own["num_key_value_heads"] = kv
    if ffn.get("no_op"):
        own["feed_forward"] = "none"
    elif ffn.get("replace_with_linear"):
        own["feed_forward"] = "linear"
    else:
        width = number(ffn, "intermediate_size") or heterogeneous(ffn, need(settings, "hidden"))
        own["intermediate_size"] = width
    return {**settings, **own}


def deci_layer(settings: Settings, i: int, n: int, kind: str) -> Settings:
    """DeciLM 7B: key/value heads of every layer in a list."""
    heads = numbers(settings, "num_key_value_heads_per_layer")
    if len(heads) <= i:
        raise CannotTellError(tr("its config.json has no num_key_value_heads_per_layer"))
    return {**settings, "num_key_value_heads": heads[i]}


def openelm_layer(settings: Settings, i: int, n: int, kind: str) -> Settings:
    """OpenELM: heads in lists, widths as multiples of the hidden size (arXiv 2404.14619)."""
    factor = settings.get("ffn_multipliers")
    if not isinstance(factor, int | float):  # a list with a number for each layer is read by then
        raise CannotTellError(tr("its config.json has no ffn_multipliers for each layer"))
    divisor = max(1, number(settings, "ffn_dim_divisor", default=256))
    wanted = float(factor) * need(settings, "hidden")
    width = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
    return {**settings, "intermediate_size": width + (divisor if width < 0.9 * wanted else 0)}


# ---------------------------------------------------------------------------- Gemma


def _shares_cache(settings: Settings, i: int, n: int) -> bool:
    shared = number(settings, "num_kv_shared_layers")
    return bool(shared) and i >= n - shared


def gemma3n_layer(settings: Settings, i: int, n: int, kind: str) -> Settings:
    """The last layers read the cache of an earlier one, with projections that go unused."""
    own: dict[str, Any] = {"keeps_own_projections": True, "qk_norm": True}
    if _shares_cache(settings, i, n):
        own["shares_cache"] = 1
    return {**settings, **own}


def gemma3n_extra(settings: Settings) -> Weights:
    """Embeddings of every layer, AltUp's and LAuReL's projections (modeling_gemma3n.py)."""
    hidden, count = need(settings, "hidden"), need(settings, "layers")
    per_layer = number(settings, "hidden_size_per_layer_input")
    inputs = number(settings, "altup_num_inputs", default=4)
    rank = number(settings, "laurel_rank", default=64)
    layer = 2 * hidden * per_layer + 2 * hidden * rank + hidden * inputs
    altup = 2 * (inputs - 1) * hidden * hidden
    return Weights(
        embedding=number(settings, "vocab_size_per_layer_input") * count * per_layer,
        feed_forward=count * layer + altup + hidden * count * per_layer,
    )


def gemma4_layer(settings: Settings, i: int, n: int, kind: str) -> Settings:
    """Global layers have heads of their own width and number; the last layers read the cache of an
    earlier one and may be twice as wide (configuration_gemma4.py, modeling_gemma4.py)."""
    own: dict[str, Any] = {"attention_k_eq_v": False, "qk_norm": True}
    if kind == "full_attention" or i == n - 1:
        own["mixer"] = "full_attention"
        own["head_dim"] = number(settings, "global_head_dim", default=512)
        if settings.get("attention_k_eq_v"):
            own["attention_k_eq_v"] = True
            if kv := number(settings, "num_global_key_value_heads"):
                own["num_key_value_heads"] = kv
    if _shares_cache(settings, i, n):
        own["shares_cache"] = 1
        if settings.get("use_double_wide_mlp"):
            own["intermediate_size"] = 2 * need(settings, "inner")
    if settings.get("enable_moe_block"):
        own["dense_beside_experts"] = 1
    else:
        own["num_experts"] = 0
    return {**settings, **own}


def gemma4_extra(settings: Settings) -> Weights:
    """Embeddings of every layer (modeling_gemma4.py, ``embed_tokens_per_layer``)."""
    hidden, count = need(settings, "hidden"), need(settings, "layers")
    per_layer = number(settings, "hidden_size_per_layer_input")
    return Weights(
        embedding=number(settings, "vocab_size_per_layer_input") * count * per_layer,
        feed_forward=3 * hidden * per_layer * count,
    )


# ---------------------------------------------------------------------------- DeepSeek, LongCat

DEEPSEEK_V4_TYPES = (
    "sliding_attention",
    "compressed_sparse_attention",
    "heavily_compressed_attention",
)
_RATIOS = {
    0: DEEPSEEK_V4_TYPES[0],
    1: DEEPSEEK_V4_TYPES[0],
    4: DEEPSEEK_V4_TYPES[1],
    128: DEEPSEEK_V4_TYPES[2],
}


def deepseek_v4_pattern(settings: Settings, n: int) -> list[str] | None:
    """``layer_types``, or ``compress_ratios`` of every layer: 0, 4 or 128 tokens an entry; without
    either two heavily compressed layers, then both in turn (configuration_deepseek_v4.py)."""
    if (named := layers.layer_types(settings, n)) is not None:
        return named
    ratios = numbers(settings, "compress_ratios")[:n]
    if unknown := set(ratios) - set(_RATIOS):
        raise CannotTellError(tr("its compress_ratios have {unknown}", unknown=min(unknown)))
    if ratios:
        return [_RATIOS[ratio] for ratio in ratios]
    return [DEEPSEEK_V4_TYPES[1 if i >= 2 and i % 2 else 2] for i in range(n)]


def deepseek_v4_layer(settings: Settings, i: int, n: int, kind: str) -> Settings:
    rates = section(settings, "compress_rates")
    usual = {DEEPSEEK_V4_TYPES[0]: 0, DEEPSEEK_V4_TYPES[1]: 4, DEEPSEEK_V4_TYPES[2]: 128}
    ratio = number(rates, kind) or usual[kind]
    # The first layers choose experts by a table of token ids (hash_moe) instead of scores.
    return {**settings, "compress_ratio": ratio, "mlp_layer_types": None}


def longcat_layer(settings: Settings, i: int, n: int, kind: str) -> Settings:
    """Two dense parts beside the experts; experts that do nothing have no weights."""
    return {**settings, "dense_beside_experts": 2}


# ---------------------------------------------------------------------------- others


def mimo_layer(settings: Settings, i: int, n: int, kind: str) -> Settings:
    """MiMo-V2: windowed layers have key/value heads and widths of their own."""
    if kind != "sliding_attention":
        return settings
    names = {"num_key_value_heads": "swa_num_key_value_heads", "head_dim": "swa_head_dim",
             "v_head_dim": "swa_v_head_dim", "num_attention_heads": "swa_num_attention_heads"}  # fmt: skip
    own = {name: value for name, other in names.items() if (value := number(settings, other))}
    own.setdefault("num_key_value_heads", 2 * setting(settings, "kv_heads"))
    return {**settings, **own}


def step3(settings: Settings) -> Mixer:
    """Step 3's multi-matrix factorization attention: a low-rank query, one key/value head
    (arXiv 2507.19427; vllm/model_executor/models/step3_text.py)."""
    hidden, heads, width = need(settings, "hidden"), need(settings, "heads"), head_dim(settings)
    rank = number(settings, "share_q_dim") or hidden
    weights = hidden * rank + rank * heads * width + 2 * hidden * width + heads * width * hidden
    one = mixers.attention({**settings, "num_key_value_heads": 1, "num_attention_groups": 1})
    return replace(one, weights=weights)


def step3p5_layer(settings: Settings, i: int, n: int, kind: str) -> Settings:
    """Step 3.5: windowed layers have heads of their own (configuration_step3p7.py)."""
    other = section(settings, "attention_other_setting")
    own = {name: value for name, value in other.items() if isinstance(value, int)}
    return {**settings, **own} if kind == "sliding_attention" else settings


def minimax_m3_pattern(settings: Settings, n: int) -> list[str] | None:
    """``sparse_attention_freq``: 1 for layers with an indexer (configuration_minimax_m3_vl.py)."""
    named = layers.layer_types(settings, n)
    kinds = numbers(section(settings, "sparse_attention_config"), "sparse_attention_freq")
    if named is None and kinds and len(kinds) >= n:
        return ["minimax_m3_sparse" if kind else "full_attention" for kind in kinds[:n]]
    return named or ["full_attention"] * n


def chatglm_layer(settings: Settings, i: int, n: int, kind: str) -> Settings:
    """The first ChatGLM, with two matrices and biases everywhere (THUDM/chatglm-6b, modeling_chatglm.py)."""
    if "inner_hidden_size" not in settings:
        return settings
    return {**settings, "gated": False, "attention_bias": True, "mlp_bias": True}


def arctic_layer(settings: Settings, i: int, n: int, kind: str) -> Settings:
    """Beside the experts a dense part as wide as the hidden size (modeling_arctic.py)."""
    if not settings.get("parallel_attn_mlp_res"):
        return settings
    return {**settings, "shared_intermediate_size": need(settings, "hidden")}


def hunyuan_layer(settings: Settings, i: int, n: int, kind: str) -> Settings:
    """Hunyuan-Large: with cross-layer attention only the first of so many layers keeps keys and
    values (arXiv 2411.02265)."""
    factor = number(settings, "cla_share_factor", default=2) if settings.get("use_cla") else 1
    own = {"head_dim": number(settings, "attention_head_dim") or head_dim(settings)}
    if i % max(1, factor):
        own["shares_cache"] = own["keeps_own_projections"] = 1
    return {**settings, **own}


def phi3_vision(settings: Settings) -> Weights:
    """CLIP ViT-L/14 of 336 pixels, which its code names and its config does not describe."""
    clip = {"hidden_size": 1024, "num_hidden_layers": 24, "image_size": 336, "patch_size": 14}
    hidden = need(settings, "hidden")
    return Weights(vision=towers.vit(clip) + 4 * 1024 * hidden + hidden * hidden)


def phi4_multimodal(settings: Settings) -> Weights:
    """SigLIP, a conformer and two LoRA adapters, which its config describes in part: of the release's
    5.574 billion parameters 3.836 are the language model's."""
    return Weights(vision=870_000_000, audio=868_000_000)


def qwen1_layer(settings: Settings, i: int, n: int, kind: str) -> Settings:
    """Qwen 1: ``intermediate_size`` counts gate and up together; only the query, key and value
    projections have biases."""
    return {**settings, "intermediate_size": need(settings, "inner") // 2, "qkv_bias": True}


def laguna_layer(settings: Settings, i: int, n: int, kind: str) -> Settings:
    """Query heads may differ by layer (configuration_laguna.py)."""
    heads = numbers(settings, "num_attention_heads_per_layer")
    return {**settings, "num_attention_heads": heads[i]} if len(heads) > i else settings


def first_of_four(settings: Settings, n: int) -> list[str]:
    """Every fourth layer, beginning with the first, sees all tokens (configuration_cwm.py)."""
    named = layers.layer_types(settings, n)
    return named or ["sliding_attention" if i % 4 else "full_attention" for i in range(n)]


def full_unless_listed(settings: Settings, n: int) -> list[str]:
    return layers.layer_types(settings, n) or ["full_attention"] * n


def shared_indexer(settings: Settings, i: int, n: int, kind: str) -> Settings:
    """GLM 5.2: layers whose ``indexer_types`` is shared use the choice of an earlier layer's indexer
    and have none of their own (modeling_glm_moe_dsa.py)."""
    types = settings.get("indexer_types")
    shared = isinstance(types, list) and len(types) > i and types[i] == "shared"
    return {**settings, "indexer_left_out": True} if shared else settings


def molmo_layer(settings: Settings, i: int, n: int, kind: str) -> Settings:
    """Molmo: ``intermediate_size`` counts gate and up together."""
    return {**settings, "intermediate_size": need(settings, "inner") // 2}


def molmo_extra(settings: Settings) -> Weights:
    """What Molmo's config does not describe: 128 more embeddings, CLIP ViT-L/14 of 336 pixels with 23
    layers, a pooling attention over two of them, and a gated projector
    (vllm/model_executor/models/molmo.py)."""
    clip = {"hidden_size": 1024, "num_hidden_layers": 23, "image_size": 336, "patch_size": 14}
    hidden, inner = need(settings, "hidden"), need(settings, "inner") // 2
    pooling = 3 * 2048 * 1024 + 1024 * 1024
    projector = 2 * 1024 * inner + inner * hidden
    return Weights(embedding=128 * hidden, vision=towers.vit(clip) + pooling + projector)
