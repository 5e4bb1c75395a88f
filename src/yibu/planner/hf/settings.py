"""Values of a config.json under one vocabulary.

Families differ in what they call a thing (``NAMES``), and a published config leaves out what its
class in transformers sets by default (``defaults.json``, made by scripts/transformers_defaults.py).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from yibu.errors import VerificationError
from yibu.messages import tr

Settings = Mapping[str, Any]

_NAMES = {
    "hidden": "hidden_size n_embd n_embed d_model model_dim dim",
    "layers": (
        "num_hidden_layers n_layer num_layers n_layers num_transformer_layers decoder_layers"
    ),
    "heads": (
        "num_attention_heads n_head n_heads num_heads num_query_heads decoder_attention_heads "
        "attention_heads"
    ),
    "kv_heads": (
        "num_key_value_heads n_head_kv num_kv_heads multi_query_group_num kv_n_heads "
        "num_attention_groups"
    ),
    "head_dim": "head_dim kv_channels hidden_size_per_head d_kv",
    "vocabulary": "padded_vocab_size vocab_size",
    "inner": (
        "intermediate_size ffn_hidden_size n_inner ffn_dim d_ff decoder_ffn_dim mlp_hidden_size "
        "hidden_dim ff_intermediate_size inner_hidden_size"
    ),
    "experts": "num_experts n_routed_experts num_local_experts moe_num_experts num_moe_experts",
    "expert_inner": (
        "moe_intermediate_size expert_ffn_hidden_size expert_intermediate_size moe_ffn_hidden_size"
    ),
    "used_experts": (
        "num_experts_per_tok num_experts_per_token moe_topk moe_top_k moe_k top_k_experts "
        "moe_num_active_experts num_selected_experts experts_per_token num_experts_per_topk"
    ),
    "shared_experts": (
        "n_shared_experts num_shared_experts num_shared_expert moe_num_shared_experts"
    ),
    "shared_inner": (
        "shared_expert_intermediate_size moe_shared_expert_intermediate_size shared_intermediate_size "
        "share_expert_dim"
    ),
    "kv_rank": "kv_lora_rank",
}
NAMES: Mapping[str, tuple[str, ...]] = {
    setting: tuple(names.split()) for setting, names in _NAMES.items()
}
"""What this package calls a setting → the names it has in config.json, the one that wins first."""

_MUST_BE_THERE = (
    "hidden",
    "layers",
    "heads",
    "kv_heads",
    "vocabulary",
    "inner",
    "experts",
    "expert_inner",
    "kv_rank",
)
"""Settings that a config of its own states where its class has a number for them. A nested one
(``text_config``) is written as what differs from its class, so there the class's number holds."""

_MAY_LACK: Mapping[str, tuple[str, ...]] = {
    "nemotron_h": ("experts", "expert_inner"),  # the older ones have none
    "lfm2": ("inner",),  # stated as block_ff_dim
}

MAX_LAYERS = 10_000
"""Layers are walked one by one; the deepest published models have some 130."""

# The largest value believed for any count or width in a config; a bigger one is damage.
_SANE = 1 << 32


class CannotTellError(Exception):
    """A config.json does not say enough: its architecture has no rule here, or a key is missing."""


@functools.cache
def class_defaults() -> Mapping[str, Mapping[str, Any]]:
    """model_type → what transformers' class sets where config.json says nothing."""
    text = files("yibu.planner.hf").joinpath("defaults.json").read_text(encoding="utf-8")
    loaded: Mapping[str, Mapping[str, Any]] = json.loads(text)
    return loaded


_GROUP_OF = {name: group for group, names in NAMES.items() for name in names}


