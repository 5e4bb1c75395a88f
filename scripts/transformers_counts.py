"""Compare the planner's rules with transformers' own count of parameters, on torch's meta device.

    python scripts/transformers_counts.py [--write] [TYPE…]

Run it where torch and transformers are installed (an environment of vLLM's, say), with this
repository's src on PYTHONPATH. It counts the published configs of tests/planner/published.json, and
of every model type that has a rule the config that its class makes without arguments, which
tests/planner/class_counts.json records. ``--write`` records what transformers counted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING
from transformers.models.auto import modeling_auto as auto

from yibu.planner.hf import model
from yibu.planner.hf.encoders import RULES
from yibu.planner.hf.families import FAMILIES
from yibu.planner.hf.joints import JOINTS
from yibu.planner.hf.settings import CannotTellError, class_defaults

TESTS = Path(__file__).parent.parent / "tests/planner"
TOLERANCE = 0.01
_MAPPINGS = (
    auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    auto.MODEL_FOR_MULTIMODAL_LM_MAPPING,
    auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING,
    auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    auto.MODEL_FOR_CAUSAL_LM_MAPPING,
    auto.MODEL_FOR_MASKED_LM_MAPPING,
    auto.MODEL_MAPPING,
)


def count(config: Any, cls: Any) -> int:
    """Parameters of a class with a config, shared ones once."""
    with torch.device("meta"):
        made = cls._from_config(config) if hasattr(cls, "_from_config") else cls(config)
    made.tie_weights()
    return sum({id(p): p.numel() for p in made.parameters()}.values())


def published(row: Mapping[str, Any]) -> int:
    """transformers' count of a row of the table."""
    config = dict(row["config"])
    name, arch = config.pop("model_type"), config.pop("architectures")[0]
    by = row.get("by") or ""
    settings = CONFIG_MAPPING[by if by in CONFIG_MAPPING else name](**config)
    return count(settings, getattr(transformers, by if by and by not in CONFIG_MAPPING else arch))


def by_class(name: str) -> tuple[dict[str, Any], int]:
    """The config that a type's class makes by itself, and what transformers counts for it."""
    made = CONFIG_MAPPING[name]()
    error: Exception = LookupError(f"{name} has no class")
    for mapping in _MAPPINGS:
        if type(made) not in mapping:
            continue
        cls = mapping[type(made)]
        cls = cls[0] if isinstance(cls, tuple | list) else cls
        try:
            stated = json.loads(made.to_json_string(use_diff=False))
            return {**stated, "architectures": [cls.__name__]}, count(made, cls)
        except Exception as failure:  # noqa: BLE001  a text class does not take a whole VLM's config
            error = failure
    raise error


def compare(name: str, expected: int, config: Mapping[str, Any]) -> str:
    """A line of the table that is printed."""
    try:
        ours = model.describe(config).weights.total
    except CannotTellError as error:
        return f"cannot tell  {name}: {error}"
    off = ours / expected - 1
    return f"{'ok' if abs(off) < TOLERANCE else 'OFF':11}  {name}: {expected:,} {off:+.2%}"


def tables(chosen: set[str], *, write: bool) -> Iterator[str]:
    rows = json.loads((TESTS / "published.json").read_text(encoding="utf-8"))
    for row in rows:
        if chosen and row["config"]["model_type"] not in chosen:
            continue
        if row["counted_by"] == "transformers":
            row["parameters"] = published(row)
        yield compare(row["name"], row["parameters"], row["config"])
    counts = json.loads((TESTS / "class_counts.json").read_text(encoding="utf-8"))
    for name in sorted({*FAMILIES, *RULES, *JOINTS}):
        if (
            (chosen and name not in chosen)
            or name not in CONFIG_MAPPING
            or name not in class_defaults()
        ):
            continue
        try:
            config, parameters = by_class(name)
        except Exception as error:  # noqa: BLE001  each class fails in its own way
            yield f"no count     {name}: {error!r}"[:150]
            continue
        counts[name] = (config["architectures"][0], parameters)
        yield compare(name, parameters, config)
    if write:
        for file, table in (("published.json", rows), ("class_counts.json", counts)):
            text = json.dumps(table, indent=1) if file == "class_counts.json" else _rows(table)
            (TESTS / file).write_text(text + "\n", encoding="utf-8")


def _rows(rows: list[Any]) -> str:
    return "[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]"


def main() -> None:
    transformers.logging.set_verbosity_error()
    arguments = sys.argv[1:]
    chosen = {word for word in arguments if not word.startswith("--")}
    for line in tables(chosen, write="--write" in arguments):
        print(line, flush=True)


if __name__ == "__main__":
    main()
