"""Parts between a tower and its language model, by the whole model's type; sizes are elements."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from yibu.planner.hf.settings import Settings, number, section, setting
from yibu.planner.hf.towers import inner_width, width


def _linear(tower: Settings, text: Settings, whole: Settings) -> int:
    return width(tower) * setting(text, "hidden")


def _two_layers(tower: Settings, text: Settings, whole: Settings) -> int:
    hidden = setting(text, "hidden")
    chosen = whole.get("vision_feature_layer")
    features = len(chosen) if isinstance(chosen, list) else 1
    return features * width(tower) * hidden + hidden * hidden


def _shuffled(tower: Settings, text: Settings, whole: Settings) -> int:
    """Neighbouring patches side by side, then one matrix (Idefics 3)."""
    scale = number(whole, "scale_factor", default=2)
    return scale * scale * width(tower) * setting(text, "hidden")


def _shuffled_twice(tower: Settings, text: Settings, whole: Settings) -> int:
    """… and then two (InternVL, ``mlp1``)."""
    hidden = setting(text, "hidden")
    return 4 * width(tower) * hidden + hidden * hidden


def _merged(tower: Settings, text: Settings, whole: Settings) -> int:
    """Four patches through a matrix of their width (Kimi-VL, PaddleOCR-VL)."""
    wide = 4 * width(tower)
    return wide * wide + wide * setting(text, "hidden")


def _mistral3(tower: Settings, text: Settings, whole: Settings) -> int:
    merge = number(whole, "spatial_merge_size", default=2)
    return merge * merge * width(tower) ** 2 + _two_layers(tower, text, whole)


def _cohere(tower: Settings, text: Settings, whole: Settings) -> int:
    factor = number(whole, "downsample_factor", default=2)
    wide = number(whole, "alignment_intermediate_size", default=36_864)
    return factor * factor * width(tower) * wide + wide // 2 * setting(text, "hidden")


def _lfm2(tower: Settings, text: Settings, whole: Settings) -> int:
    factor = number(whole, "downsample_factor", default=2)
    inner = number(whole, "projector_hidden_size", default=2560)
    return factor * factor * width(tower) * inner + inner * setting(text, "hidden")


def _voxtral(tower: Settings, text: Settings, whole: Settings) -> int:
    hidden = setting(text, "hidden")
    return inner_width(tower) * hidden + hidden * hidden


def _idefics2(tower: Settings, text: Settings, whole: Settings) -> int:
    """A gated projection, and a perceiver of three layers four hidden sizes wide."""
    hidden, inner = setting(text, "hidden"), setting(text, "inner")
    perceiver = section(whole, "perceiver_config")
    layers = number(perceiver, "resampler_depth", default=3)
    heads = number(perceiver, "resampler_n_heads", default=16) * number(
        perceiver, "resampler_head_dim", default=96
    )
    kv = number(perceiver, "num_key_value_heads", default=4) * number(
        perceiver, "resampler_head_dim", default=96
    )
    layer = 2 * hidden * (heads + kv) + 12 * hidden * hidden
    return 2 * width(tower) * inner + inner * hidden + layers * layer


def _resampler(tower: Settings, text: Settings, whole: Settings) -> int:
    """MiniCPM-V: learned queries, one cross-attention, a projection (openbmb/MiniCPM-V-2_6)."""
    hidden = setting(text, "hidden")
    return width(tower) * hidden + 5 * hidden * hidden


def _step3(tower: Settings, text: Settings, whole: Settings) -> int:
    """Two convolutions that halve the grid and double the width, and a matrix (stepfun-ai/step3)."""
    v = width(tower)
    return 9 * (v * 2 * v + 2 * v * 4 * v) + 4 * v * setting(text, "hidden")


def _ernie_vl(tower: Settings, text: Settings, whole: Settings) -> int:
    """Four patches through two matrices in space and four in time (baidu/ERNIE-4.5-VL)."""
    wide = 4 * width(tower)
    return wide * wide * 2 + 2 * wide * wide + wide * wide + wide * setting(text, "hidden")


def _aria(tower: Settings, text: Settings, whole: Settings) -> int:
    """A cross-attention with two sets of projections, and two layers (modeling_aria.py)."""
    v, hidden = width(tower), setting(text, "hidden")
    return 8 * v * v + v * hidden + hidden * hidden


def _minimax_m3(tower: Settings, text: Settings, whole: Settings) -> int:
    """Two layers, four patches side by side, and two more (modeling_minimax_m3_vl.py)."""
    inner = number(whole, "projector_hidden_size") or setting(text, "hidden")
    hidden = setting(text, "hidden")
    return width(tower) * inner + inner * hidden + 4 * hidden * inner + inner * hidden


def _none(tower: Settings, text: Settings, whole: Settings) -> int:
    """Nothing: the tower's own rule includes its merger."""
    return 0


