"""A model's need of each of its GPUs."""

from __future__ import annotations

from collections.abc import Sequence

from yibu.planner.arithmetic import MIB, kv_bytes, loaded_weights, vllm_overhead
from yibu.planner.lora import slot_bytes
from yibu.planner.request import Request
from yibu.planner.types import Gpu, MemoryNeed, ModelFacts

_USUAL_SEQUENCES = 256
_USUAL_BATCHED = 2048
USUAL_CONTEXT = 8192


def margin(gpu: Gpu) -> int:
    """Bytes of a GPU that are not planned: fragmentation, and the driver."""
    return max(256 * MIB, gpu.total // 50)


def wanted_context(request: Request, facts: ModelFacts, cap: int | None) -> int:
    if request.context is not None:
        return request.context
    longest = facts.max_context or USUAL_CONTEXT
    return longest if cap is None else min(longest, cap)


def sequences(request: Request) -> int:
    return request.parallel or _USUAL_SEQUENCES


def least_need(
    request: Request, facts: ModelFacts, tp: int, context: int
) -> tuple[MemoryNeed, int]:
    """What one GPU must hold for one sequence of full length; and the graphs' part of it."""
    batched = request.batched or _USUAL_BATCHED
    overhead = vllm_overhead(
        facts, tp=tp, batched=batched, sequences=sequences(request), eager=request.eager
    )
    share = stage_share(request, facts)
    weights = int(loaded_weights(facts, request.dtype) * share)
    cache = kv_bytes(facts, context, 1, kv_dtype=request.kv_dtype, tp=tp, batched=batched)
    need = MemoryNeed(
        # Norms and routers are kept whole on every GPU: below a hundredth of any model at hand.
        weights=weights if tp == 1 else int(weights / tp * 1.01),
        kv_cache=int(cache * share),
        overhead=overhead.total,
        adapters=slot_bytes(facts, request.lora, tp) if request.lora else 0,
    )
    return need, overhead.graphs


def stage_share(request: Request, facts: ModelFacts) -> float:
    """The part of the layers that the largest stage of a pipeline has; of its weights too, for which
    embeddings and output matrix, on its ends, count as layers."""
    stages = request.pipeline_parallel
    if stages == 1:
        return 1.0
    return -(-facts.layers // stages) / facts.layers if facts.layers else 1 / stages


def fixed_budget(request: Request, gpus: Sequence[Gpu]) -> int | None:
    """Bytes of each GPU that the user set aside: ``memory:``, or vLLM's fraction."""
    if request.memory is not None:
        return request.memory
    if request.memory_share is not None:
        return int(request.memory_share * min(gpu.total for gpu in gpus))
    return None
