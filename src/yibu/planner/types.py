"""What the planner takes and gives. Sizes are bytes everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

ModelFormat = Literal[
    "gguf", "safetensors", "sensevoice", "sensevoice-onnx", "whisper-ct2", "unknown"
]


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as NVML (or a machine file) describes it."""

    index: int
    name: str
    total: int
    free: int
    compute_capability: tuple[int, int] | None = None
    driver: str | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine has, measured by ``yibu.node.hardware`` or read from a file."""

    name: str
    cores: int
    """Physical cores this process may use (affinity and cgroup quota counted in)."""
    threads: int
    """Logical CPUs this process may use."""
    memory_total: int
    memory_available: int
    gpus: tuple[Gpu, ...] = ()
    numa_nodes: int = 1
    arch: str = "x86_64"
    system: str = "Linux"


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the files say of a model, read from headers alone."""

    format: ModelFormat
    architecture: str
    """``general.architecture`` of a GGUF, ``architectures[0]`` of a config.json."""
    weight_bytes: int
    """Bytes of weights as stored, which is as loaded for the formats served here."""
    max_context: int | None = None
    """Tokens the model was trained for; None where that has no meaning (speech)."""
    layers: int = 0
    attention_heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    dtype: str = ""
    """``bfloat16``, ``float16``, ``Q4_1`` …, as stored."""
    quantization: str | None = None
    parameters: int = 0
    chat_template: bool = False
    pooling: bool = False
    """An embedding model: it gives vectors, not text."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """The raw config (config.json or GGUF metadata) for engine-specific rules."""


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Where a model's memory goes, in bytes."""

    weights: int
    kv_cache: int
    overhead: int

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.overhead


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one model runs and with what, with the reasons in words."""

    gpus: tuple[int, ...]
    """Empty: on the CPU."""
    threads: int
    context: int | None
    """Tokens a sequence; None for engines without a context."""
    parallel: int
    """Sequences served at once."""
    need: MemoryNeed
    tensor_parallel: int = 1
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """The verdict on one model."""

    model: str
    verdict: Literal["fits", "fits_reduced", "does_not_fit"]
    placement: Placement | None
    """None when it does not fit."""
    reasons: tuple[str, ...]
    suggestions: tuple[str, ...] = ()
    """What would fit, when this does not."""
