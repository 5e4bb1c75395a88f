"""Models, facts and placements to plan with."""

from __future__ import annotations

from typing import Any

from yibu.config import ModelConfig
from yibu.planner.types import MemoryNeed, ModelFacts, ModelFormat, Placement

MIB = 1024**2


def facts(format: ModelFormat = "gguf", **values: Any) -> ModelFacts:
    defaults: dict[str, Any] = {
        "architecture": "llama",
        "weight_bytes": 98 * MIB,
        "max_context": 8192,
        "chat_template": True,
    }
    return ModelFacts(format=format, **{**defaults, **values})


def placement(**values: Any) -> Placement:
    defaults: dict[str, Any] = {
        "gpus": (),
        "threads": 2,
        "context": 4096,
        "parallel": 4,
        "need": MemoryNeed(weights=98 * MIB, kv_cache=512 * MIB, overhead=64 * MIB),
    }
    return Placement(**{**defaults, **values})


def model(options: dict[str, Any] | None = None, *flags: str, **values: Any) -> ModelConfig:
    defaults: dict[str, Any] = {"name": "m", "source": "ORG/NAME"}
    return ModelConfig(**{**defaults, **values}, options=options or {}, flags=tuple(flags))
