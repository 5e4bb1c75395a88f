"""Placement of vLLM on GPUs: tensor parallel size, model length, budgets and their fractions.

Two steps. ``place`` finds the GPUs and the context for which a model's least need (weights,
overhead, the cache of one sequence of full length) fits. ``share_out`` then gives what is left on
each GPU to the models on it, since every byte more of cache serves more sequences at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from yibu.messages import tr
from yibu.planner.arithmetic import (
    MIB,
    kv_bytes,
    loaded_weights,
    tensor_parallel_problem,
    vllm_overhead,
)
from yibu.planner.cpu import MIN_CONTEXT, explain_need, largest_context
from yibu.planner.lora import fewer, slot_bytes
from yibu.planner.request import Request
from yibu.planner.text import room_for, size
from yibu.planner.types import Gpu, Machine, MemoryNeed, ModelFacts

_USUAL_SEQUENCES = 256
_USUAL_BATCHED = 2048
_USUAL_CONTEXT = 8192


def margin(gpu: Gpu) -> int:
    """Bytes of a GPU that are planned for nobody: fragmentation, and what the driver takes."""
    return max(256 * MIB, gpu.total // 50)


@dataclass(frozen=True, slots=True)
class Spot:
    """One model, or one replica of it, on its GPUs, before the rest was shared out."""

    request: Request
    facts: ModelFacts
    gpus: tuple[Gpu, ...]
    context: int
    wanted: int
    least: MemoryNeed
    graphs: int
    fixed: int | None
    """The budget the user set, in bytes of each GPU."""

    @property
    def tensor_parallel(self) -> int:
        return len(self.gpus) // self.request.groups

    @property
    def takes_more(self) -> bool:
        """Whether more memory means more cache: no fixed budget, and no encoder without one."""
        return self.fixed is None and self.least.kv_cache > 0

    @property
    def least_budget(self) -> int:
        return self.fixed if self.fixed is not None else self.least.total


@dataclass(frozen=True, slots=True)
class Refusal:
    reason: str
    suggestions: tuple[str, ...] = ()


def wanted_context(request: Request, facts: ModelFacts, cap: int | None) -> int:
    if request.context is not None:
        return request.context
    longest = facts.max_context or _USUAL_CONTEXT
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


def place(
    request: Request,
    facts: ModelFacts,
    machine: Machine,
    left: Mapping[int, int],
    cap: int | None = None,
) -> Spot | Refusal:
    """Find the fewest GPUs that hold the model with the context that is wanted.

    Where no number of GPUs does, the one that leaves the longest context is taken.

    Args:
        left: Bytes still free to plan with, by GPU index.
        cap: Tokens to which a context that nobody asked for is limited.
    """
    candidates = _candidates(request, machine, left)
    if isinstance(candidates, Refusal):
        return candidates
    best: Spot | None = None
    problems = []
    for tp in _sizes(request, len(candidates) // request.groups):
        if problem := tensor_parallel_problem(facts, tp):
            problems.append(problem)
            continue
        spot = _fit(request, facts, candidates[: tp * request.groups], left, cap)
        if spot is None:
            continue
        if best is None or spot.context > best.context:
            best = spot
        if spot.context == spot.wanted:
            break
    if best is not None:
        return best
    if problems and (request.tensor_parallel or request.gpus) and len(problems) == 1:
        return Refusal(
            tr(
                "{problems}, so tensor parallel {tensor_parallel} is not possible",
                problems=problems[0],
                tensor_parallel=request.tensor_parallel or len(candidates),
            ),
            (f"`tensor_parallel: {valid_size(facts, len(candidates))}`",),
        )
    return _too_large(request, facts, candidates, left)


def _candidates(request: Request, machine: Machine, left: Mapping[int, int]) -> list[Gpu] | Refusal:
    """GPUs the model may use, those with most room first."""
    known = {gpu.index: gpu for gpu in machine.gpus}
    if request.gpus is not None:
        if missing := [index for index in request.gpus if index not in known]:
            have = ", ".join(map(str, sorted(known))) or "none"
            return Refusal(
                tr(
                    "GPU {missing} was asked for, and this machine has {have}",
                    missing=missing[0],
                    have=have,
                ),
                (tr("correct `gpus:`, or look at `yibu doctor`"),),
            )
        return [known[index] for index in dict.fromkeys(request.gpus)]
    usable = [g for g in machine.gpus if (g.compute_capability or (9, 9)) >= (7, 0)]
    if not usable:
        names = ", ".join(sorted({gpu.name for gpu in machine.gpus}))
        return Refusal(
            tr(
                "vLLM needs compute capability 7.0 or higher, and this machine has {names}",
                names=names,
            ),
            (tr("use `engine: llama.cpp` with a GGUF of the model"),),
        )
    return sorted(usable, key=lambda gpu: (-left[gpu.index], gpu.index))


def _sizes(request: Request, available: int) -> Sequence[int]:
    if request.tensor_parallel is not None:
        return [request.tensor_parallel] if request.tensor_parallel <= available else []
    if request.gpus is not None:
        # Naming GPUs means using them; fewer only where the heads do not divide.
        return range(available, 0, -1)
    return range(1, available + 1)


def _fit(
    request: Request,
    facts: ModelFacts,
    gpus: Sequence[Gpu],
    left: Mapping[int, int],
    cap: int | None,
) -> Spot | None:
    """The model on exactly these GPUs, with the longest context that fits; None when none does."""
    tp, wanted = len(gpus) // request.groups, wanted_context(request, facts, cap)
    fixed = fixed_budget(request, gpus)
    room = min(left[gpu.index] for gpu in gpus)
    if fixed is not None:
        if fixed > room:
            return None
        room = fixed

    def fits(context: int) -> bool:
        return least_need(request, facts, tp, context)[0].total <= room

    context = wanted if fits(wanted) else largest_context(fits, wanted)
    if context < min(MIN_CONTEXT, wanted):
        return None
    least, graphs = least_need(request, facts, tp, context)
    # What is wanted without a cap is what the verdict is measured by.
    goal = wanted_context(request, facts, None)
    return Spot(request, facts, tuple(gpus), context, goal, least, graphs, fixed)


def fixed_budget(request: Request, gpus: Sequence[Gpu]) -> int | None:
    """Bytes of each GPU that the user set aside: ``memory:``, or vLLM's fraction."""
    if request.memory is not None:
        return request.memory
    if request.memory_share is not None:
        return int(request.memory_share * min(gpu.total for gpu in gpus))
    return None