def _qformer(tower: Settings, text: Settings, whole: Settings) -> int:
    """Granite Speech: a Q-Former whose every ``cross_attention_frequency``-th layer looks at sound."""
    former = section(whole, "projector_config") or section(whole, "qformer_config")
    hidden = number(former, "hidden_size", default=768)
    layers = number(former, "num_hidden_layers", default=12)
    every = number(former, "cross_attention_frequency", default=2)
    inner = number(former, "intermediate_size", default=3072)
    source = number(former, "encoder_hidden_size", default=1408)
    crossing = layers // max(1, every) * (2 * hidden * hidden + 2 * hidden * source)
    own = layers * (4 * hidden * hidden + 2 * hidden * inner)
    return own + crossing + hidden * setting(text, "hidden")


def _blip2(tower: Settings, text: Settings, whole: Settings) -> int:
    """BLIP-2 (arXiv 2301.12597): a Q-Former with learned queries."""
    former = section(whole, "qformer_config")
    queries = number(whole, "num_query_tokens", default=32)
    return _qformer(tower, text, whole) + queries * number(former, "hidden_size", default=768)


def _deepseek_vl2(tower: Settings, text: Settings, whole: Settings) -> int:
    """DeepSeek-VL2 shuffles patches; DeepSeek-OCR has one matrix."""
    projector = section(whole, "projector_config")
    if projector.get("projector_type") == "linear":
        return number(projector, "input_dim") * number(projector, "n_embed")
    return _shuffled_twice(tower, text, whole)


def _ovis(tower: Settings, text: Settings, whole: Settings) -> int:
    """A table of embeddings of visual tokens."""
    return number(tower, "vocab_size", default=16_384) * setting(text, "hidden")


def _minicpmo(tower: Settings, text: Settings, whole: Settings) -> int:
    return (_two_layers if "encoder_layers" in tower else _resampler)(tower, text, whole)


def _minicpmv46(tower: Settings, text: Settings, whole: Settings) -> int:
    """A window attention that merges four patches within the tower, and two matrices that merge four
    after it (modeling_minicpmv4_6.py)."""
    v = width(tower)
    within = 4 * v * v + 4 * inner_width(tower) * 5 * v
    return within + 16 * v * v + 4 * v * setting(text, "hidden")


_Joint = Callable[[Settings, Settings, Settings], int]
_TYPES: Mapping[_Joint, str] = {
    _two_layers: (
        "llava llava_next llava_next_video llava_onevision vipllava deepseek_vl audioflamingo3 "
        "musicflamingo"
    ),
    _linear: (
        "gemma3 gemma3n gemma4 paligemma colpali shieldgemma2 qwen2_audio qwen2_5_omni mllama llama4"
    ),
    _shuffled: "idefics3 smolvlm",
    _shuffled_twice: "internvl internvl_chat qianfan_ocr interns1 skywork_chat",
    _merged: "kimi_k25 kimi_vl paddleocr_vl",
    _mistral3: "mistral3 mistral4 mistral_large4 lighton_ocr",
    _cohere: "cohere2_vision aya_vision",
    _lfm2: "lfm2_vl",
    _voxtral: "voxtral glmasr",
    _idefics2: "idefics2",
    _aria: "aria",
    _minimax_m3: "minimax_m3_vl",
    _step3: "step3p7 step3_vl",
    _deepseek_vl2: "deepseek_vl_v2 deepseekocr DeepseekOCR",
    _blip2: "blip-2",
    _ovis: "ovis",
    _minicpmv46: "minicpmv4_6",
    _ernie_vl: "ernie4_5_moe_vl",
    _resampler: "minicpmv",
    _minicpmo: "minicpmo",
    _qformer: "granite_speech granite_speech_plus",
    _none: (
        "qwen2_vl qwen2_5_vl qwen3_vl qwen3_vl_moe qwen3_5 qwen3_5_moe glm4v glm4v_moe glm46v glmga "
        "glm_ocr colqwen2 qwen3_omni_moe qwen3_omni_moe_thinker qwen2_5_omni_thinker qwen3_asr "
        "chatglm exaone4_5 cosmos3_omni"
    ),
}
JOINTS: Mapping[str, _Joint] = {
    name: rule for rule, names in _TYPES.items() for name in names.split()
}
"""By the whole model's type."""
