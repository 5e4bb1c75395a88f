"""Placement of a speech engine on a GPU: only where ``gpus:`` or ``device: cuda`` asks for it.

On a CPU the speech engine is faster than anyone speaks many times over, so a GPU is not taken from
a language model unasked.
"""

from __future__ import annotations

from dataclasses import replace

from yibu.messages import tr
from yibu.planner.arithmetic import GIB
from yibu.planner.cpu import engine_threads
from yibu.planner.request import Request
from yibu.planner.text import room_for, size
from yibu.planner.types import Gpu, Machine, MemoryNeed, ModelPlan, Placement

_OVERHEAD = int(1.5 * GIB)
"""CUDA's context and kernels, and the activations of one group of segments. An allowance: no
measurement on a card backs it yet."""


def wants_gpu(request: Request) -> bool:
    """Whether a model is a speech model that was asked to run on a GPU."""
    if request.rule != "fixed" or request.facts is None or request.device == "cpu":
        return False
    return bool(request.gpus) or (request.device or "").startswith("cuda")


def place(request: Request, machine: Machine) -> tuple[ModelPlan, Machine]:
    """Plan one speech model on one GPU; and the machine with what is then left of it."""
    assert request.facts is not None  # wants_gpu saw to it
    chosen = _chosen(request, machine)
    if chosen is None:
        have = ", ".join(str(gpu.index) for gpu in machine.gpus) or "none"
        reason = tr("it was asked onto a GPU that is not here: this machine has {have}", have=have)
        hint = tr("correct `gpus:` or `device:`, or leave both out: it runs on the CPU then")
        return ModelPlan(request.name, "does_not_fit", None, (reason,), (hint,)), machine
    need = MemoryNeed(request.facts.weight_bytes, 0, _OVERHEAD)
    taken = need.total * request.replicas
    arithmetic = tr(
        "weights {weights} + runtime and buffers {overhead} = {need_total}",
        weights=size(need.weights),
        overhead=size(need.overhead),
        need_total=size(need.total),
    )
    if request.replicas > 1:
        arithmetic = tr(
            "{arithmetic}, {copies} times", arithmetic=arithmetic, copies=request.replicas
        )
    arithmetic = tr(
        "{arithmetic}, and {taken} is free on GPU {chosen_index} ({chosen})",
        arithmetic=arithmetic,
        taken=room_for(taken, chosen.free),
        chosen_index=chosen.index,
        chosen=chosen.name,
    )
    if taken > chosen.free:
        hint = tr("leave `gpus:` and `device:` out: it runs on the CPU then")
        return ModelPlan(request.name, "does_not_fit", None, (arithmetic,), (hint,)), machine
    placement = Placement(
        gpus=(chosen.index,),
        threads=request.threads or engine_threads(machine, 1),
        context=None,
        parallel=request.parallel or 1,
        need=need,
        budget=need.total,
        reasons=(
            tr(
                "GPU {chosen_index} ({chosen}), as asked",
                chosen_index=chosen.index,
                chosen=chosen.name,
            ),
        ),
    )
    left = tuple(
        replace(gpu, free=gpu.free - taken) if gpu.index == chosen.index else gpu
        for gpu in machine.gpus
    )
    plan = ModelPlan(
        request.name, "fits", placement, (arithmetic,), replicas=(placement,) * request.replicas
    )
    return plan, replace(machine, gpus=left)


def _chosen(request: Request, machine: Machine) -> Gpu | None:
    """The GPU that ``gpus:`` or ``cuda:N`` names, else the one with the most free memory."""
    number = (request.device or "").partition(":")[2]
    asked = request.gpus[0] if request.gpus else int(number) if number.isdigit() else None
    usable = [gpu for gpu in machine.gpus if asked is None or gpu.index == asked]
    return max(usable, key=lambda gpu: gpu.free, default=None)
