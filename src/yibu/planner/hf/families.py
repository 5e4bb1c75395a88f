"""The rule of each model type: a registry of data. Other types are not known.

``transformers`` as a source means the type's own modeling file there, models/TYPE/modeling_TYPE.py,
with whose count on torch's meta device scripts/transformers_counts.py compares these rules; types
that only have code beside their weights name the public repository.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from yibu.planner.hf import hybrids, layers, mixers, special
from yibu.planner.hf.mixers import MixerRule
from yibu.planner.hf.settings import Settings
from yibu.planner.hf.weights import Weights

TRANSFORMERS = "transformers"


@dataclass(frozen=True, slots=True)
class DecoderFamily:
    """How a decoder's layers are made."""

    source: str = TRANSFORMERS
    sets: Mapping[str, Any] = field(default_factory=dict)
    """Settings of its classes that config.json does not have."""
    leaves_out: Mapping[str, Any] = field(default_factory=dict)
    """Settings that its configs leave to code beside the weights."""
    mixers: Mapping[str, MixerRule] = field(default_factory=dict)
    """By layer type, beyond ``mixers.USUAL``."""
    pattern: Callable[[Settings, int], list[str] | None] = layers.usual
    layer: Callable[[Settings, int, int, str], Settings] | None = None
    """Settings of one layer, where they differ from the model's."""
    beside: Callable[[Settings], Weights] | None = None
    """Weights outside the layers, besides embeddings, head and the last norm."""
    norms: int = 2
    """Norms of a layer as wide as the hidden size."""
    encoder: bool = False
    """Whether it reads a text at once and keeps no cache."""


def _same(family: DecoderFamily, names: str) -> dict[str, DecoderFamily]:
    return dict.fromkeys(names.split(), family)


PLAIN = DecoderFamily()
_BIASED = DecoderFamily(sets={"qkv_bias": True})
_NORMED = DecoderFamily(sets={"qk_norm": True})
_UNGATED = DecoderFamily(sets={"gated": False})
_OLD_GPT = DecoderFamily(sets={"gated": False, "attention_bias": True, "mlp_bias": True})
_LATENT = DecoderFamily(mixers={"full_attention": mixers.latent})
_REMOTE = "code beside the weights, "

_DENSE: Mapping[str, DecoderFamily] = {
    **_same(
        PLAIN,
        "llama mistral ministral ministral3 mixtral gemma phi3 phimoe olmo glm granite granitemoe"
        " granitemoeshared smollm3 seed_oss ernie4_5 ernie4_5_moe cohere2 stablelm helium"
        " diffllama bitnet aria_text paddleocr_vl_text iquestcoder hyperclovax exaone granite_docling_text molmo2_text"
        " cohere2_moe glm_image_text internlm3 sarvam_moe kolibri1 flint dbrx",
    ),
    **_same(
        _BIASED,
        "qwen2 qwen2_moe qwen2_vl_text qwen2_5_vl_text qwen2_5_omni_text qwen2_audio_text",
    ),
    **_same(
        _NORMED,
        "qwen3 qwen3_asr_text qwen3_moe qwen3_vl_text qwen3_vl_moe_text qwen3_omni_moe_text qwen3_omni_moe_thinker"
        " olmo2 olmo3 olmoe flex_olmo exaone4 exaone_moe hunyuan_v1_dense hunyuan_v1_moe glm4_moe"
        " dots1 minimax_m2 solar_open afmoe hy_v3 glm4v_moe_text",
    ),
    **_same(_UNGATED, "arcee nemotron nanochat jais2 apertus1p5_text cosmos3_edge_text"),
    **_same(replace(PLAIN, norms=4), "gemma2 glm4 glm4v_text glm_ocr_text vaultgemma"),
    **_same(DecoderFamily(pattern=special.first_of_four), "cwm granite_swa granitemoe_swa"),
    "laguna": DecoderFamily(
        pattern=special.full_unless_listed, layer=special.laguna_layer, sets={"qk_norm": True}
    ),
    "mellum": DecoderFamily(pattern=special.full_unless_listed),
    "gemma3_text": replace(_NORMED, norms=4),
    "cohere": replace(PLAIN, norms=1),
    "apertus": DecoderFamily(sets={"gated": False, "qk_norm": True}),
    "gpt_oss": DecoderFamily(sets={"expert_biases": True}),
    "llama4_text": DecoderFamily(
        pattern=layers.llama4,
        sets={"shared_experts_as": 1},
        layer=special.llama4_layer,
    ),
    "ernie4_5_vl_moe_text": DecoderFamily(layer=special.ernie_vl_layer),
    "mllama_text_model": DecoderFamily(
        layer=special.mllama_layer, mixers={"cross_attention": special.cross}
    ),
    "gemma3n_text": DecoderFamily(
        layer=special.gemma3n_layer, beside=special.gemma3n_extra, norms=4
    ),
    "gemma4_text": DecoderFamily(layer=special.gemma4_layer, beside=special.gemma4_extra, norms=4),
    "mimo_v2_flash": DecoderFamily(layer=special.mimo_layer),
    "step3p5": DecoderFamily(pattern=special.full_unless_listed, layer=special.step3p5_layer),
    "minimax_m3_vl_text": DecoderFamily(
        pattern=special.minimax_m3_pattern,
        mixers={"minimax_m3_sparse": mixers.indexed},
        sets={"qk_norm": True},
    ),
    "step3_text": DecoderFamily(
        source=_REMOTE + "stepfun-ai/step3", mixers={"full_attention": special.step3}
    ),
}

