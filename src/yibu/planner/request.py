"""What is asked of the planner for one model; each engine reads it out of its own flags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from yibu.planner.lora import Slots
from yibu.planner.types import Accelerator, ModelFacts

FEW_THREADS = 4
"""Up to so many a vLLM on a CPU runs without a worker process: binding them to cores, for which it
has one, gains little."""
MemoryRule = Literal["paged", "slots", "fixed", "unmanaged"]
"""How an engine's memory is counted: ``paged`` a pool of cache blocks on GPUs or for a CPU (vLLM),
``slots`` a cache of fixed size a sequence (llama.cpp), ``fixed`` a model and its buffers (speech), ``unmanaged``
what a user's own command takes."""


@dataclass(frozen=True, slots=True)
class Request:
    """One model to place. None means that the planner chooses."""

    name: str
    rule: MemoryRule
    facts: ModelFacts | None = None
    """None: there are no files to read (``engine: command``)."""
    context: int | None = None
    """Tokens a sequence."""
    parallel: int | None = None
    """Sequences served at once."""
    threads: int | None = None
    dtype: str | None = None
    """Weights' dtype when loaded; None: as stored."""
    kv_dtype: str | None = None
    tensor_parallel: int | None = None
    pipeline_parallel: int = 1
    """Stages that the layers are divided among, each of ``tensor_parallel`` GPUs."""
    data_parallel: int = 1
    """Copies of all of it within one engine, each on GPUs of its own."""
    gpus: tuple[int, ...] | None = None
    """NVML indices the model is to use; ``()``: none, the CPU."""
    memory: int | None = None
    """Bytes the model may take, of each of its GPUs or of main memory."""
    memory_share: float | None = None
    """vLLM's ``gpu_memory_utilization``, when the user set it."""
    batched: int | None = None
    """Tokens of one engine step."""
    embeds: bool = False
    """It makes vectors or scores, for which llama.cpp takes a whole input in one step."""
    prompt_cache: int | None = None
    """Bytes of llama.cpp's cache of past prompts, when the user set a limit."""
    device: str | None = None
    """``cpu``, ``cuda`` or ``cuda:N``, for the speech engine."""
    eager: bool = False
    """No CUDA graphs."""
    replicas: int = 1
    several: bool = False
    """vLLM is asked for a worker process on a CPU too."""
    precision: str | None = None
    """Of a speech model's weights; None: the engine chooses by the processor."""
    reference: bool = False
    """A speech model run as its authors do, on torch."""
    beside: int = 0
    """Bytes of the models that a speech engine loads beside its own."""
    lora: Slots | None = None
    """What vLLM is to keep for adapters; None: it takes none."""
    accelerator: Accelerator | None = None
    """What llama.cpp computes on beside the CPU; None: nothing."""
    gpu_layers: int | None = None
    """Of llama.cpp's layers, the output matrix being one; 0: the CPU alone."""
    cpu_moe: int | None = None
    """The first layers so many whose experts stay in main memory."""
    draft: ModelFacts | None = None
    """The small model that llama.cpp drafts with."""

    @property
    def groups(self) -> int:
        """Groups of ``tensor_parallel`` GPUs that one engine takes."""
        return self.pipeline_parallel * self.data_parallel
