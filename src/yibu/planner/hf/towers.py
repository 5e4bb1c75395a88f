"""The parts beside a language model: towers for images and sound, and what joins them to it.

A tower is known by the ``model_type`` of its config; sizes are
elements. Sources: transformers' modeling file of the type, or the public repository named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from yibu.messages import tr
from yibu.planner.hf.settings import (
    CannotTellError,
    Settings,
    number,
    numbers,
    section,
)

_WIDTHS = ("embed_dim", "hidden_size", "d_model", "width", "encoder_hidden_size", "hidden_dim")
_DEPTHS = ("depth", "num_hidden_layers", "encoder_layers", "num_layers", "layers")


def width(tower: Settings) -> int:
    found = number(tower, *_WIDTHS)
    if not found:
        raise CannotTellError(tr("the config of its tower has no hidden_size"))
    return found


def depth(tower: Settings) -> int:
    found = number(tower, *_DEPTHS)
    if not found:
        raise CannotTellError(tr("the config of its tower has no num_hidden_layers"))
    return found


def inner_width(tower: Settings) -> int:
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
    hidden, inner = width(tower), inner or inner_width(tower)
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


_DEEP_ENCODER = {"sam_vit_b": 95_600_000, "clip-l-14-224": 303_000_000, "qwen2-0-5b": 358_000_000}
"""The nets of DeepSeek-OCR's encoders, which its code builds with these names and fixed sizes
(vllm/model_executor/models/deepencoder.py, deepencoder2.py)."""


def deepseek_vl2_tower(tower: Settings) -> int:
    """SigLIP; of DeepSeek-OCR, several nets by name."""
    if isinstance(nets := tower.get("width"), Mapping):
        if unknown := [str(name) for name in nets if name not in _DEEP_ENCODER]:
            raise CannotTellError(
                tr("its vision_config has the net {unknown!r}", unknown=unknown[0])
            )
        return sum(_DEEP_ENCODER[name] for name in nets)
    return vit({"num_hidden_layers": number(tower, "layers"), "vision_use_head": True, **tower})


def ovis_tower(tower: Settings) -> int:
    """Ovis (arXiv 2405.20797): AIMv2, and a head that chooses among visual tokens
    (vllm/model_executor/models/ovis.py)."""
    backbone = section(tower, "backbone_config")
    if str(backbone.get("model_type")) not in ("aimv2", "aimv2_vision_model"):
        raise CannotTellError(
            tr("its backbone ({backbone}) is not known", backbone=backbone.get("model_type"))
        )
    side = number(tower, "hidden_stride", default=1)
    head = side * side * width(backbone) * number(tower, "vocab_size", default=16_384)
    grid = (_side(backbone, "image_size") // max(1, _side(backbone, "patch_size"))) ** 2
    return gated_vit(backbone) + grid * width(backbone) + head


# ---------------------------------------------------------------------------- sound


def whisper_encoder(tower: Settings) -> int:
    """Whisper's encoder (arXiv 2212.04356): two convolutions, positions, layers."""
    hidden, bins = width(tower), number(tower, "num_mel_bins", default=128)
    positions = number(tower, "max_source_positions", default=1500)
    layers = depth(tower) * (4 * hidden * hidden + 2 * hidden * inner_width(tower))
    return 3 * hidden * (bins + hidden) + positions * hidden + layers


def qwen3_audio(tower: Settings) -> int:
    """Three two-dimensional convolutions before, two projections after (modeling_qwen3_omni_moe.py)."""
    hidden, wide = width(tower), number(tower, "downsample_hidden_size", default=480)
    bins = math.ceil(number(tower, "num_mel_bins", default=128) / 8)
    layers = depth(tower) * (4 * hidden * hidden + 2 * hidden * inner_width(tower))
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
_TYPES: Mapping[_Tower, str] = {
    vit: (
        "clip_vision_model siglip_vision_model siglip2_vision_model idefics2_vision idefics3_vision "
        "paddleocr_vl_vision internvl_vision janus_vision_model smolvlm_vision mlcd_vision_model "
        "intern_vit_6b siglip idefics2 idefics3 smolvlm clip minicpmv4_6_vision skywork_vit "
        "blip_2_vision_model minimax_m3_vl_vision step3p5_vision step3_vision_encoder "
        "DFNRope_vision_transformer"
    ),
    gated_vit: "pixtral ovis2_vision aimv2_vision_model lighton_ocr_vision",
    qwen25_vl_tower: "qwen2_5_vl_vision qwen2_5_vl qwen2_5_omni_vision_encoder",
    qwen2_vl_tower: "qwen2_vl_vision qwen2_vl",
    qwen3_vl_tower: (
        "qwen3_vl_vision qwen3_vl_moe_vision qwen3_vl qwen3_vl_moe qwen3_5_vision qwen3_5_moe_vision "
        "qwen3_5 qwen3_5_moe qwen3_omni_moe_vision_encoder"
    ),
    glm4v_tower: "glm4v_vision glm4v_moe_vision glm4v glm4v_moe",
    glm_ocr_tower: "glm_ocr_vision",
    moonvit: "kimi_k25_vision moonvit",
    exaone_tower: "exaone4_5_vision",
    llama4_tower: "llama4_vision_model",
    mllama_tower: "mllama_vision_model",
    gemma4_tower: "gemma4_vision",
    mobilenet: "gemma3n_vision",
    conformer: "gemma4_audio gemma3n_audio",
    whisper_encoder: (
        "qwen2_audio_encoder voxtral_encoder audioflamingo3_encoder qwen2_5_omni_audio_encoder "
        "whisper glmasr_encoder"
    ),
    qwen3_audio: "qwen3_omni_moe_audio_encoder qwen3_asr_encoder qwen3_asr_audio_encoder",
    granite_conformer: "granite_speech_encoder",
    deepseek_vl2_tower: "vision",
    eva: "eva",
    ovis_tower: "aimv2_visual_tokenizer",
}
TOWERS: Mapping[str, _Tower] = {
    name: rule for rule, names in _TYPES.items() for name in names.split()
}
"""By the tower's model type."""
