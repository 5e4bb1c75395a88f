"""Why a model does not fit on a machine's GPUs, and what would help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from yibu.messages import tr
from yibu.planner.arithmetic import hidden_size, tensor_parallel_problem, valid_size, vocabulary
from yibu.planner.cpu import MIN_CONTEXT, explain_need, largest_context
from yibu.planner.gpu_need import USUAL_CONTEXT, fixed_budget, least_need, margin, wanted_context
from yibu.planner.lora import fewer
from yibu.planner.request import Request
from yibu.planner.text import room_for, size
from yibu.planner.types import Gpu, MemoryNeed, ModelFacts


@dataclass(frozen=True, slots=True)
class PlacementRefusal:
    reason: str
    suggestions: tuple[str, ...] = ()


def too_few(request: Request, facts: ModelFacts, usable: int) -> PlacementRefusal | None:
    """The refusal where more GPUs are asked for than are usable."""
    asked = (request.tensor_parallel or 1) * request.groups
    if asked <= usable:
        return None
    if request.groups > 1:
        reason = tr(
            "pipeline parallel {pipeline_parallel}, data parallel {data_parallel} and tensor "
            "parallel {tensor_parallel} take {wanted} GPUs, and {usable} are usable",
            pipeline_parallel=request.pipeline_parallel,
            data_parallel=request.data_parallel,
            tensor_parallel=request.tensor_parallel or 1,
            wanted=asked,
            usable=usable,
        )
        return PlacementRefusal(reason, (tr("fewer of them, or more GPUs"),))
    reason = tr(
        "tensor parallel {asked} was asked for, and {candidates_count} GPUs are usable",
        asked=asked,
        candidates_count=usable,
    )
    return PlacementRefusal(reason, (f"`tensor_parallel: {valid_size(facts, usable)}`",))


def too_large(
    request: Request, facts: ModelFacts, candidates: Sequence[Gpu], left: Mapping[int, int]
) -> PlacementRefusal:
    """The refusal of a model that fits on none of the ``candidates``, with the arithmetic."""
    if (refusal := too_few(request, facts, len(candidates))) is not None:
        return refusal
    tp = request.tensor_parallel or valid_size(facts, len(candidates) // request.groups)
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
        reason = tr(
            "its budget, {budget} by `{option}:`, is more than the {free} that is free on {where}",
            budget=size(fixed),
            option=option,
            free=room_for(fixed, room),
            where=where,
        )
        least = size(need.total)
        smaller = tr(
            "a smaller `{option}:`; it needs {need_total} at least", option=option, need_total=least
        )
        return PlacementRefusal(reason, (smaller,))
    reason = tr(
        "with {context:,} tokens it needs {need} on {where}, and {need_total} is free there",
        context=context,
        need=explain_need(need),
        where=where,
        need_total=room_for(need.total, room),
    )
    if fixed is not None:
        reason = tr("{reason}; its budget is {fixed}", reason=reason, fixed=size(fixed))
    return PlacementRefusal(reason, suggestions(request, facts, used, need, room))


def suggestions(
    request: Request, facts: ModelFacts, used: Sequence[Gpu], need: MemoryNeed, room: int
) -> tuple[str, ...]:
    """What would fit, each tried with the same arithmetic before it is said."""
    found = [*fewer(request.lora)]
    if request.memory is not None and request.memory < need.total <= room:
        found.append(tr("raise `memory:` to {needed}", needed=size(need.total)))
    found += more_memory(request, facts, used, USUAL_CONTEXT)
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


def more_memory(
    request: Request, facts: ModelFacts, used: Sequence[Gpu], at_least: int
) -> list[str]:
    """What would give the model more memory: processes to stop, and more GPUs of the same kind where
    they make ``at_least`` tokens possible."""
    holders = (
        holder
        for gpu in used
        for holder in sorted(gpu.processes, key=lambda p: -(p.memory or 0))[:2]
    )
    found: list[str] = [
        tr(
            "stop {who} (pid {pid}): it holds {memory}",
            who=holder.name or tr("a process"),
            pid=holder.pid,
            memory=size(holder.memory),
        )
        for holder in holders
        if holder.memory
    ]
    more = _more_gpus(request, facts, used, at_least)
    return [*found, *([more] if more else [])]


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

        context = largest_context(fits, wanted)
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
    embedding = 2 * vocabulary(facts) * hidden_size(facts)
    linear = max(0, facts.parameters - embedding)
    weights = int(linear * 4.16 / 8 + embedding * 2)
    if not facts.parameters or weights > 0.8 * facts.weight_bytes:
        return None
    return replace(facts, weight_bytes=weights, quantization="awq")
