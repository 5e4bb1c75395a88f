"""What is asked of the planner: a model's own wishes, read out of its configuration."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from yibu.config import EngineName, ModelConfig
from yibu.errors import ConfigError
from yibu.planner.arithmetic import MIB, kv_element_bytes
from yibu.planner.lora import Slots
from yibu.planner.types import Accelerator, ModelFacts

FEW_THREADS = 4
"""Up to so many a vLLM on a CPU runs without a worker process: binding them to cores, for which it
has one, gains little."""
SEVERAL_PROCESSES = frozenset(
    {
        "distributed_executor_backend",
        "pipeline_parallel_size",
        "data_parallel_size",
        "data_parallel_rank",
        "decode_context_parallel_size",
        "nnodes",
        "worker_cls",
        "api_server_count",
    }
)
"""vLLM's flags that ask for several processes, or say how they are made."""


@dataclass(frozen=True, slots=True)
class Request:
    """One model to place. None means that the planner chooses."""

    name: str
    engine: EngineName
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

    @classmethod
    def of(cls, model: ModelConfig, engine: EngineName, facts: ModelFacts | None) -> Request:
        """Read a model's options and flags.

        Options are looked up by yibu's names, then by the engines' own; flags after ``--`` win
        over options, as they do on the engine's command line.

        Raises:
            ConfigError: A value is not of the type it must have.
        """
        options = {key.replace("-", "_"): value for key, value in model.options.items()}
        asked = _Values(model.name, (parse_flags(model.flags), options))
        context = asked.number("context", "max_model_len", "ctx_size")
        parallel = asked.number("parallel", "max_num_seqs", "n_parallel")
        # llama.cpp's n_ctx is of all sequences together; who gives it alone means one.
        if context is None and (total := asked.number("n_ctx")):
            parallel = parallel or 1
            context = max(1, total // parallel)
        keys, values = asked.text("cache_type_k", "ctk"), asked.text("cache_type_v", "ctv")
        past = asked.number("prompt_cache", "cache_ram", "cache_ram_mib")
        return cls(
            name=model.name,
            engine=engine,
            facts=facts,
            context=context if context and context > 0 else None,
            parallel=parallel,
            threads=asked.number("threads", "n_threads"),
            dtype=asked.text("dtype"),
            kv_dtype=asked.text("kv_cache_dtype") or _larger(keys, values),
            tensor_parallel=asked.number("tensor_parallel", "tensor_parallel_size"),
            gpus=model.gpus,
            memory=model.memory,
            memory_share=asked.fraction("gpu_memory_utilization"),
            batched=asked.number(
                "max_num_batched_tokens", "ubatch", "ubatch_size", "n_ubatch", "ub"
            ),
            embeds=bool(facts and facts.pooling)
            or asked.switch("embeddings", "embedding")
            or asked.text("pooling", "pooling_type") is not None,
            prompt_cache=None if past is None else past * MIB,
            device=asked.text("device"),
            eager=asked.switch("enforce_eager"),
            replicas=model.replicas,
            several=asked.any_of(SEVERAL_PROCESSES) or "VLLM_CPU_OMP_THREADS_BIND" in model.env,
            precision=asked.text("precision"),
            reference=asked.text("path") == "reference",
            lora=_lora_slots(asked, options) if engine == "vllm" else None,
        )


def _lora_slots(asked: _Values, options: Mapping[str, Any]) -> Slots | None:
    """Slots for adapters as vLLM makes them; None where nothing asks for any."""
    if not options.get("lora") and not asked.switch("enable_lora"):
        return None
    usual = Slots()
    return Slots(
        count=asked.number("max_loras") or usual.count,
        rank=asked.number("max_lora_rank") or usual.rank,
        kept=asked.number("max_cpu_loras") or usual.kept,
        element=4 if asked.text("dtype") in ("float32", "float") else usual.element,
        sharded=asked.switch("fully_sharded_loras"),
        modules=frozenset(asked.words("lora_target_modules")),
    )


def _larger(keys: str | None, values: str | None) -> str | None:
    """The type to count a llama.cpp cache with, whose keys and values may be stored in two."""
    if keys is None and values is None:
        return None
    return max(keys or "f16", values or "f16", key=kv_element_bytes)


_SHORT_FLAGS = {"c": "ctx_size", "np": "parallel", "t": "threads", "tp": "tensor_parallel_size"}


def parse_flags(flags: Sequence[str]) -> dict[str, Any]:
    """``--max-model-len 4096 --enforce-eager`` as a mapping; a flag without a value is True."""
    values: dict[str, Any] = {}
    name = None
    for word in flags:
        if word.startswith("-") and not _is_number(word):
            flag, equals, value = word.lstrip("-").partition("=")
            name = _SHORT_FLAGS.get(flag, flag).replace("-", "_")
            values[name] = value if equals else True
            name = None if equals else name
        elif name is not None:
            values[name] = word
            name = None
    return values


def _is_number(word: str) -> bool:
    return word.lstrip("-").replace(".", "", 1).isdigit()


@dataclass(frozen=True, slots=True)
class _Values:
    model: str
    sources: tuple[Mapping[str, Any], ...]
    """Where to look, the one that wins first."""

    def _first(self, names: tuple[str, ...]) -> tuple[str, Any]:
        for values in self.sources:
            for name in names:
                if values.get(name) is not None:
                    return name, values[name]
        return names[0], None

    def any_of(self, names: Collection[str]) -> bool:
        return any(name in values for values in self.sources for name in names)

    def number(self, *names: str) -> int | None:
        """A whole number; ``8k`` and ``8K`` as vLLM reads them; ``auto`` and -1 leave it open."""
        name, value = self._first(names)
        if value is None or value in ("auto", "-1", -1):
            return None
        try:
            return _whole(value)
        except (TypeError, ValueError) as error:
            raise self._refuse(name, value, "a whole number") from error

    def fraction(self, *names: str) -> float | None:
        name, value = self._first(names)
        if value is None:
            return None
        try:
            share = float(value)
        except (TypeError, ValueError) as error:
            raise self._refuse(name, value, "a number above 0 and up to 1") from error
        if not 0 < share <= 1:
            raise self._refuse(name, value, "a number above 0 and up to 1")
        return share

    def text(self, *names: str) -> str | None:
        _, value = self._first(names)
        return None if value in (None, "auto", True) else str(value)

    def words(self, *names: str) -> tuple[str, ...]:
        """Several words out of an option; nothing out of a flag, of which the first alone is read."""
        _, value = self._first(names)
        return tuple(map(str, value)) if isinstance(value, list | tuple) else ()

    def switch(self, *names: str) -> bool:
        _, value = self._first(names)
        return value is True or str(value).lower() == "true"

    def _refuse(self, name: str, value: Any, expected: str) -> ConfigError:
        return ConfigError(
            f"model {self.model!r}: option {name} is {value!r}; {expected} was expected",
            hint="correct it in yibu.yaml under `options:`, or after `--`",
        )


def _whole(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(value)
    text = str(value).strip()
    scale = {"k": 1000, "K": 1024, "m": 1000**2, "M": 1024**2}.get(text[-1:], 1)
    number = float(text[:-1]) * scale if scale > 1 else float(text)
    if not number.is_integer() or number < 0:
        raise ValueError(value)
    return int(number)