_GPT: Mapping[str, DecoderFamily] = {
    **_same(
        _OLD_GPT,
        "gpt_neox gptj codegen bloom falcon mpt phi persimmon gpt_neox_japanese xglm starcoder2",
    ),
    **_same(
        replace(_OLD_GPT, beside=special.learned_positions),
        "gpt2 gpt_neo opt gpt_bigcode biogpt openai-gpt",
    ),
}

_LATENT_ATTENTION: Mapping[str, DecoderFamily] = {
    **_same(
        _LATENT,
        "deepseek_v2 deepseek_v3 glm4_moe_lite minicpm3 youtu kimi_k2 mistral4 axk1 sarvam_mla",
    ),
    **_same(
        DecoderFamily(
            mixers=dict.fromkeys(
                ("full_attention", "indexed_attention", "deepseek_sparse_attention"), mixers.latent
            ),
            layer=special.shared_indexer,
        ),
        "deepseek_v32 glm_moe_dsa mistral_large4_text axk2 hy_v4 hy_v4_vl_text",
    ),
    "longcat_flash": DecoderFamily(
        mixers={"full_attention": mixers.double_latent}, layer=special.longcat_layer, norms=4
    ),
    "deepseek_v4": DecoderFamily(
        pattern=special.deepseek_v4_pattern,
        mixers=dict.fromkeys(special.DEEPSEEK_V4_TYPES, mixers.compressed),
        layer=special.deepseek_v4_layer,
    ),
}

