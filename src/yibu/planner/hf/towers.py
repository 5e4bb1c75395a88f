"""The parts beside a language model: towers for images and sound, and what joins them to it.

A tower is known by the ``model_type`` of its config, a joint by that of the whole; sizes are
elements. Sources: transformers' modeling file of the type, or the public repository named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from yibu.planner.hf.settings import (
    CannotTellError,
    Settings,
    class_defaults,
    number,
    numbers,
    section,
    setting,
    with_defaults,
)
from yibu.planner.hf.weights import Weights

_WIDTHS = ("embed_dim", "hidden_size", "d_model", "width", "encoder_hidden_size", "hidden_dim")
_DEPTHS = ("depth", "num_hidden_layers", "encoder_layers", "num_layers", "layers")


def width(tower: Settings) -> int:
    found = number(tower, *_WIDTHS)
    if not found:
        raise CannotTellError("the config of its tower has no hidden_size")
    return found


def depth(tower: Settings) -> int:
    found = number(tower, *_DEPTHS)
    if not found:
        raise CannotTellError("the config of its tower has no num_hidden_layers")
    return found


def _inner(tower: Settings) -> int:
    stated = number(tower, "intermediate_size", "encoder_ffn_dim", "mlp_dim", "d_ff")
    ratio = tower.get("mlp_ratio", 4)
    return stated or int(width(tower) * (ratio if isinstance(ratio, int | float) else 4))


def _side(tower: Settings, name: str) -> int:
    """One side, of what may be stated as a pair or by name."""
    stated = tower.get(name)
    if isinstance(stated, Mapping):
        return max((side for side in stated.values() if isinstance(side, int)), default=0)
    sides = numbers(tower, name)
    return sides[0] if sides else number(tower, name)


# ---------------------------------------------------------------------------- images


def vit(tower: Settings, matrices: int = 2, inner: int = 0) -> int:
    """A vision transformer (arXiv 2010.11929): patches, positions, layers; SigLIP's pooling head
    where the config has one."""
    hidden, inner = width(tower), inner or _inner(tower)
    patch = _side(tower, "patch_size")
    channels = number(tower, "num_channels", "in_channels", "in_chans", default=3)
    frames = number(tower, "temporal_patch_size", default=1)
    total = hidden * channels * patch * patch * frames
    positions = number(tower, "num_position_embeddings", "num_patches")
    if not positions and patch and "temporal_patch_size" not in tower:
        positions = (_side(tower, "image_size") // patch) ** 2
    total += positions * hidden
    total += depth(tower) * (4 * hidden * hidden + matrices * hidden * inner + 9 * hidden + inner)
    if tower.get("vision_use_head") is True:
        total += 4 * hidden * hidden + 2 * hidden * inner
    return total


def gated_vit(tower: Settings) -> int:
    """With gate, up and down, and rotary positions (Pixtral, Qwen2.5-VL)."""
    return vit({**tower, "image_size": 0}, 3)


def glm4v_tower(tower: Settings) -> int:
    """``intermediate_size`` is the merger's; the layers' is ``out_hidden_size``."""
    inner = number(tower, "out_hidden_size")
    grid = (_side(tower, "image_size") // max(1, _side(tower, "patch_size"))) ** 2
    merger = inner * inner + 3 * inner * number(tower, "intermediate_size")
    down = 4 * width(tower) * inner
    return vit(tower, 3, inner) + grid * width(tower) + merger + down


def glm_ocr_tower(tower: Settings) -> int:
    out = number(tower, "out_hidden_size")
    wide = out * number(tower, "in_channels", default=3)
    return vit(tower, 3) + out * out + 3 * out * wide + 4 * width(tower) * out


def qwen2_vl_tower(tower: Settings) -> int:
    """``embed_dim`` is the width, ``hidden_size`` the language model's."""
    merged = 4 * number(tower, "embed_dim", default=1280)
    return vit(tower) + merged * merged + merged * number(tower, "hidden_size")


def qwen25_vl_tower(tower: Settings) -> int:
    merged = number(tower, "spatial_merge_size", default=2) ** 2 * width(tower)
    return gated_vit(tower) + merged * merged + merged * number(tower, "out_hidden_size")


