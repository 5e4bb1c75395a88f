"""Write what transformers' config classes set by default into planner/hf/defaults.json.

    python scripts/transformers_defaults.py

Run it where transformers is installed (an environment of vLLM's, say), with this repository's src
on PYTHONPATH. Only the values are kept, and of them those that a rule of yibu.planner.hf can read.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import transformers
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from yibu.planner.hf.model import stem

OUT = Path(__file__).parent.parent / "src/yibu/planner/hf/defaults.json"
# What no rule reads: training, generation, numerics.
_DROPPED = re.compile(
    r"dropout|_token|token_|initializer|_eps$|epsilon|theta|^output_|^return_|_std$|_loss|_coef|"
    r"jitter|^use_cache$|hidden_act|activation|prob|_range$|scal|temperature|^id2label$|^label|"
    r"chunk_size_feed|problem_type|transformers_version|pretraining_tp|softcap|clip|noise|mask_|"
    r"layerdrop|pdrop|summary|^rope_|normali|bias_update|apply_|_limit|^dtype$|^scoring|topk_"
)
_KINDS = ("text_config", "vision_config", "audio_config", "thinker_config", "llm_config",
          "encoder_config", "language_config", "speech_config", "decoder", "encoder", "decoder_config",
          "qformer_config", "attn_config", "ffn_config", "perceiver_config")  # fmt: skip


def simple(value: Any) -> bool:
    if isinstance(value, bool | int | str):
        return True
    if isinstance(value, list | tuple):
        return len(value) <= 12 and all(isinstance(item, int | str) for item in value)
    return False


def defaults(cls: type[PreTrainedConfig]) -> dict[str, Any]:
    found = {}
    for field in dataclasses.fields(cls):
        value = field.default
        if value is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if simple(value) and not _DROPPED.search(field.name):
            found[field.name] = list(value) if isinstance(value, tuple) else value
    return found


def nested(cls: type[PreTrainedConfig]) -> dict[str, str]:
    """key → model_type of the class that a nested config has where it does not say."""
    try:
        plain = cls().to_dict()
    except Exception:  # noqa: BLE001  some classes cannot be made without arguments, each with its own error
        plain = {}
    found = {}
    for key in {*_KINDS, *getattr(cls, "sub_configs", {})}:
        inner = plain.get(key)
        own = getattr(cls, "sub_configs", {}).get(key)
        named = inner.get("model_type") if isinstance(inner, dict) else None
        if named := named or getattr(own, "model_type", None):
            found[key] = named
    return dict(sorted(found.items()))


def stems() -> dict[str, set[str]]:
    """model_type → what its classes' names begin with, as ``yibu.planner.hf.model.stem`` has it."""
    found: dict[str, set[str]] = {}
    for name in dir(modeling_auto):
        if name.endswith("_MAPPING_NAMES"):
            for model_type, classes in getattr(modeling_auto, name).items():
                for cls in [classes] if isinstance(classes, str) else classes:
                    found.setdefault(model_type, set()).add(stem(cls))
    return found


def main() -> None:
    transformers.logging.set_verbosity_error()
    classes: dict[str, type[PreTrainedConfig]] = {}

    def add(cls: type[PreTrainedConfig]) -> None:
        name = getattr(cls, "model_type", "")
        if not name or name in classes or not dataclasses.is_dataclass(cls):
            return
        classes[name] = cls
        for inner in getattr(cls, "sub_configs", {}).values():
            if isinstance(inner, type) and issubclass(inner, PreTrainedConfig):
                add(inner)

    for name in CONFIG_MAPPING_NAMES:
        try:
            add(CONFIG_MAPPING[name])
        except Exception as error:  # noqa: BLE001  a class whose optional library is not installed
            print(f"left out {name}: {error!r}"[:120])
    table, known = {}, stems()
    for name, cls in sorted(classes.items()):
        table[name] = defaults(cls)
        if inner := nested(cls):
            table[name]["nested"] = inner
        if name in known:
            table[name]["stems"] = sorted(known[name])
    OUT.write_text(
        "{\n"
        + ",\n".join(
            f" {json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in table.items()
        )
        + "\n}\n",
        encoding="utf-8",
    )
    print(f"{OUT}: {len(table)} model types of transformers {transformers.__version__}")


if __name__ == "__main__":
    main()
