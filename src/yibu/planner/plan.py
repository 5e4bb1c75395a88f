"""Which model goes where, with what, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from yibu.messages import tr
from yibu.planner import cpu, gpu, offload, speech
from yibu.planner.arithmetic import kv_bytes_per_token, valid_size
from yibu.planner.gpu import Spot
from yibu.planner.gpu_advice import PlacementRefusal, more_memory
from yibu.planner.gpu_need import least_need, margin
from yibu.planner.request import Request
from yibu.planner.text import size
from yibu.planner.types import Machine, ModelPlan, Placement

_PLENTY = 1 << 50
_BLIND_CACHE = 1 << 30
"""Bytes of cache for a model of which nobody can tell what it keeps: of most the shortest context
that is of use, several times."""
_BLIND_CONTEXT = 4_096
_FORCED_SHARE = 0.95
"""vLLM's fraction for a model that does not fit: about all of the card."""
_CONTEXT_CAPS = (None, 32_768, 8_192, 2_048)
"""Limits tried, one after the other, on contexts that nobody asked for, until all models fit."""


def plan(models: Sequence[Request], machine: Machine, neighbours: int = 0) -> list[ModelPlan]:
    """Plan models on a machine, together: what one takes is gone for the next.

    vLLM goes to GPUs where there are any, speech where it is asked to, llama.cpp with as much as fits
    where its build has a GPU, everything else to the CPU. On GPUs the models with
    GPUs or budgets of their own are placed first, then the largest. The result has the order of
    ``models``.

    Args:
        neighbours: Engines that use the CPU's cores already.
    """
    plans: dict[int, ModelPlan] = {
        i: _cannot_tell(request) for i, request in enumerate(models) if unknown(request)
    }
    for i in range(len(models)):
        request = models[i]
        if i in plans:
            continue
        if speech.wants_gpu(request):
            plans[i], machine = speech.place_on_gpu(request, machine)
        elif offload.wants_gpu(request, machine):
            found, machine = offload.place(request, machine, neighbours + len(models))
            if found is not None:
                plans[i] = found
                models = [offload.beside(other, found) for other in models]
    on_gpu = [
        i for i, request in enumerate(models) if i not in plans and _goes_to_gpu(request, machine)
    ]
    plans.update(_plan_gpus({i: models[i] for i in on_gpu}, machine))
    rest = [i for i in range(len(models)) if i not in plans]
    left = machine.memory_available - cpu.reserve(machine)
    sharing = neighbours + sum(models[i].replicas for i in rest)
    for i in rest:
        result = _place_on_cpu(models[i], machine, left, sharing)
        if result.placement is not None:
            ranks = result.placement.tensor_parallel
            left -= result.placement.need.total * ranks * models[i].replicas
            result = replace(result, replicas=(result.placement,) * models[i].replicas)
        plans[i] = result
    return [plans[i] for i in range(len(models))]


def _place_on_cpu(request: Request, machine: Machine, left: int, sharing: int) -> ModelPlan:
    fixed = request.rule == "fixed" and request.facts is not None
    return (speech.place_on_cpu if fixed else cpu.place)(request, machine, left, sharing)


def unknown(request: Request) -> str:
    """Why it cannot be told what a model needs; "" where it can, or where nobody has to know."""
    if request.facts is None or request.rule in ("fixed", "unmanaged"):
        return ""
    return request.facts.unknown


def _cannot_tell(request: Request) -> ModelPlan:
    hints: tuple[str, ...] = (tr("start it all the same, with what is known: `yibu up --force`"),)
    # The cache is known, and it is the quantization that is not.
    if request.facts is not None and request.facts.estimated and request.facts.cache:
        hints = (tr("pull it: its weights' headers tell their size"), *hints)
    reason = tr("what it needs cannot be told: {request}", request=unknown(request))
    return ModelPlan(request.name, "cannot_tell", None, (reason,), hints)


def place_beside(
    request: Request, coming: Sequence[Request], machine: Machine, neighbours: int = 0
) -> tuple[ModelPlan, Placement | None]:
    """Plan one model so that those which are still to be placed find room too: GPU memory for more
    cache is divided, and so are the CPU's cores. Where it does not fit like that, it is planned as
    if it were alone: who comes first is served first.

    Returns the verdict, and the placement of its first replica.
    """
    verdict = plan([request, *coming], machine, neighbours)[0]
    if verdict.placement is None:
        verdict = plan([request], machine, neighbours)[0]
    return verdict, verdict.placement