def share_out(spots: Sequence[Spot], left: Mapping[int, int]) -> list[int]:
    """Budgets, in bytes of each GPU, in the order of ``spots``.

    What the least needs leave free on a GPU is divided evenly among the models there that have
    no budget of the user's; a model on several GPUs takes the smallest of its shares on all.
    """
    spare = dict(left)
    takers = dict.fromkeys(left, 0)
    for spot in spots:
        for gpu in spot.gpus:
            spare[gpu.index] -= spot.least_budget
            takers[gpu.index] += spot.takes_more
    budgets = []
    for spot in spots:
        extra = 0
        if spot.takes_more:
            extra = min(spare[gpu.index] // takers[gpu.index] for gpu in spot.gpus)
        budgets.append(spot.least_budget + max(0, extra))
    return budgets


def start_orders(spots: Sequence[Spot], budgets: Sequence[int]) -> list[int]:
    """When each may start, largest budget first on every GPU.

    vLLM measures free memory while it starts and fails when a neighbour's changes meanwhile, so
    two models on one GPU start one after the other; on different GPUs they start together.
    """
    orders = [0] * len(spots)
    next_free: dict[int, int] = {}
    for position in sorted(range(len(spots)), key=lambda i: (-budgets[i], i)):
        indices = [gpu.index for gpu in spots[position].gpus]
        orders[position] = max(next_free.get(index, 0) for index in indices)
        next_free.update(dict.fromkeys(indices, orders[position] + 1))
    return orders


def memory_share(spot: Spot, budget: int) -> float:
    """vLLM's ``gpu_memory_utilization`` for a budget, rounded down so as to stay within it.

    vLLM captures its graphs after it has filled that fraction with cache, so their part of the
    budget is left out of it.
    """
    if spot.request.memory_share is not None:
        return spot.request.memory_share
    largest = max(gpu.total for gpu in spot.gpus)
    return int((budget - spot.graphs) / largest * 1000) / 1000


# ---------------------------------------------------------------------------- refusals


def valid_size(facts: ModelFacts, limit: int) -> int:
    """The largest tensor parallel size up to ``limit`` that the model allows."""
    return next(
        (tp for tp in range(max(1, limit), 1, -1) if not tensor_parallel_problem(facts, tp)), 1
    )


def _too_large(
    request: Request, facts: ModelFacts, candidates: Sequence[Gpu], left: Mapping[int, int]
) -> Refusal:
    asked = request.tensor_parallel
    if request.groups > 1 and (asked or 1) * request.groups > len(candidates):
        return Refusal(
            tr(
                "pipeline parallel {pipeline_parallel}, data parallel {data_parallel} and "
                "tensor parallel {asked} take {asked2} GPUs, and {candidates_count} are "
                "usable",
                pipeline_parallel=request.pipeline_parallel,
                data_parallel=request.data_parallel,
                asked=asked or 1,
                asked2=(asked or 1) * request.groups,
                candidates_count=len(candidates),
            ),
            (tr("fewer of them, or more GPUs"),),
        )
    if asked is not None and asked > len(candidates):
        return Refusal(
            tr(
                "tensor parallel {asked} was asked for, and {candidates_count} GPUs are usable",
                asked=asked,
                candidates_count=len(candidates),
            ),
            (f"`tensor_parallel: {valid_size(facts, len(candidates))}`",),
        )
    tp = asked or valid_size(facts, len(candidates) // request.groups)
    context = min(MIN_CONTEXT, wanted_context(request, facts, None))
    need, _ = least_need(request, facts, tp, context)
    used = candidates[: tp * request.groups]
    fixed = fixed_budget(request, used)
    room = max(0, min(left[gpu.index] for gpu in used))
    where = (
        tr("each of {used_count} GPUs", used_count=len(used))
        if len(used) > 1
        else f"GPU {used[0].index} ({used[0].name})"
    )
    if fixed is not None and need.total <= room < fixed:
        option = "memory" if request.memory is not None else "gpu_memory_utilization"
        return Refusal(
            tr(
                "its budget, {fixed} by `{option}:`, is more than the {fixed2} that is free "
                "on {where}",
                fixed=size(fixed),
                option=option,
                fixed2=room_for(fixed, room),
                where=where,
            ),
            (
                tr(
                    "a smaller `{option}:`; it needs {need_total} at least",
                    option=option,
                    need_total=size(need.total),
                ),
            ),
        )
    reason = tr(
        "with {context:,} tokens it needs {need} on {where}, and {need_total} is free there",
        context=context,
        need=explain_need(need),
        where=where,
        need_total=room_for(need.total, room),
    )
    if fixed is not None:
        reason = tr("{reason}; its budget is {fixed}", reason=reason, fixed=size(fixed))
    return Refusal(reason, suggestions(request, facts, used, need, room))


def suggestions(
    request: Request,
    facts: ModelFacts,
    used: Sequence[Gpu],
    need: MemoryNeed,
    room: int,
    at_least: int = _USUAL_CONTEXT,
) -> tuple[str, ...]:
    """What would fit, each tried with the same arithmetic before it is said.

    Args:
        at_least: Tokens that make it worth while to buy more GPUs.
    """
    found = [*fewer(request.lora)]
    if request.memory is not None and request.memory < need.total <= room:
        found.append(tr("raise `memory:` to {need_total}", need_total=size(need.total)))
    for gpu in used:
        for holder in sorted(gpu.processes, key=lambda p: -(p.memory or 0))[:2]:
            if holder.memory:
                who = holder.name or tr("a process")
                found.append(
                    tr(
                        "stop {who} (pid {pid}): it holds {memory}",
                        who=who,
                        pid=holder.pid,
                        memory=size(holder.memory),
                    )
                )
    if more := _more_gpus(request, facts, used, at_least):
        found.append(more)
    four = four_bit(facts)
    if four is not None:
        small = least_need(request, four, len(used) // request.groups, MIN_CONTEXT)[0]
        if small.total <= min(room, fixed_budget(request, used) or room):
            found.append(
                tr(
                    "a 4-bit variant (AWQ or GPTQ, about {weight_bytes} of weights) fits",
                    weight_bytes=size(four.weight_bytes),
                )
            )
    return tuple(found) or (tr("a smaller model, or other hardware: `yibu plan --machine FILE`"),)


def _more_gpus(
    request: Request, facts: ModelFacts, used: Sequence[Gpu], at_least: int
) -> str | None:
    """The fewest GPUs of the same kind that hold the model with a useful context."""
    free = min(used[0].total - margin(used[0]), fixed_budget(request, used) or used[0].total)
    wanted = wanted_context(request, facts, None)
    for tp in (2, 4, 8, 16):
        if tp * request.groups <= len(used) or tensor_parallel_problem(facts, tp):
            continue

        def fits(context: int, tp: int = tp) -> bool:
            return least_need(request, facts, tp, context)[0].total <= free

        context = wanted if fits(wanted) else largest_context(fits, wanted)
        if context >= min(wanted, at_least):
            return tr(
                "{tp} GPUs of {used_total} hold it with {context:,} tokens",
                tp=tp * request.groups,
                used_total=size(used[0].total),
                context=context,
            )
    return None


def four_bit(facts: ModelFacts) -> ModelFacts | None:
    """The same model with 4-bit weights; None when it is about that small already.

    A weight takes 4 bits and its share of scales and zero points in groups of 128; embeddings
    and the output matrix stay in half precision.
    """
    from yibu.planner.arithmetic import hidden_size, vocabulary

    embedding = 2 * vocabulary(facts) * hidden_size(facts)
    linear = max(0, facts.parameters - embedding)
    weights = int(linear * 4.16 / 8 + embedding * 2)
    if not facts.parameters or weights > 0.8 * facts.weight_bytes:
        return None
    return replace(facts, weight_bytes=weights, quantization="awq")