_LINEAR: Mapping[str, DecoderFamily] = {
    **_same(
        DecoderFamily(mixers={"linear_attention": mixers.gated_delta}, sets={"attn_output_gate": True}),
        "qwen3_next qwen3_5_text qwen3_5_moe_text",
    ),
    "kimi_linear": DecoderFamily(
        mixers={"full_attention": mixers.latent, "linear_attention": mixers.kimi_delta}
    ),
    "minimax": DecoderFamily(
        mixers={"linear_attention": mixers.lightning}, pattern=hybrids.minimax_pattern
    ),
    **_same(
        DecoderFamily(mixers={"conv": mixers.short_convolution}, layer=hybrids.lfm2_layer), "lfm2 lfm2_moe lfm3"
    ),
    "olmo_hybrid": DecoderFamily(mixers={"linear_attention": mixers.gated_delta}, layer=hybrids.olmo_hybrid_layer),
    "bailing_hybrid": DecoderFamily(
        mixers={"full_attention": mixers.latent, "linear_attention": hybrids.bailing_delta}
    ),
    "jamba": DecoderFamily(mixers={"mamba": mixers.mamba}),
    "bamba": DecoderFamily(mixers={"mamba": mixers.mamba2}, pattern=hybrids.bamba_pattern),
    "granitemoehybrid": DecoderFamily(
        mixers={"mamba": mixers.mamba2, "linear_attention": mixers.mamba2},
        pattern=hybrids.granite_hybrid_pattern,
        layer=hybrids.granite_hybrid_layer,
    ),
    "zamba2": DecoderFamily(
        pattern=hybrids.zamba_pattern, mixers=hybrids.zamba_mixers(mixers.mamba2, adapters=True),
        norms=1, layer=special.without_feed_forward, beside=hybrids.zamba_extra,
    ),
    "zamba": DecoderFamily(
        pattern=hybrids.zamba1_pattern, mixers=hybrids.zamba_mixers(mixers.mamba, adapters=False),
        norms=1, layer=special.without_feed_forward, beside=hybrids.zamba_extra,
    ),
    "xlstm": DecoderFamily(
        pattern=special.every("xlstm"), mixers={"xlstm": hybrids.xlstm}, layer=hybrids.xlstm_layer
    ),
    "mamba": DecoderFamily(pattern=special.every("mamba"), mixers={"mamba": mixers.mamba}, norms=1,
                    layer=hybrids.mamba_layer),
    "falcon_mamba": DecoderFamily(pattern=special.every("mamba"), mixers={"mamba": mixers.mamba}, norms=1,
                           layer=hybrids.mamba_layer),
    "mamba2": DecoderFamily(pattern=special.every("mamba"), mixers={"mamba": mixers.mamba2}, norms=1,
                     layer=special.without_feed_forward),
    "falcon_h1": DecoderFamily(
        pattern=special.every("hybrid"), mixers={"hybrid": mixers.mamba_and_attention}
    ),
    "nemotron_h": DecoderFamily(
        pattern=hybrids.nemotron_h_pattern,
        mixers={"mamba": mixers.mamba2, "mamba2": mixers.mamba2, "moe": mixers.nothing, "mlp": mixers.nothing},
        layer=hybrids.nemotron_h_layer,
        sets={"gated": False},
        norms=1,
    ),
    "rwkv": DecoderFamily(
        pattern=special.every("rwkv"),
        mixers={"rwkv": hybrids.rwkv},
        sets={"gated": False},
        norms=4,
    ),
    "recurrent_gemma": DecoderFamily(
        mixers={"recurrent": mixers.recurrent, "attention": mixers.windowed},
        layer=hybrids.recurrent_gemma_layer,
    ),
}  # fmt: skip

_UNTIED = {"tie_word_embeddings": False}


def _remote(repository: str, **more: Any) -> DecoderFamily:
    return DecoderFamily(source=_REMOTE + repository, leaves_out=_UNTIED, **more)


