"""Placement of llama.cpp on GPUs: which layers go there, and what stays in main memory.

llama.cpp has the same search in ``-fit`` (common/fit.cpp), by loading the model without its weights
again and again; here it is arithmetic on the file's header, so that it can be said before anything
is started, with other models counted. Its order is kept: the whole model where that fits; of a
mixture of experts all layers, with the routed experts of the first ones left in main memory; else as
many layers as fit, from the last to the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from yibu.messages import tr
from yibu.planner import cpu
from yibu.planner.division import USUAL_PARALLEL, Search
from yibu.planner.request import Request
from yibu.planner.text import size
from yibu.planner.types import Accelerator, Gpu, Machine, ModelPlan, Offload, Placement

_SHARED = frozenset({"Metal"})
"""Backends whose devices' memory is main memory."""


def wants_gpu(request: Request, machine: Machine) -> bool:
    """Whether a model is one for llama.cpp with GPUs that it can and may compute on."""
    accelerator = request.accelerator
    return (
        request.facts is not None
        and accelerator is not None
        and request.gpus != ()
        and request.gpu_layers != 0
        and bool(accelerator.gpus or machine.gpus)
    )


def place(request: Request, machine: Machine, sharing: int) -> tuple[ModelPlan | None, Machine]:
    """Plan one model with as much as fits on GPUs; and the machine with what is then left.

    None where not one layer fits on a GPU and none was asked for: the CPU is its place then.
    """
    facts, accelerator = request.facts, request.accelerator
    assert facts is not None
    assert accelerator is not None
    cards = _cards(request, accelerator, machine)
    if isinstance(cards, ModelPlan):
        return cards, machine
    memory = (machine.memory_available - cpu.reserve(machine)) // max(1, request.replicas)
    wanted, notes = cpu.wanted_context(request, facts)
    search = Search(request, facts, accelerator, cards, memory)
    found, context, parallel = search.best(wanted)
    if found is None:
        asked = request.gpu_layers is not None or request.gpus is not None
        return (_refusal(search, wanted) if asked else None), machine
    threads = request.threads or cpu.engine_threads(machine, sharing)
    host, past = cpu.with_prompt_cache(request, facts, found.host, memory)
    found = replace(found, host=host)
    fullest = max(found.needs, key=lambda need: need.total)
    placement = Placement(
        gpus=() if accelerator.gpus else tuple(card.index for card in search.used(found)),
        threads=threads,
        context=context,
        parallel=parallel,
        need=fullest,
        budget=fullest.total,
        kv_tokens=context * parallel,
        prompt_cache=past,
        offload=found,
        reasons=tuple(_where(search, found)),
    )
    reasons = (*notes, *_reasons(search, found, wanted, context, parallel))
    plan = ModelPlan(
        request.name,
        "fits_reduced" if context < wanted else "fits",
        placement,
        reasons,
        _suggestions(search, found, context, parallel),
        (placement,) * request.replicas,
    )
    return plan, _less(machine, accelerator, search.used(found), found, request.replicas)


def beside(request: Request, placed: ModelPlan) -> Request:
    """The request with what another model was given taken off the devices that both have: NVML does
    not tell of these, so nobody else will."""
    accelerator, found = request.accelerator, placed.placement and placed.placement.offload
    if accelerator is None or not found:
        return request
    taken = dict(zip(found.names, found.needs, strict=False))
    gpus = tuple(
        replace(gpu, free=gpu.free - taken[name].total * len(placed.replicas))
        if name in taken
        else gpu
        for gpu, name in zip(accelerator.gpus, accelerator.names, strict=True)
    )
    return replace(request, accelerator=replace(accelerator, gpus=gpus))


def _cards(
    request: Request, accelerator: Accelerator, machine: Machine
) -> tuple[Gpu, ...] | ModelPlan:
    """The devices that the model may use, in their order."""
    there = accelerator.gpus or machine.gpus
    if request.gpus is None:
        return there
    known = {gpu.index: gpu for gpu in there}
    if missing := [index for index in request.gpus if index not in known]:
        have = ", ".join(f"{gpu.index} ({gpu.name})" for gpu in there)
        reason = tr(
            "GPU {missing} was asked for, and llama.cpp sees {have} here",
            missing=missing[0],
            have=have,
        )
        return ModelPlan(request.name, "does_not_fit", None, (reason,), (tr("correct `gpus:`"),))
    return tuple(known[index] for index in dict.fromkeys(request.gpus))


def _less(
    machine: Machine, accelerator: Accelerator, used: Sequence[Gpu], found: Offload, times: int
) -> Machine:
    taken = {card.index: need.total for card, need in zip(used, found.needs, strict=True)}
    gpus = machine.gpus
    if not accelerator.gpus:
        gpus = tuple(replace(g, free=g.free - taken.get(g.index, 0) * times) for g in gpus)
    host = found.host.total * times
    if accelerator.backend in _SHARED:
        host += sum(taken.values()) * times
    return replace(machine, gpus=gpus, memory_available=machine.memory_available - host)