def exaone_tower(tower: Settings) -> int:
    """Qwen2.5-VL's with fewer key/value heads (modeling_exaone4_5.py)."""
    heads = number(tower, "num_heads")
    shared = heads - (number(tower, "num_key_value_heads") or heads)
    saved = 2 * width(tower) * shared * (width(tower) // max(1, heads))
    return qwen25_vl_tower(tower) - depth(tower) * saved


def qwen3_vl_tower(tower: Settings) -> int:
    """One merger, and one for each layer whose features go deep into the language model."""
    merged = number(tower, "spatial_merge_size", default=2) ** 2 * width(tower)
    mergers = 1 + len(numbers(tower, "deepstack_visual_indexes"))
    return vit(tower) + mergers * (merged * merged + merged * number(tower, "out_hidden_size"))


def moonvit(tower: Settings) -> int:
    """Kimi-VL's (arXiv 2504.07491): a table of 64 × 64 positions."""
    table = number(tower, "pos_emb_height", "init_pos_emb_height", default=64) ** 2
    return vit({**tower, "image_size": 0}) + table * width(tower)


def llama4_tower(tower: Settings) -> int:
    """Two more matrices shuffle pixels into ``projector_output_dim`` (modeling_llama4.py)."""
    shuffled = number(tower, "intermediate_size") * number(tower, "projector_input_dim")
    return (
        vit(tower)
        + shuffled
        + number(tower, "projector_input_dim") * number(tower, "projector_output_dim")
    )


def mllama_tower(tower: Settings) -> int:
    """Local and global layers, and tables of positions by aspect ratio (modeling_mllama.py)."""
    hidden = width(tower)
    layers = depth(tower) + number(tower, "num_global_layers")
    patches = (_side(tower, "image_size") // _side(tower, "patch_size")) ** 2 + 1
    ratios = number(tower, "max_aspect_ratio_id", default=8) + 1
    tiles = number(tower, "max_num_tiles", default=4)
    tables = ratios * tiles * hidden * (patches + 2)
    return vit({**tower, "num_hidden_layers": layers}) + tables


def gemma4_tower(tower: Settings) -> int:
    table = 2 * number(tower, "position_embedding_size", default=10_240) * width(tower)
    heads, kv = number(tower, "num_attention_heads"), number(tower, "num_key_value_heads")
    grouped = 2 * width(tower) * (heads - kv) * number(tower, "head_dim")
    return vit({**tower, "image_size": 0}, 3) + table - depth(tower) * grouped


def mobilenet(tower: Settings) -> int:
    """Gemma 3n's MobileNetV5 of 300 million parameters, a convolutional net of one size
    (timm, mobilenetv5_300m_enc)."""
    return 300_000_000


def eva(tower: Settings) -> int:
    """GLM-4V-9B's EVA tower with a gated adapter (THUDM/glm-4v-9b, visual.py)."""
    return vit(tower) + 3 * 4096 * 13696


def deepseek_vl2_tower(tower: Settings) -> int:
    return vit({"num_hidden_layers": number(tower, "layers"), "vision_use_head": True, **tower})


# ---------------------------------------------------------------------------- sound


def whisper_encoder(tower: Settings) -> int:
    """Whisper's encoder (arXiv 2212.04356): two convolutions, positions, layers."""
    hidden, bins = width(tower), number(tower, "num_mel_bins", default=128)
    positions = number(tower, "max_source_positions", default=1500)
    layers = depth(tower) * (4 * hidden * hidden + 2 * hidden * _inner(tower))
    return 3 * hidden * (bins + hidden) + positions * hidden + layers


def qwen3_audio(tower: Settings) -> int:
    """Three two-dimensional convolutions before, two projections after (modeling_qwen3_omni_moe.py)."""
    hidden, wide = width(tower), number(tower, "downsample_hidden_size", default=480)
    bins = math.ceil(number(tower, "num_mel_bins", default=128) / 8)
    layers = depth(tower) * (4 * hidden * hidden + 2 * hidden * _inner(tower))
    out = number(tower, "output_dim")
    return layers + 2 * 9 * wide * wide + bins * wide * hidden + hidden * hidden + hidden * out


def conformer(tower: Settings) -> int:
    """Feed-forward, attention with relative positions, convolution, feed-forward (Gemma 4's and 3n's
    Universal Speech Model, arXiv 2303.01037)."""
    hidden = number(tower, "hidden_size")
    layers = number(tower, "num_hidden_layers", "conf_num_hidden_layers")
    return layers * 24 * hidden * hidden + 2 * hidden * hidden


def granite_conformer(tower: Settings) -> int:
    """Two feed-forward parts of four widths, attention, a convolution of two (modeling_granite_speech.py)."""
    hidden = width(tower)
    feed = number(tower, "feedforward_mult", default=4)
    wide = number(tower, "conv_expansion_factor", default=2)
    return depth(tower) * hidden * hidden * (4 * feed + 4 + 3 * wide)


_Tower = Callable[[Settings], int]
TOWERS: Mapping[str, _Tower] = {
    **dict.fromkeys(
        [
            "clip_vision_model",
            "siglip_vision_model",
            "siglip2_vision_model",
            "idefics2_vision",
            "idefics3_vision",
            "paddleocr_vl_vision",
            "internvl_vision",
            "janus_vision_model",
            "smolvlm_vision",
            "mlcd_vision_model",
            "intern_vit_6b",
            "siglip",
            "idefics3",
            "smolvlm",
            "clip",
            "minicpmv4_6_vision",
        ],
        vit,
    ),
    **dict.fromkeys(
        ["pixtral", "ovis2_vision", "aimv2_vision_model", "lighton_ocr_vision"], gated_vit
    ),
    **dict.fromkeys(
        ["qwen2_5_vl_vision", "qwen2_5_vl", "qwen2_5_omni_vision_encoder"], qwen25_vl_tower
    ),
    **dict.fromkeys(["qwen2_vl_vision", "qwen2_vl"], qwen2_vl_tower),
    **dict.fromkeys(
        [
            "qwen3_vl_vision",
            "qwen3_vl_moe_vision",
            "qwen3_vl",
            "qwen3_vl_moe",
            "qwen3_5_vision",
            "qwen3_5_moe_vision",
            "qwen3_5",
            "qwen3_5_moe",
            "qwen3_omni_moe_vision_encoder",
        ],
        qwen3_vl_tower,
    ),
    **dict.fromkeys(["glm4v_vision", "glm4v_moe_vision", "glm4v", "glm4v_moe"], glm4v_tower),
    "glm_ocr_vision": glm_ocr_tower,
    **dict.fromkeys(["kimi_k25_vision", "moonvit"], moonvit),
    "exaone4_5_vision": exaone_tower,
    "minimax_m3_vl_vision": vit,
    "step3p5_vision": vit,
    "llama4_vision_model": llama4_tower,
    "mllama_vision_model": mllama_tower,
    "gemma4_vision": gemma4_tower,
    "gemma3n_vision": mobilenet,
    **dict.fromkeys(["gemma4_audio", "gemma3n_audio"], conformer),
    **dict.fromkeys(
        [
            "qwen2_audio_encoder",
            "voxtral_encoder",
            "audioflamingo3_encoder",
            "qwen2_5_omni_audio_encoder",
            "whisper",
            "glmasr_encoder",
        ],
        whisper_encoder,
    ),
    **dict.fromkeys(
        ["qwen3_omni_moe_audio_encoder", "qwen3_asr_encoder", "qwen3_asr_audio_encoder"],
        qwen3_audio,
    ),
    "granite_speech_encoder": granite_conformer,
    "vision": deepseek_vl2_tower,
    "eva": eva,
    "step3_vision_encoder": vit,
    "DFNRope_vision_transformer": vit,
}
"""By the tower's model type."""


# ---------------------------------------------------------------------------- joints


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
    return _inner(tower) * hidden + hidden * hidden


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
    """The tower's own rule has its merger."""
    return 0


def _qformer(tower: Settings, text: Settings, whole: Settings) -> int:
    """Granite Speech: a Q-Former whose every ``cross_attention_frequency``-th layer looks at sound."""
    former = section(whole, "projector_config")
    hidden = number(former, "hidden_size", default=768)
    layers = number(former, "num_hidden_layers", default=12)
    every = number(former, "cross_attention_frequency", default=2)
    inner = number(former, "intermediate_size", default=3072)
    source = number(former, "encoder_hidden_size", default=1408)
    crossing = layers // max(1, every) * (2 * hidden * hidden + 2 * hidden * source)
    own = layers * (4 * hidden * hidden + 2 * hidden * inner)
    return own + crossing + hidden * setting(text, "hidden")


_Joint = Callable[[Settings, Settings, Settings], int]
JOINTS: Mapping[str, _Joint] = {
    **dict.fromkeys(
        [
            "llava",
            "llava_next",
            "llava_next_video",
            "llava_onevision",
            "vipllava",
            "deepseek_vl",
            "audioflamingo3",
            "musicflamingo",
        ],
        _two_layers,
    ),
    **dict.fromkeys(
        [
            "gemma3",
            "gemma3n",
            "gemma4",
            "paligemma",
            "colpali",
            "shieldgemma2",
            "qwen2_audio",
            "qwen2_5_omni",
            "mllama",
            "llama4",
        ],
        _linear,
    ),
    **dict.fromkeys(["idefics3", "smolvlm"], _shuffled),
    **dict.fromkeys(["internvl", "internvl_chat", "qianfan_ocr", "interns1"], _shuffled_twice),
    **dict.fromkeys(["kimi_k25", "kimi_vl", "paddleocr_vl"], _merged),
    **dict.fromkeys(["mistral3", "mistral4", "mistral_large4", "lighton_ocr"], _mistral3),
    **dict.fromkeys(["cohere2_vision", "aya_vision"], _cohere),
    "lfm2_vl": _lfm2,
    **dict.fromkeys(["voxtral", "glmasr"], _voxtral),
    "idefics2": _idefics2,
    "aria": _aria,
    "minimax_m3_vl": _minimax_m3,
    "step3p7": _step3,
    "deepseek_vl_v2": _shuffled_twice,
    "step3_vl": _step3,
    "ernie4_5_moe_vl": _ernie_vl,
    "minicpmv": _resampler,
    "minicpmo": _resampler,
    "granite_speech": _qformer,
    "granite_speech_plus": _qformer,
    **dict.fromkeys(
        [
            "qwen2_vl",
            "qwen2_5_vl",
            "qwen3_vl",
            "qwen3_vl_moe",
            "qwen3_5",
            "qwen3_5_moe",
            "glm4v",
            "glm4v_moe",
            "glm46v",
            "glmga",
            "glm_ocr",
            "colqwen2",
            "qwen3_omni_moe",
            "qwen3_omni_moe_thinker",
            "qwen2_5_omni_thinker",
            "qwen3_asr",
            "chatglm",
            "exaone4_5",
            "cosmos3_omni",
        ],
        _none,
    ),
}
"""By the whole model's type."""

_USUAL_TOWERS: Mapping[str, Mapping[str, str]] = {
    "kimi_vl": {"vision_config": "moonvit"},
    "internvl_chat": {"vision_config": "intern_vit_6b"},
    "minicpmv": {"vision_config": "siglip_vision_model"},
    "deepseek_vl_v2": {"vision_config": "vision"},
    "chatglm": {"vision_config": "eva"},
    "ernie4_5_moe_vl": {"vision_config": "DFNRope_vision_transformer"},
    "step3_vl": {"vision_config": "step3_vision_encoder"},
}
"""What towers of models with code beside their weights are, where their configs do not say."""
_KEYS: Mapping[str, str] = {
    "vision_config": "vision",
    "visual": "vision",
    "audio_config": "audio",
    "encoder_config": "audio",
}
_VOCODER = 450_000_000
"""Of Qwen2.5-Omni's token2wav and of Qwen3-Omni's code predictor and code2wav, about the same."""
_NO_TOWERS = frozenset(
    [
        "text_config",
        "llm_config",
        "language_config",
        "thinker_config",
        "text_model_config",
        "talker_config",
        "token2wav_config",
        "code2wav_config",
        "perceiver_config",
        "projector_config",
        "quantization_config",
        "compression_config",
        "generation_config",
        "slice_config",
    ]
)
"""Nested configs that are read elsewhere, or describe nothing that has weights of its own."""


def _talker(config: Settings) -> Weights:
    """What the omni models speak with: a second language model and a vocoder of diffusion blocks
    (modeling_qwen2_5_omni.py, modeling_qwen3_omni_moe.py). Qwen 2.5's config leaves most of it to
    its classes."""
    talker = section(config, "talker_config")
    if not talker or config.get("enable_audio_output") is False:
        return Weights()
    from yibu.planner.hf.decoder import describe
    from yibu.planner.hf.families import FAMILIES

    inner = section(talker, "text_config") or talker
    named = "qwen2_5_omni_talker" if inner is talker else "qwen3_omni_moe_talker_text"
    family = FAMILIES["qwen2" if inner is talker else named]
    settings = with_defaults(inner, named, nested=True)
    spoken = describe(settings, family, head=True).weights.total
    return Weights(audio=spoken + _VOCODER)


def beside(config: Settings, text: Settings, model_type: str) -> Weights:
    """What a config has beside its language model.

    Raises:
        CannotTellError: It has a tower, or a joint of one, without a rule here.
    """
    whole = section(config, "thinker_config") or config
    nested: Mapping[str, Any] = class_defaults().get(model_type, {}).get("nested", {})
    inner = str(whole.get("model_type", model_type))
    nested = class_defaults().get(inner, {}).get("nested", nested) or _USUAL_TOWERS.get(inner, {})
    for key, value in whole.items():
        if (
            isinstance(value, Mapping)
            and "model_type" in value
            and key not in {*_KEYS, *_NO_TOWERS}
        ):
            raise CannotTellError(f"its {key} ({value['model_type']}) is not known")
    total = _talker(config)
    for key, part in _KEYS.items():
        if not isinstance(whole.get(key), Mapping):
            continue
        stated, usual = section(whole, key), str(nested.get(key, ""))
        named = str(stated.get("model_type") or usual)
        rule = TOWERS.get(named)
        joint = JOINTS.get(model_type)
        if rule is None or joint is None:
            raise CannotTellError(f"its {key} ({named or model_type}) is not known")
        # Qwen2-VL's towers have the whole model's type.
        of_tower = named in class_defaults() and "nested" not in class_defaults()[named]
        tower = with_defaults(stated, named if of_tower else usual, nested=True)
        size = rule(tower) + joint(tower, text, whole)
        total += Weights(vision=size) if part == "vision" else Weights(audio=size)
    return total