_LIGHTNING = {"linear_attention": mixers.lightning}
_BESIDE_WEIGHTS: Mapping[str, DecoderFamily] = {
    "chatglm": _remote("THUDM/glm-4-9b", layer=special.chatglm_layer),
    "phi3small": DecoderFamily(
        source=_REMOTE + "microsoft/Phi-3-small-8k-instruct", sets={"qkv_bias": True}
    ),
    "telechat": _remote("Tele-AI/TeleChat2-7B"),
    "arctic": _remote("Snowflake/snowflake-arctic-instruct", layer=special.arctic_layer),
    "baichuan": _remote("baichuan-inc/Baichuan2-7B-Chat"),
    "internlm": _remote("internlm/internlm-7b"),
    "internlm2": _remote("internlm/internlm2-7b"),
    "orion": _remote("OrionStarAI/Orion-14B-Base"),
    "xverse": _remote("xverse/XVERSE-13B"),
    "Yi": _remote("01-ai/Yi-34B"),
    "stablelm_epoch": _remote("stabilityai/stablelm-3b-4e1t"),
    "solar": _remote("upstage/solar-pro-preview-instruct"),
    "minicpm": DecoderFamily(source=_REMOTE + "openbmb/MiniCPM-2B-sft-bf16"),
    "minicpmv": _remote("openbmb/MiniCPM-V-2_6"),
    "minicpmo": _remote("openbmb/MiniCPM-o-2_6"),
    "PanguEmbedded": _remote("FreedomIntelligence/openPangu-Embedded-7B"),
    "molmo": _remote(
        "allenai/Molmo-7B-D-0924", layer=special.molmo_layer, beside=special.molmo_extra
    ),
    "deepseek": _remote("deepseek-ai/deepseek-moe-16b-base"),
    "bailing_moe": _remote("inclusionAI/Ling-mini-2.0"),
    "bailing_moe_v2": _remote("inclusionAI/Ling-mini-2.0"),
    "mimo": _remote("XiaomiMiMo/MiMo-7B-RL"),
    "bailing_moe_linear": _remote("inclusionAI/Ring-mini-linear-2.0", mixers=_LIGHTNING),
    "hunyuan": _remote("tencent/Tencent-Hunyuan-Large", layer=special.hunyuan_layer),
    "grok-1": DecoderFamily(source=_REMOTE + "hpcai-tech/grok-1"),
    "ernie4_5_moe_vl": DecoderFamily(
        source=_REMOTE + "baidu/ERNIE-4.5-VL-28B-A3B-PT", layer=special.ernie_vl_layer
    ),
    "qwen": _remote("Qwen/Qwen-7B", layer=special.qwen1_layer),
    "nemotron-nas": _remote("nvidia/Llama-3_1-Nemotron-51B-Instruct", layer=special.nas_layer),
    "deci": _remote("Deci/DeciLM-7B", layer=special.deci_layer),
    "openelm": DecoderFamily(source=_REMOTE + "apple/OpenELM-3B", layer=special.openelm_layer),
    "minimax_text_01": _remote("MiniMaxAI/MiniMax-Text-01", mixers=_LIGHTNING),
    "minimax_m1": _remote("MiniMaxAI/MiniMax-M1-80k", mixers=_LIGHTNING),
    "phi3_v": _remote("microsoft/Phi-3.5-vision-instruct", beside=special.phi3_vision),
    "phi4mm": DecoderFamily(
        source=_REMOTE + "microsoft/Phi-4-multimodal-instruct", beside=special.phi4_multimodal
    ),
    "qwen3_omni_moe_talker_text": _NORMED,
}

_BERT = replace(_OLD_GPT, beside=special.bert_tables, encoder=True)
_ENCODERS: Mapping[str, DecoderFamily] = {
    **_same(
        _BERT,
        "bert roberta xlm-roberta camembert mpnet ernie data2vec-text roberta-prelayernorm splinter"
        " megatron-bert xlm-roberta-xl deberta deberta-v2 distilbert bert-generation dpr nystromformer"
        " electra roformer ibert",
    ),
    **_same(replace(PLAIN, encoder=True), "modernbert gte eurobert"),
    "nomic_bert": DecoderFamily(layer=special.nomic_layer, encoder=True),
    "new": DecoderFamily(source=_REMOTE + "Alibaba-NLP/gte-base-en-v1.5", encoder=True),
}

_PATTERNS: Mapping[str, Mapping[str, Any]] = {
    name: {key: value}
    for key, value, names in (
        ("sliding_window_pattern", 2, "gemma2 gpt_oss vaultgemma"),
        ("sliding_window_pattern", 4, "cohere2 olmo3 exaone4"),
        ("sliding_window_pattern", 5, "gemma3n_text kolibri1"),
        ("sliding_window_pattern", 6, "gemma3_text gemma4_text"),
        ("full_attention_interval", 4, "qwen3_next qwen3_5_text qwen3_5_moe_text olmo_hybrid"),
        ("first_k_dense_replace", 1, "glm4_moe_lite axk1 axk2 hy_v3 hy_v4 hy_v4_vl_text laguna"),
    )
    for name in names.split()
}
"""What the classes of these types do where config.json has no list of layer types."""
_NEEDS_A_LIST = frozenset({"flint", "lfm3", "kimi_linear", "mimo_v2_flash"})
"""Types whose layers follow no rule that config.json could leave out."""

_KNOWN: Mapping[str, DecoderFamily] = {
    **_ENCODERS,
    **_DENSE,
    **_GPT,
    **_LATENT_ATTENTION,
    **_LINEAR,
    **_BESIDE_WEIGHTS,
}

FAMILIES: Mapping[str, DecoderFamily] = {
    name: replace(
        family,
        leaves_out={**_PATTERNS.get(name, {}), **family.leaves_out},
        pattern=layers.listed if name in _NEEDS_A_LIST else family.pattern,
    )
    for name, family in _KNOWN.items()
}
"""Families by ``model_type``."""
