"""What the planner takes and gives. Sizes are bytes everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from yibu.planner.cache import CacheGroup
from yibu.planner.layers import Layers

ModelFormat = Literal[
    "gguf",
    "safetensors",
    "sensevoice",
    "sensevoice-onnx",
    "paraformer",
    "paraformer-onnx",
    "whisper-ct2",
    "unknown",
]


Verdict = Literal["fits", "fits_reduced", "does_not_fit", "cannot_tell"]


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """Someone who holds memory of a GPU."""

    pid: int
    name: str
    """The program's name, ``""`` where it cannot be seen."""
    memory: int | None
    """Bytes; None where the driver does not say (a container, or another user's process)."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as NVML (or a machine file) describes it."""

    index: int
    name: str
    total: int
    free: int
    compute_capability: tuple[int, int] | None = None
    driver: str | None = None
    uuid: str = ""
    processes: tuple[GpuProcess, ...] = ()
    """Who held its memory when it was measured."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine has, measured by ``yibu.node.machine.hardware`` or read from a file."""

    name: str
    cores: int
    """Physical cores this process may use (affinity and cgroup quota counted in)."""
    threads: int
    """Logical CPUs this process may use."""
    memory_total: int
    memory_available: int
    gpus: tuple[Gpu, ...] = ()
    numa_nodes: int = 1
    numa_cpus: tuple[tuple[int, ...], ...] = ()
    """One logical CPU of each physical core this process may run on, by NUMA node; empty where
    a machine is only described."""
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
    template_takes_tools: bool = False
    """Its chat template puts a request's tools into the prompt."""
    template_thinks: bool = False
    """Its chat template is of a model that thinks before it answers."""
    pooling: bool = False
    """An embedding model: it gives vectors, not text."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """The raw config (config.json or GGUF metadata) for engine-specific rules."""
    projector_bytes: int = 0
    """Of the vision projector that is loaded beside a GGUF model; counted in ``weight_bytes`` too."""
    files: tuple[str, ...] = ()
    """Names of the weight files in the directory that was read, the one to open first (a split
    GGUF's first part) leading; empty when a single file was read."""
    by_layer: Layers | None = None
    """A GGUF model's weights by layer; None where not all of its headers were read."""
    estimated: bool = False
    """The weights were reckoned from config.json alone, no header or index being at hand."""
    unknown: str = ""
    """Why weights or cache cannot be told: no rule for the architecture, or a key that is missing."""
    cache: tuple[CacheGroup, ...] = ()
    """What a transformers model's layers keep; a GGUF's is told from its metadata."""
    active_parameters: int = 0
    """What one token uses; 0 where that is not known."""
    tower_parameters: int = 0
    """Of towers for images and sound, part of ``parameters``; told from config.json."""


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Where a model's memory goes, in bytes."""

    weights: int
    kv_cache: int
    overhead: int
    adapters: int = 0
    """LoRA slots, and on a CPU the adapters that are kept to fill them."""

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.overhead + self.adapters


@dataclass(frozen=True, slots=True)
class Accelerator:
    """What a build of llama.cpp computes on beside the CPU."""

    backend: str
    """``CUDA``, ``Vulkan``, ``ROCm``, ``Metal`` …, as its devices' names begin."""
    gpus: tuple[Gpu, ...] = ()
    """Its devices as it describes them itself; empty: the machine's GPUs, as NVML has them."""
    names: tuple[str, ...] = ()
    """What it calls ``gpus``."""


@dataclass(frozen=True, slots=True)
class Offload:
    """Which part of a GGUF model is on which GPU, and what stays in main memory."""

    gpu_layers: int
    """As llama.cpp counts them: the layers from the last to the first, the output matrix being one."""
    layers: int
    """All that there are, the output matrix being one."""
    cpu_moe: int
    """The first layers so many whose routed experts stay in main memory."""
    split: tuple[int, ...]
    """Layers on each GPU."""
    names: tuple[str, ...]
    """The devices as llama.cpp calls them; empty for those that NVML numbers."""
    needs: tuple[MemoryNeed, ...]
    """Of each GPU."""
    host: MemoryNeed
    """Of main memory."""

    @property
    def whole(self) -> bool:
        return self.gpu_layers == self.layers and not self.cpu_moe


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
    """Of each GPU, or of main memory for each tensor-parallel rank."""
    tensor_parallel: int = 1
    reasons: tuple[str, ...] = ()
    memory_share: float | None = None
    """vLLM's ``gpu_memory_utilization``: the budget over the smallest GPU's total memory."""
    budget: int = 0
    """Bytes the model may take of each of its GPUs, or of main memory; at least ``need.total``
    where the rest goes to more KV cache."""
    start_order: int = 0
    """Models of one number may be started at once; the next number when those are ready."""
    kv_tokens: int | None = None
    """Tokens that the KV cache holds in all; None without one."""
    dtype: str | None = None
    """The dtype to load the weights in, where the hardware asks for another than stored."""
    prompt_cache: int | None = None
    """Bytes of main memory for llama.cpp's prompts of past conversations, part of
    ``need.overhead``; None for other engines."""
    warning: str = ""
    """What the user is told before it starts: it was forced, and why that is risky."""
    offload: Offload | None = None
    """Of a GGUF model on GPUs; ``need`` is then what the fullest of them holds."""
    cpus: tuple[tuple[int, ...], ...] = ()
    """The logical CPUs of each tensor-parallel rank on a CPU; empty where nobody binds any."""


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """The verdict on one model."""

    model: str
    verdict: Verdict
    placement: Placement | None
    """None when it does not fit, and when that cannot be told."""
    reasons: tuple[str, ...]
    suggestions: tuple[str, ...] = ()
    """What would fit, or fit better, when this does not."""
    replicas: tuple[Placement, ...] = ()
    """One placement a replica, ``placement`` being the first; empty when it does not fit."""