def with_defaults(config: Settings, model_type: str, *, nested: bool) -> Settings:
    """A config with its class's defaults under it.

    Raises:
        CannotTellError: A config that is not nested lacks a setting that its class has a number for.
    """
    defaults = class_defaults().get(model_type, {})
    # DBRX and MPT keep heads and experts in sections of their own.
    config = {**section(config, "ffn_config"), **section(config, "attn_config"), **config}
    stated = {_GROUP_OF[name] for name in config if name in _GROUP_OF}
    if not nested:
        for name, value in defaults.items():
            group = _GROUP_OF.get(name)
            matters = group in _MUST_BE_THERE and group not in stated
            matters = matters and group not in _MAY_LACK.get(model_type, ())
            if matters and isinstance(value, int) and value:
                raise CannotTellError(tr("its config.json has no {name}", name=name))
    # Another name for what is stated would win over it.
    of_type = {"nested", "stems"}  # not settings, but what the table tells of the type
    usual = {
        k: v for k, v in defaults.items() if k not in of_type and _GROUP_OF.get(k) not in stated
    }
    return {**usual, **config}


def number(settings: Settings, *names: str, default: int = 0) -> int:
    """The first of the names that is there, as a non-negative integer.

    Raises:
        VerificationError: It is there and is no such number.
    """
    for name in names:
        value = settings.get(name)
        if value is None or value is False or (value == -1 and "window" in name):
            continue
        if isinstance(value, list | tuple) and all(type(item) is int for item in value):
            value = max(value, default=0)  # one for each layer: the largest stands for all
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _SANE:
            raise VerificationError(
                "config.json: {name} is {value!r}; a whole number was expected",
                name=name,
                value=str(value)[:80],
                hint="The file is damaged or not a model's config: pull it again",
            )
        return value
    return default


def setting(settings: Settings, group: str, default: int = 0) -> int:
    """A setting by this package's name for it, 0 where it is missing."""
    return number(settings, *NAMES[group], default=default)


def need(settings: Settings, group: str) -> int:
    """A required setting.

    Raises:
        CannotTellError: It is not there.
    """
    value = setting(settings, group)
    if not value:
        raise CannotTellError(tr("its config.json has no {name}", name=NAMES[group][0]))
    return value


def section(settings: Settings, name: str) -> Settings:
    """A nested mapping, empty where it is missing."""
    value = settings.get(name)
    return value if isinstance(value, Mapping) else {}


def numbers(settings: Settings, name: str) -> list[int]:
    """A list of integers, empty where it is missing."""
    value = settings.get(name)
    if not isinstance(value, list | tuple):
        return []
    return [int(item) for item in value if isinstance(item, int | float)]


def layer_count(settings: Settings) -> int:
    count = setting(settings, "layers") or _listed_layers(settings)
    if not count:
        return need(settings, "layers")
    if count > MAX_LAYERS:
        raise VerificationError(
            "config.json: the model would have {count} layers; at most {limit} are believed",
            count=count,
            limit=MAX_LAYERS,
            hint="The file is damaged or not a model's config: pull it again",
        )
    return count


def _listed_layers(settings: Settings) -> int:
    """Layers by their pattern, where that alone tells (Nemotron-H)."""
    for name in ("layers_block_type", "layer_types", "hybrid_override_pattern"):
        pattern = settings.get(name)
        if isinstance(pattern, str):
            pattern = pattern.replace("|", "")
        if isinstance(pattern, list | str) and pattern:
            return len(pattern)
    return 0


def head_dim(settings: Settings) -> int:
    heads = setting(settings, "heads")
    return setting(settings, "head_dim") or (setting(settings, "hidden") // heads if heads else 0)


def kv_heads(settings: Settings) -> int:
    """Key/value heads (GQA); older models have one per head, or one in all (multi-query)."""
    if settings.get("multi_query_attention") is True:
        return number(settings, "multi_query_group_num", default=1)
    if settings.get("multi_query") is True and not settings.get("new_decoder_architecture"):
        return 1
    if settings.get("multi_query_attention") is False:  # ChatGLM names groups it does not use
        return setting(settings, "heads")
    return setting(settings, "kv_heads") or setting(settings, "heads")


def of_layer(settings: Settings, layer: int, layers: int) -> Settings:
    """The settings of one layer: a list with a number for each layer stands for that number."""
    own = {
        name: value[layer]
        for name, value in settings.items()
        if isinstance(value, list | tuple)
        and len(value) == layers
        and all(isinstance(item, int | float) for item in value)
    }
    return {**settings, **own} if own else settings
