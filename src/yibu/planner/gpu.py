"""Placement of vLLM on GPUs: tensor parallel size, model length, budgets and their fractions.

Two steps. ``place`` finds the GPUs and the context for which a model's least need (weights,
overhead, the cache of one sequence of full length) fits. ``share_out`` then gives what is left on
each GPU to the models on it, since every byte more of cache serves more sequences at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from yibu.messages import tr
from yibu.planner.arithmetic import kv_bytes_per_token, tensor_parallel_problem, valid_size
from yibu.planner.cpu import MIN_CONTEXT, largest_context
from yibu.planner.gpu_advice import PlacementRefusal, too_large
from yibu.planner.gpu_need import (
    fixed_budget,
    least_need,
    sequences,
    stage_share,
    wanted_context,
)
from yibu.planner.request import Request
from yibu.planner.text import size
from yibu.planner.types import Gpu, Machine, MemoryNeed, ModelFacts, Placement


@dataclass(frozen=True, slots=True)
class Spot:
    """One model, or one replica, on its GPUs, before the remaining memory is shared out."""

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
        """Whether more memory means more cache: no fixed budget, and not an encoder without a cache."""
        return self.fixed is None and self.least.kv_cache > 0

    @property
    def least_budget(self) -> int:
        return self.fixed if self.fixed is not None else self.least.total


def place(
    request: Request,
    facts: ModelFacts,
    machine: Machine,
    left: Mapping[int, int],
    cap: int | None = None,
) -> Spot | PlacementRefusal:
    """Find the fewest GPUs that hold the model with the context that is wanted.

    Where no number of GPUs does, the one that leaves the longest context is taken.

    Args:
        left: Bytes still free to plan with, by GPU index.
        cap: Tokens to which a context that nobody asked for is limited.
    """
    candidates = _candidates(request, machine, left)
    if isinstance(candidates, PlacementRefusal):
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
        return PlacementRefusal(
            tr(
                "{problems}, so tensor parallel {tensor_parallel} is not possible",
                problems=problems[0],
                tensor_parallel=request.tensor_parallel or len(candidates),
            ),
            (f"`tensor_parallel: {valid_size(facts, len(candidates))}`",),
        )
    return too_large(request, facts, candidates, left)


def _candidates(
    request: Request, machine: Machine, left: Mapping[int, int]
) -> list[Gpu] | PlacementRefusal:
    """GPUs the model may use, those with most room first."""
    known = {gpu.index: gpu for gpu in machine.gpus}
    if request.gpus is not None:
        if missing := [index for index in request.gpus if index not in known]:
            have = ", ".join(map(str, sorted(known))) or tr("none")
            return PlacementRefusal(
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
        return PlacementRefusal(
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

    context = largest_context(fits, wanted)
    if context < min(MIN_CONTEXT, wanted):
        return None
    least, graphs = least_need(request, facts, tp, context)
    # What is wanted without a cap is what the verdict is measured by.
    goal = wanted_context(request, facts, None)
    return Spot(request, facts, tuple(gpus), context, goal, least, graphs, fixed)


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
    """The start order of each, largest budget first on every GPU.

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


def placement(spot: Spot, budget: int, order: int, machine: Machine) -> Placement:
    """The placement of a model on its GPUs with a budget of each."""
    request, facts, tp = spot.request, spot.facts, spot.tensor_parallel
    cache = budget - (spot.least.total - spot.least.kv_cache)
    # A cache beyond what all sequences could ever fill is still allocated by vLLM.
    need = replace(spot.least, kv_cache=cache)
    per_token = int(kv_bytes_per_token(facts, request.kv_dtype, tp) * stage_share(request, facts))
    fixed_part = spot.least.kv_cache - per_token * spot.context
    tokens = (cache - max(0, fixed_part)) // per_token if per_token else None
    share = memory_share(spot, budget)
    old = [g for g in spot.gpus if g.compute_capability and g.compute_capability < (8, 0)]
    stored = request.dtype is None and facts.dtype == "bfloat16" and facts.quantization is None
    dtype = "float16" if stored and old else None
    reasons = _reasons(spot, share)
    if dtype is not None:
        reasons.append(tr("dtype float16: {old} does not compute in bfloat16", old=old[0].name))
    return Placement(
        gpus=tuple(g.index for g in spot.gpus),
        threads=request.threads or max(1, min(machine.cores // max(1, len(machine.gpus)), 8) * tp),
        context=spot.context,
        parallel=sequences(request),
        need=need,
        tensor_parallel=tp,
        reasons=tuple(reasons),
        memory_share=share,
        budget=budget,
        start_order=order,
        kv_tokens=tokens,
        dtype=dtype,
    )


def _reasons(spot: Spot, share: float) -> list[str]:
    """The reasons for the division of these GPUs."""
    request, facts, tp = spot.request, spot.facts, spot.tensor_parallel
    names = ", ".join(str(g.index) for g in spot.gpus)
    reasons = [f"GPU {names} ({spot.gpus[0].name})"]
    if tp > 1:
        reasons.append(
            tr(
                "tensor parallel {tp}: {heads} heads, {heads_each} a GPU",
                tp=tp,
                heads=facts.attention_heads,
                heads_each=facts.attention_heads // tp,
            )
        )
    if request.pipeline_parallel > 1:
        reasons.append(
            tr(
                "pipeline parallel {pipeline_parallel}: {layers} layers in "
                "{pipeline_parallel} stages",
                pipeline_parallel=request.pipeline_parallel,
                layers=facts.layers,
            )
        )
    if request.data_parallel > 1:
        reasons.append(
            tr(
                "data parallel {data_parallel}: as many copies of all of it",
                data_parallel=request.data_parallel,
            )
        )
    reasons.append(
        tr(
            "memory share {share:.3f} of {gpus}",
            share=share,
            gpus=size(max(g.total for g in spot.gpus)),
        )
    )
    return reasons
