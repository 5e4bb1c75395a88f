"""What a config.json has beside its language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yibu.messages import tr
from yibu.planner.hf.decoder import describe
from yibu.planner.hf.families import FAMILIES
from yibu.planner.hf.joints import JOINTS
from yibu.planner.hf.settings import (
    CannotTellError,
    Settings,
    class_defaults,
    number,
    section,
    with_defaults,
)
from yibu.planner.hf.towers import TOWERS
from yibu.planner.hf.weights import Weights

_USUAL_TOWERS: Mapping[str, Mapping[str, str]] = {
    "kimi_vl": {"vision_config": "moonvit"},
    "internvl_chat": {"vision_config": "intern_vit_6b"},
    "minicpmv": {"vision_config": "siglip_vision_model"},
    "minicpmo": {"vision_config": "siglip_vision_model", "audio_config": "whisper"},
    "ovis": {"visual_tokenizer_config": "aimv2_visual_tokenizer"},
    "skywork_chat": {"vision_config": "skywork_vit"},
    "deepseek_vl_v2": {"vision_config": "vision"},
    "chatglm": {"vision_config": "eva"},
    "ernie4_5_moe_vl": {"vision_config": "DFNRope_vision_transformer"},
    "step3_vl": {"vision_config": "step3_vision_encoder"},
}
"""What towers of models with code beside their weights are, where their configs do not say."""
_KEYS: Mapping[str, str] = {
    "vision_config": "vision",
    "visual": "vision",
    "visual_tokenizer_config": "vision",
    "audio_config": "audio",
    "audio": "audio",
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
        "qformer_config",
        "tts_config",
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
    inner = section(talker, "text_config") or talker
    named = "qwen2_5_omni_talker" if inner is talker else "qwen3_omni_moe_talker_text"
    family = FAMILIES["qwen2" if inner is talker else named]
    settings = with_defaults(inner, named, nested=True)
    spoken = describe(settings, family, head=True).weights.total
    return Weights(audio=spoken + _VOCODER)


def _chat_tts(config: Settings) -> Weights:
    """What MiniCPM-o speaks with: a small Llama between texts' and sounds' tokens
    (openbmb/MiniCPM-o-2_6, ``ConditionalChatTTS``)."""
    tts = section(config, "tts_config")
    if not tts or config.get("init_tts") is False:
        return Weights()
    hidden = number(tts, "hidden_size", default=768)
    inner = number(tts, "intermediate_size", default=3072)
    layers = number(tts, "num_hidden_layers", default=20)
    codes = number(tts, "num_vq", default=4) * number(tts, "num_audio_tokens", default=626)
    rows = number(tts, "num_text_tokens", default=21_178) + 2 * codes
    rows += number(tts, "llm_dim", default=2560)
    return Weights(audio=layers * (4 * hidden * hidden + 3 * hidden * inner) + rows * hidden)


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
            raise CannotTellError(
                tr("its {key} ({model_type}) is not known", key=key, model_type=value["model_type"])
            )
    expected = next(iter(_USUAL_TOWERS.get(inner, {})), "")
    if expected and expected not in whole and inner != "chatglm":  # ChatGLM's are few
        # A tower that is left to code beside the weights (MiniCPM-V 2).
        raise CannotTellError(tr("its config.json has no {name}", name=expected))
    total = _talker(config) + _chat_tts(config)
    for key, part in _KEYS.items():
        if not isinstance(whole.get(key), Mapping):
            continue
        stated, usual = section(whole, key), str(nested.get(key, ""))
        named = str(stated.get("model_type") or usual)
        rule = TOWERS.get(named)
        joint = JOINTS.get(model_type)
        if rule is None or joint is None:
            raise CannotTellError(
                tr("its {key} ({model_type}) is not known", key=key, model_type=named or model_type)
            )
        # Qwen2-VL's towers have the whole model's type.
        of_tower = named in class_defaults() and "nested" not in class_defaults()[named]
        tower = with_defaults(stated, named if of_tower else usual, nested=True)
        size = rule(tower) + joint(tower, text, whole)
        total += Weights(vision=size) if part == "vision" else Weights(audio=size)
    return total