def place_anyway(request: Request, machine: Machine) -> Placement | None:
    """Where to start a model that does not fit: as if the memory were there.

    It gets the least: the context that was asked for or the shortest that is of use, one sequence
    at once on a CPU, all GPUs that its heads divide by. None where more memory would not help.
    """
    least = cpu.MIN_CONTEXT
    if unknown(request) and request.facts is not None:
        # Nobody can tell that a longer one does not fit.
        least = min(request.facts.max_context or _BLIND_CONTEXT, _BLIND_CONTEXT)
    request = replace(
        request,
        context=request.context or least,
        memory=None,
        replicas=1,
        prompt_cache=request.prompt_cache or 0,
    )
    if offload.wants_gpu(request, machine):
        plenty = replace(machine, memory_available=_PLENTY)
        found = offload.place(replace(request, gpu_layers=None), plenty, 1)[0]
        if found is not None and found.placement is not None:
            return found.placement
    if not _goes_to_gpu(request, machine):
        one = replace(request, parallel=request.parallel or 1)
        placement = _place_on_cpu(one, machine, _PLENTY, 1).placement
        if placement is None or not unknown(request):
            return placement
        cache = max(placement.need.kv_cache, min(_BLIND_CACHE, machine.memory_available // 4))
        return replace(placement, need=replace(placement.need, kv_cache=cache))
    assert request.facts is not None  # _goes_to_gpu saw to it
    count = len(request.gpus or machine.gpus)
    tp = request.tensor_parallel or valid_size(request.facts, count // request.groups)
    roomy = replace(machine, gpus=tuple(replace(g, total=_PLENTY) for g in machine.gpus))
    left = {g.index: _PLENTY for g in machine.gpus}
    share = request.memory_share or _FORCED_SHARE
    wanted = replace(request, tensor_parallel=tp, memory_share=share)
    spot = gpu.place(wanted, request.facts, roomy, left)
    if isinstance(spot, PlacementRefusal):
        return None
    return gpu.placement(spot, spot.least.total, 0, machine)


def may_use_gpus(gpus: Sequence[int] | None, machine: Machine) -> bool:
    """Whether an engine that wants GPUs gets some: there are any, or the entry names them, and it does
    not say ``gpus: []``."""
    return gpus != () and bool(machine.gpus or gpus)


def _goes_to_gpu(request: Request, machine: Machine) -> bool:
    return (
        request.rule == "paged"
        and request.facts is not None
        and may_use_gpus(request.gpus, machine)
    )


def room(machine: Machine) -> dict[int, int]:
    """Bytes to plan with on each GPU, by index."""
    return {g.index: max(0, min(g.free, g.total - margin(g))) for g in machine.gpus}


def _plan_gpus(requests: Mapping[int, Request], machine: Machine) -> dict[int, ModelPlan]:
    """Try longer contexts first; keep the first attempt in which the most models fit."""
    best: dict[int, list[Spot] | PlacementRefusal] = {}
    most = -1
    for cap in _CONTEXT_CAPS:
        attempt = _attempt(requests, machine, cap)
        fitting = sum(not isinstance(found, PlacementRefusal) for found in attempt.values())
        if fitting > most:
            best, most = attempt, fitting
        if fitting == len(requests):
            break
    placed = [(i, spot) for i, found in best.items() if isinstance(found, list) for spot in found]
    spots = [spot for _, spot in placed]
    budgets = gpu.share_out(spots, room(machine))
    orders = gpu.start_orders(spots, budgets)
    placements: dict[int, list[Placement]] = {}
    for (i, spot), budget, order in zip(placed, budgets, orders, strict=True):
        placements.setdefault(i, []).append(gpu.placement(spot, budget, order, machine))
    plans = {}
    for i, found in best.items():
        if isinstance(found, PlacementRefusal):
            plans[i] = ModelPlan(
                requests[i].name, "does_not_fit", None, (found.reason,), found.suggestions
            )
        else:
            plans[i] = _model_plan(found[0], placements[i])
    return plans


def _attempt(
    requests: Mapping[int, Request], machine: Machine, cap: int | None
) -> dict[int, list[Spot] | PlacementRefusal]:
    left = room(machine)
    result: dict[int, list[Spot] | PlacementRefusal] = {}
    for i in sorted(requests, key=lambda i: _urgency(requests[i], i)):
        request = requests[i]
        before = dict(left)
        spots: list[Spot] = []
        for _ in range(request.replicas):
            assert request.facts is not None  # _goes_to_gpu saw to it
            spot = gpu.place(request, request.facts, machine, left, cap)
            if isinstance(spot, PlacementRefusal):
                result[i] = _of_replicas(spot, len(spots), request)
                left = before
                break
            for used in spot.gpus:
                left[used.index] -= spot.least_budget
            spots.append(spot)
        else:
            result[i] = spots
    return result


def _urgency(request: Request, position: int) -> tuple[bool, bool, int, int]:
    """Those with the least choice first, then the largest, then the file's order."""
    weights = request.facts.weight_bytes if request.facts else 0
    fixed = request.memory is not None or request.memory_share is not None
    return (request.gpus is None, not fixed, -weights, position)


def _of_replicas(refusal: PlacementRefusal, placed: int, request: Request) -> PlacementRefusal:
    if not placed:
        return refusal
    reason = tr(
        "{placed} of {replicas} replicas fit; for the next, {reason}",
        placed=placed,
        replicas=request.replicas,
        reason=refusal.reason,
    )
    return PlacementRefusal(reason, (f"`replicas: {placed}`", *refusal.suggestions))


def _each(text: str, *, many: bool) -> str:
    return tr("{text} on each GPU", text=text) if many else text


def _model_plan(spot: Spot, placements: Sequence[Placement]) -> ModelPlan:
    first, facts = placements[0], spot.facts
    many = len(spot.gpus) > 1
    per_token = kv_bytes_per_token(facts, spot.request.kv_dtype, spot.tensor_parallel)
    reasons = [
        _each(cpu.explain_need(first.need), many=many),
        _each(tr("KV cache: {per_token:,} bytes a token", per_token=per_token), many=many),
    ]
    if first.kv_tokens is not None and first.context:
        reasons.append(
            tr(
                "room for {tokens:,} tokens: {sequences:.1f} sequences of {context:,} at once",
                tokens=first.kv_tokens,
                sequences=first.kv_tokens / first.context,
                context=first.context,
            )
        )
    if spot.takes_more and first.budget > spot.least.total * 1.1:
        reasons.append(
            tr(
                "{least} would do; what is free beyond goes to more KV cache, for more "
                "sequences at once (`memory:` sets another budget)",
                least=_each(size(spot.least.total), many=many),
            )
        )
    if facts.estimated:
        reasons.append(tr("weights reckoned from config.json alone"))
    if spot.context == spot.wanted:
        return ModelPlan(spot.request.name, "fits", first, tuple(reasons), (), tuple(placements))
    reasons.append(
        tr(
            "max-model-len {context:,} instead of {wanted:,}, so that it fits",
            context=spot.context,
            wanted=spot.wanted,
        )
    )
    hints = _reduced_hints(spot, first.budget)
    return ModelPlan(
        spot.request.name, "fits_reduced", first, tuple(reasons), hints, tuple(placements)
    )


def _reduced_hints(spot: Spot, budget: int) -> tuple[str, ...]:
    """What would give the whole context back, tried with the same arithmetic."""
    hints: list[str] = []
    # Before Ada and Hopper vLLM's usual attention kernels know no 8-bit cache.
    if spot.request.kv_dtype is None and all(
        g.compute_capability is None or g.compute_capability >= (8, 9) for g in spot.gpus
    ):
        smaller = replace(spot.request, kv_dtype="fp8")
        need, _ = least_need(smaller, spot.facts, spot.tensor_parallel, spot.wanted)
        if need.total <= budget:
            hints.append(tr("`kv_cache_dtype: fp8` halves the cache and gives the whole context"))
    hints += more_memory(spot.request, spot.facts, spot.gpus, spot.wanted)
    return tuple(hints)
