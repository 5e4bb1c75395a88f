"""config.json as transformers writes it, brought to one vocabulary.

Multimodal configs keep the language model's settings one level down, and families differ in
what they call a thing; this module is the only one that knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yibu.errors import UnsupportedError, VerificationError

_NESTED = ("text_config", "llm_config", "language_config", "thinker_config")

# What published configs leave to transformers' class defaults (configuration_gemma3.py).
_LEFT_OUT: Mapping[str, Mapping[str, Any]] = {
    "gemma3_text": {
        "vocab_size": 262_208,
        "max_position_embeddings": 131_072,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
    }
}

MAX_LAYERS = 10_000
"""Layers are walked one by one; the deepest published models have some 130."""

# The largest value believed for any count or width in a config; a bigger one is damage.
_SANE = 1 << 32


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config that describes the language model."""
    for key in _NESTED:
        inner = config.get(key)
        if isinstance(inner, Mapping) and inner:
            return text_config(inner)
    return {**_LEFT_OUT.get(str(config.get("model_type")), {}), **config}


def number(config: Mapping[str, Any], *names: str, default: int = 0) -> int:
    """The first of the names that is there, as a non-negative integer.

    Raises:
        VerificationError: It is there and is no such number.
    """
    for name in names:
        value = config.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _SANE:
            raise VerificationError(
                f"config.json: {name} is {str(value)[:80]!r}; a whole number was expected",
                hint="the file is damaged or not a model's config: pull it again",
            )
        return value
    return default


def layers(config: Mapping[str, Any]) -> int:
    count = number(config, "num_hidden_layers", "n_layer", "num_layers", "n_layers")
    if count > MAX_LAYERS:
        raise VerificationError(
            f"config.json: the model would have {count} layers; at most {MAX_LAYERS} are believed",
            hint="the file is damaged or not a model's config: pull it again",
        )
    return count


def attention_heads(config: Mapping[str, Any]) -> int:
    return number(config, "num_attention_heads", "n_head", "n_heads")


def hidden_size(config: Mapping[str, Any]) -> int:
    return number(config, "hidden_size", "n_embd", "d_model")


def kv_heads(config: Mapping[str, Any]) -> int:
    """Key/value heads (GQA); ChatGLM names them groups, older models have one per head."""
    if config.get("multi_query_attention") is True:
        return number(config, "multi_query_group_num", default=1)
    if config.get("multi_query") is True:
        return 1
    return number(config, "num_key_value_heads", "num_kv_heads", "n_head_kv") or attention_heads(
        config
    )


def head_dim(config: Mapping[str, Any]) -> int:
    explicit = number(config, "head_dim", "kv_channels")
    heads = attention_heads(config)
    return explicit or (hidden_size(config) // heads if heads else 0)


def max_context(config: Mapping[str, Any]) -> int | None:
    """Tokens the model was made for, as vLLM derives ``max_model_len``.

    The smallest of the known keys, times a RoPE scaling factor where the scaling does not
    already count in ``max_position_embeddings`` (vllm/config/model.py,
    ``_get_and_verify_max_len``).
    """
    keys = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_seq_length")
    found = [value for key in keys if (value := number(config, key))]
    return min(found) if found else None


def dtype(config: Mapping[str, Any]) -> str:
    value = config.get("dtype") or config.get("torch_dtype")
    return value.removeprefix("torch.") if isinstance(value, str) else ""


def quantization(config: Mapping[str, Any]) -> str | None:
    """``awq``, ``gptq``, ``fp8``, ``mxfp4`` …, None for an unquantized model."""
    section = config.get("quantization_config") or text_config(config).get("quantization_config")
    if not isinstance(section, Mapping):
        return None
    method = section.get("quant_method") or section.get("quant_algo") or "unknown"
    return str(method).lower()


def quantization_bits(config: Mapping[str, Any]) -> int | None:
    """Bits of a quantized weight; None for an unquantized model."""
    section = config.get("quantization_config") or text_config(config).get("quantization_config")
    if not isinstance(section, Mapping):
        return None
    method = quantization(config)
    if method in ("fp8", "fbgemm_fp8", "modelopt"):
        return 8
    if method == "mxfp4":
        return 4
    if method == "compressed-tensors":
        groups = section.get("config_groups")
        first: Any = next(iter(groups.values()), {}) if isinstance(groups, Mapping) else {}
        weights = first.get("weights") if isinstance(first, Mapping) else None
        return number(weights, "num_bits", default=8) if isinstance(weights, Mapping) else 8
    if section.get("load_in_4bit") is True:
        return 4
    if section.get("load_in_8bit") is True:
        return 8
    return number(section, "bits", "w_bit") or 8


def architecture(config: Mapping[str, Any]) -> str:
    """``architectures[0]``.

    Raises:
        UnsupportedError: The config names none, so it is not that of a transformers model.
    """
    names = config.get("architectures")
    if isinstance(names, list) and names and isinstance(names[0], str):
        return names[0]
    raise UnsupportedError(
        "config.json names no architecture (its field `architectures` is missing), so no engine"
        " can be chosen for it",
        hint="check that the source is a model of transformers' layout",
    )


def is_pooling(config: Mapping[str, Any]) -> bool:
    """An embedding, rerank or classification model rather than one that generates text."""
    name = architecture(config)
    generates = name.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"))
    return not generates and name.endswith(
        ("Model", "ForSequenceClassification", "ForMaskedLM", "ForRewardModel", "Embedding")
    )
