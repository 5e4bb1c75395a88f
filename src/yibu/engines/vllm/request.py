"""What vLLM's flags ask of the planner."""

from __future__ import annotations

from yibu.config import ModelConfig
from yibu.engines.flags import Given
from yibu.planner.lora import Slots
from yibu.planner.request import Request
from yibu.planner.types import ModelFacts

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
"""Flags that ask for several processes, or say how they are made."""


def request_of(model: ModelConfig, given: Given, facts: ModelFacts | None) -> Request:
    """Raises ConfigError where a value is not of the type it must have."""
    context = given.number("max_model_len")
    return Request(
        name=model.name,
        rule="paged",
        facts=facts,
        context=context if context and context > 0 else None,
        parallel=given.number("max_num_seqs"),
        threads=given.number("threads"),
        dtype=given.text("dtype"),
        kv_dtype=given.text("kv_cache_dtype"),
        tensor_parallel=given.number("tensor_parallel_size"),
        pipeline_parallel=given.number("pipeline_parallel_size") or 1,
        data_parallel=given.number("data_parallel_size") or 1,
        gpus=model.gpus,
        memory=model.memory,
        memory_share=given.fraction("gpu_memory_utilization"),
        batched=given.number("max_num_batched_tokens"),
        embeds=bool(facts and facts.pooling),
        eager=given.switch("enforce_eager"),
        replicas=model.replicas,
        several=given.any_of(SEVERAL_PROCESSES) or "VLLM_CPU_OMP_THREADS_BIND" in model.env,
        lora=_lora_slots(model, given),
    )


def _lora_slots(model: ModelConfig, given: Given) -> Slots | None:
    """Slots for adapters as vLLM makes them; None where nothing asks for any."""
    if not model.options.get("lora") and not given.switch("enable_lora"):
        return None
    usual = Slots()
    return Slots(
        count=given.number("max_loras") or usual.count,
        rank=given.number("max_lora_rank") or usual.rank,
        kept=given.number("max_cpu_loras") or usual.kept,
        element=4 if given.text("dtype") in ("float32", "float") else usual.element,
        sharded=given.switch("fully_sharded_loras"),
        modules=frozenset(given.words("lora_target_modules")),
    )