def _where(search: Search, found: Offload) -> list[str]:
    """What is on each card."""
    label = found.names or tuple(f"GPU {card.index}" for card in search.used(found))
    cards = zip(label, search.used(found), found.split, strict=True)
    return [
        tr("{count} layers on {name} ({card})", count=count, name=name, card=card.name)
        for name, card, count in cards
    ]


def _reasons(search: Search, found: Offload, wanted: int, context: int, parallel: int) -> list[str]:
    reasons = [
        tr(
            "{name}: {need}; {card} is free",
            name=name,
            need=cpu.explain_need(need),
            card=size(search.room(card)),
        )
        for name, card, need in zip(
            _where(search, found), search.used(found), found.needs, strict=True
        )
    ]
    if not found.whole:
        all_of_it = search.total(search.cost(context, parallel))
        room = sum(map(search.room, search.cards))
        reasons.append(
            tr(
                "the whole model would need {all_of_it} there, and {room} is free: {rest}",
                all_of_it=size(all_of_it),
                room=size(room),
                rest=_rest(
                    found,
                    asked=search.request.gpu_layers is not None
                    or search.request.cpu_moe is not None,
                ),
            )
        )
    reasons.append(
        tr(
            "main memory: {host}; {memory} is free",
            host=cpu.explain_need(found.host),
            memory=size(search.memory),
        )
    )
    if not search.request.parallel and parallel < USUAL_PARALLEL[0]:
        reasons.append(
            tr(
                "{parallel} at once instead of {slots}, so that more of it is on "
                "the GPU (`parallel:` sets another number)",
                parallel=parallel,
                slots=USUAL_PARALLEL[0],
            )
        )
    if context < wanted:
        reasons.append(
            tr(
                "context reduced from {wanted:,} to {context:,} tokens to fit",
                wanted=wanted,
                context=context,
            )
        )
    return reasons


def _rest(found: Offload, *, asked: bool) -> str:
    left = found.layers - found.gpu_layers
    said = []
    if found.cpu_moe:
        said.append(
            tr(
                "the experts of the first {cpu_moe} layers stay in main memory (n_cpu_moe)",
                cpu_moe=found.cpu_moe,
            )
        )
    if left:
        said.append(
            tr(
                "{gpu_layers} of {layers} layers are there, and the first {left} are "
                "computed by the CPU, which is slower (gpu_layers)",
                gpu_layers=found.gpu_layers,
                layers=found.layers,
                left=left,
            )
        )
    both = tr("{first} and {second}", first=said[0], second=said[1]) if len(said) > 1 else said[0]
    return tr("{both}, as asked", both=both) if asked else both


def _suggestions(search: Search, found: Offload, context: int, parallel: int) -> tuple[str, ...]:
    """What would bring more of it onto the cards, tried with the same arithmetic."""
    if found.whole or search.request.gpu_layers is not None:
        return ()
    hints = []
    for kind in ("q8_0", "q4_0"):
        smaller = replace(search, request=replace(search.request, kv_dtype=kind))
        if smaller.whole(smaller.cost(context, parallel)):
            hints.append(
                tr(
                    "`cache_type_k: {kind}` and `cache_type_v: {kind}`: all of it fits then",
                    kind=kind,
                )
            )
            break
    shorter = cpu.largest_context(
        lambda length: search.whole(search.cost(length, parallel)) is not None, context
    )
    if shorter >= cpu.MIN_CONTEXT:
        hints.append(tr("`context: {shorter}`: all of it fits on the GPU then", shorter=shorter))
    return tuple(hints)


def _refusal(search: Search, wanted: int) -> ModelPlan:
    """Why what was asked for does not fit."""
    context = min(wanted, cpu.MIN_CONTEXT)
    parallel = search.request.parallel or 1
    cost = search.cost(context, parallel)
    room, memory = sum(map(search.room, search.cards)), search.memory
    reason = tr(
        "with {context:,} tokens the whole model needs {cost} of GPU memory, and {room} "
        "is free; what does not go there has to fit into {memory} of main memory",
        context=context,
        cost=size(search.total(cost)),
        room=size(room),
        memory=size(memory),
    )
    freed = replace(search, request=replace(search.request, gpu_layers=None, cpu_moe=None))
    hints: list[str] = []
    if (best := freed.divided(cost)) is not None:
        hints.append(
            tr(
                "`gpu_layers: {gpu_layers}` fits, which is chosen where it is left out",
                gpu_layers=best.gpu_layers,
            )
        )
    hints.append(
        tr("a smaller quantization, or a machine with more memory: `yibu plan --machine FILE`")
    )
    return ModelPlan(search.request.name, "does_not_fit", None, (reason,), tuple(hints))
