"""Single values of a config.json, for arithmetic that needs no more.

What a whole config says is in ``yibu.planner.hf``; these read the language model's part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yibu.errors import UnsupportedError
from yibu.planner.hf import model, settings
from yibu.planner.hf.settings import CannotTellError


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config that describes the language model, with its class's defaults."""
    try:
        return model.language(config).complete
    except CannotTellError:
        return model.language_part(config)


def layers(text: Mapping[str, Any]) -> int:
    """The number of layers; 0 where the config does not say."""
    try:
        return settings.layer_count(text)
    except CannotTellError:
        return 0


def dtype(config: Mapping[str, Any]) -> str:
    """The dtype of a config, or of its first part that states one (vLLM's ``get_torch_dtype``)."""
    parts = ("text_config", "llm_config", "thinker_config", "vision_config", "encoder_config")
    for part in (config, *(settings.section(config, name) for name in parts)):
        value = part.get("dtype") or part.get("torch_dtype")
        if isinstance(value, str):
            return value.removeprefix("torch.")
    return ""


def architecture(config: Mapping[str, Any]) -> str:
    """``architectures[0]``; where it is missing the ``model_type``, which no engine serves by itself.

    Raises:
        UnsupportedError: The config names neither, so it is not that of a transformers model.
    """
    kind = config.get("model_type")
    if name := model.architecture(config) or (kind if isinstance(kind, str) else ""):
        return name
    raise UnsupportedError(
        "config.json names no architecture (its fields `architectures` and `model_type` "
        "are missing), so no engine can be chosen for it",
        hint="Check that the source is a model of transformers' layout",
    )


def is_pooling(config: Mapping[str, Any]) -> bool:
    """An embedding, rerank or classification model rather than one that generates text."""
    name = architecture(config)
    generates = name.endswith(("ForCausalLM", "ForConditionalGeneration"))
    return not generates and (name.endswith("ForMaskedLM") or not model.has_head(config))
