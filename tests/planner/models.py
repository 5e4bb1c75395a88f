"""Well-known models, out of published.json, and what tests ask of the planner for them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from yibu.planner.facts import facts_from_headers
from yibu.planner.plan import plan
from yibu.planner.request import Request
from yibu.planner.types import Gpu, Machine, ModelFacts, Placement

GIB, MIB = 1 << 30, 1 << 20
ROWS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "published.json").read_text(encoding="utf-8")
)
CONFIGS: dict[str, dict[str, Any]] = {row["name"]: row["config"] for row in ROWS}

SMOL = ModelFacts(
    format="gguf",
    architecture="llama",
    weight_bytes=96_576_768,
    max_context=8192,
    layers=30,
    attention_heads=9,
    kv_heads=3,
    head_dim=64,
    dtype="Q4_1",
    quantization="Q4_1",
    parameters=134_515_008,
    details={
        "llama.vocab_size": 49152,
        "llama.embedding_length": 576,
        "llama.feed_forward_length": 1536,
    },
)
"""SmolLM2-135M-Instruct.Q4_1.gguf."""


@cache
def facts_of(name: str) -> ModelFacts:
    return facts_from_headers(name=name, config=CONFIGS[name])


def vllm(name: str, **options: object) -> Request:
    return Request(name, "paged", facts_of(name), **options)  # type: ignore[arg-type]  # by name


def machine_with(*gpus: Gpu, memory: float = 64, cores: int = 16) -> Machine:
    """A machine with so many GiB of main memory, all of it free."""
    return Machine("m", cores, 2 * cores, int(memory * GIB), int(memory * GIB), gpus)


def gpu(index: int, gib: float, free: float | None = None, **more: object) -> Gpu:
    total = int(gib * GIB)
    left = total if free is None else int(free * GIB)
    return Gpu(index, "G", total, left, **more)  # type: ignore[arg-type]  # by name


def placed(request: Request, machine: Machine) -> Placement:
    """Where a model goes that is planned alone, and fits."""
    (result,) = plan([request], machine)
    assert result.placement is not None, result.reasons
    return result.placement
