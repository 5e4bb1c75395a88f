"""A whole config.json: its language model, and the towers for images and sound beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from yibu.messages import tr
from yibu.planner.hf import beside, decoder, encoders
from yibu.planner.hf.families import FAMILIES
from yibu.planner.hf.settings import (
    NAMES,
    CannotTellError,
    Settings,
    class_defaults,
    with_defaults,
)
from yibu.planner.hf.weights import Described

_NESTED = ("text_config", "llm_config", "language_config", "thinker_config", "text_model_config")


@dataclass(frozen=True, slots=True)
class Language:
    """The language model's part of a config."""

    settings: Settings
    model_type: str

    @property
    def complete(self) -> Settings:
        """The settings with what the family's configs leave to code beside the weights."""
        rule = FAMILIES.get(self.model_type)
        return {**rule.leaves_out, **self.settings} if rule else self.settings


def language(config: Mapping[str, Any]) -> Language:
    """The part of a config that describes the language model, with its class's defaults.

    Raises:
        CannotTellError: Nothing in it does, or a key is missing.
    """
    settings, model_type, nested = _language_part(config)
    return Language(with_defaults(settings, model_type, nested=nested), model_type)


def _language_part(config: Mapping[str, Any]) -> tuple[Settings, str, bool]:
    own_type = model_type(config)
    inner_types = class_defaults().get(own_type, {}).get("nested", {})
    for key in _NESTED:
        inner = config.get(key)
        if isinstance(inner, Mapping) and inner:
            if any(isinstance(inner.get(name), Mapping) for name in _NESTED):
                return *_language_part(inner)[:2], True
            if "model_type" not in inner and key in inner_types:
                return inner, inner_types[key], True
            return inner, model_type(inner), True
    for key in _NESTED:  # Qwen2-VL's configs are flat: the language model's settings stand on top
        if key in inner_types:
            if not any(name in config for name in NAMES["hidden"]):
                raise CannotTellError(tr("its config.json has no {name}", name=key))
            return config, inner_types[key], False
    return config, own_type, False


def stem(architecture: str) -> str:
    """A class's name without its purpose: qwen2 of Qwen2ForCausalLM."""
    bare = architecture.split("For", maxsplit=1)[0]
    for suffix in ("LMHeadModel", "EncoderModel", "ChatModel", "Model"):
        bare = bare.removesuffix(suffix)
    return bare.lower().replace("_", "").replace("-", "")


# Classes of a type's public code that transformers calls by other names.
_OTHER_STEMS: Mapping[str, tuple[str, ...]] = {
    "falcon": ("rw",),
    "deepseek_v3": ("kimik2",),
    "internlm3": ("internlm3",),
    "exaone": ("exaone",),
}


_TASKS = ("LM", "Generation", "Model", "Classification", "Answering", "Embedding", "PreTraining",
          "Choice", "Prediction", "2Seq", "Text2Text", "Retrieval", "Pooling", "Regression")  # fmt: skip
"""What a class that is a whole model is for, by the end of its name."""


def _is_of(architecture: str, model_type: str) -> bool:
    """Whether a class is one of a model type's; engines go by the class, the rules by the type.
    True where the type has none in transformers: its code lies beside the weights."""
    task = architecture.partition("For")[2]
    if task and not task.endswith(_TASKS):
        return False  # a draft model (LlamaForCausalLMEagle3) has layers and tables of its own
    known = class_defaults().get(model_type, {}).get("stems")
    if not known or not architecture:
        return True
    return stem(architecture) in {*known, *_OTHER_STEMS.get(model_type, ())}


def language_part(config: Mapping[str, Any]) -> Settings:
    """The part of a config that describes the language model, unchanged."""
    try:
        return _language_part(config)[0]
    except CannotTellError:
        return config


def model_type(config: Mapping[str, Any]) -> str:
    """``model_type``; where that has no rule, the type that the architecture's name stands for:
    engines go by it too (DeepseekV3ForCausalLM under the model type kimi_k2)."""
    named = str(config.get("model_type", ""))
    if named in FAMILIES or named in encoders.RULES or named in class_defaults():
        return named
    architectures = config.get("architectures")
    first = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    for known in FAMILIES:
        if first and known.replace("_", "").replace("-", "").lower() == stem(first):
            return known
    return named


def describe(config: Mapping[str, Any]) -> Described:
    """Weights and cache of the model that a config.json describes.

    Raises:
        CannotTellError: Its architecture, or that of a part, has no rule; or a key is missing.
        VerificationError: A value is damaged.
    """
    named = model_type(config)
    if not _is_of(architecture(config), named):
        raise CannotTellError(
            tr("the architecture {config} is not known", config=architecture(config))
        )
    if (whole := encoders.RULES.get(named)) is not None:
        return whole(with_defaults(config, named, nested=False))
    found = language(config)
    rule = FAMILIES.get(found.model_type)
    if rule is None:
        raise CannotTellError(
            tr(
                "the architecture {config} is not known",
                config=architecture(config) or found.model_type,
            )
        )
    settings = found.complete
    makes_logits = has_head(config) and (not rule.encoder or found.model_type == "eurobert")
    head = makes_logits and not tied(config, settings, found)
    text = decoder.describe(settings, rule, head=head)
    more = beside.beside(config, settings, named)
    return Described(text.weights + more, text.keeps)


def architecture(config: Mapping[str, Any]) -> str:
    names = config.get("architectures")
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""


def has_head(config: Mapping[str, Any]) -> bool:
    """Whether its class makes logits: a ``…Model`` or a classifier has no output matrix."""
    name = architecture(config)
    # Generating classes of bare names: THUDM's ChatGLM, OpenGVLab's InternVL, GPT-2's and Qwen's.
    if name.endswith(("ChatModel", "ChatGLMModel", "LMHeadModel", "OmniModel")):
        return True
    return not name.endswith(("Model", "ForSequenceClassification", "ForRewardModel", "Embedding",
                              "ForTokenClassification", "ForEmbedding"))  # fmt: skip


def has_own_head(config: Mapping[str, Any]) -> bool:
    """Whether the output matrix is one of its own; where that cannot be told, it counts as one."""
    try:
        found = language(config)
    except CannotTellError:
        return True
    return not tied(config, found.complete, found)


def tied(config: Mapping[str, Any], settings: Settings, found: Language) -> bool:
    """Whether the output matrix is the embeddings' own."""
    part = _language_part(config)[0]
    defaults = class_defaults()
    usual = defaults.get(found.model_type, {}).get("tie_word_embeddings")
    whole = defaults.get(model_type(config), {}).get("tie_word_embeddings")
    for value in (part.get("tie_word_embeddings"), config.get("tie_word_embeddings"),
                  settings.get("tie_word_embeddings") if usual is None else None, usual, whole):  # fmt: skip
        if isinstance(value, bool):
            return value
    # transformers 4 ties where nothing says otherwise (PretrainedConfig).
    return True
