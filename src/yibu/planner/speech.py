"""Placement of speech engines, on a GPU only where ``gpus:`` or ``device: cuda`` asks for it.

On a CPU the speech engine is faster than anyone speaks many times over, so a GPU is not taken from
a language model unasked.
"""

from __future__ import annotations

from dataclasses import replace

from yibu.messages import tr
from yibu.planner.arithmetic import GIB, MIB
from yibu.planner.cpu import engine_threads, refuse, room_of, threads_of
from yibu.planner.request import Request
from yibu.planner.text import room_for, size
from yibu.planner.types import Gpu, Machine, MemoryNeed, ModelFacts, ModelPlan, Placement

_ON_GPU = int(1.5 * GIB)
"""CUDA's context and kernels, and the activations of one group of segments. An allowance: no
measurement on a card backs it yet."""


# What a speech engine's process takes besides its weights, measured likewise with clips of 15 s.
# SenseVoice of 893 MiB in fp32, 446 in bf16, 223 in int8: 186, 203 and 227 MiB. The rest of the
# half GiB is for what was not measured: clips of an hour, and kernels for many lengths of segments.
# That it reads model.pt whole when it loads needs no memory of its own: those pages are the file's.
# On torch (`path: reference`) FunASR holds 3.3 GB at the peak of loading.
_OVERHEAD = {
    "sensevoice": 512 * MIB,
    "sensevoice-onnx": 1 * GIB,
    "paraformer": 512 * MIB,
    "paraformer-onnx": 1 * GIB,
    "whisper-ct2": 512 * MIB,
}
_REFERENCE = int(2.3 * GIB)
_OWN_PRECISION = frozenset({"sensevoice", "paraformer"})
"""Formats whose weights the engine lays out at the precision that it computes in."""
_SHARE = {"bf16": 0.5, "int8": 0.25}
"""Of the bytes of fp32 weights; what the engine chooses by the processor is counted as fp32."""


def wants_gpu(request: Request) -> bool:
    """Whether a model is a speech model that was asked to run on a GPU."""
    if request.rule != "fixed" or request.facts is None or request.device == "cpu":
        return False
    return bool(request.gpus) or (request.device or "").startswith("cuda")


def place_on_gpu(request: Request, machine: Machine) -> tuple[ModelPlan, Machine]:
    """Plan one speech model on one GPU; and the machine with what is then left of it."""
    assert request.facts is not None  # wants_gpu saw to it
    chosen = _chosen(request, machine)
    if chosen is None:
        have = ", ".join(str(gpu.index) for gpu in machine.gpus) or tr("none")
        reason = tr("it was asked onto a GPU that is not here: this machine has {have}", have=have)
        hint = tr("Correct `gpus:` or `device:`, or leave both out: it runs on the CPU then")
        return ModelPlan(request.name, "does_not_fit", None, (reason,), (hint,)), machine
    need = MemoryNeed(request.facts.weight_bytes, 0, _ON_GPU)
    taken = need.total * request.replicas
    arithmetic = tr(
        "weights {weights} + runtime and buffers {overhead} = {need_total}",
        weights=size(need.weights),
        overhead=size(need.overhead),
        need_total=size(need.total),
    )
    arithmetic = tr(
        "{arithmetic}, and {taken} is free on GPU {chosen_index} ({chosen})",
        arithmetic=_times(arithmetic, request.replicas),
        taken=room_for(taken, chosen.free),
        chosen_index=chosen.index,
        chosen=chosen.name,
    )
    if taken > chosen.free:
        hint = tr("Leave `gpus:` and `device:` out: it runs on the CPU then")
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


def place_on_cpu(request: Request, machine: Machine, left: int, sharing: int) -> ModelPlan:
    """Plan one speech model in ``left`` bytes of main memory; ``sharing`` as of :func:`cpu.place`."""
    facts = request.facts
    assert facts is not None
    room = room_of(request, left)
    threads, why = threads_of(request, machine, sharing)
    need = _need(request, facts)
    arithmetic = _times(
        tr(
            "weights {weights} + engine and buffers {overhead} = {need_total}",
            weights=size(need.weights),
            overhead=size(need.overhead),
            need_total=size(need.total),
        ),
        request.replicas,
    )
    if (taken := need.total * request.replicas) > room:
        return refuse(request, taken, room, arithmetic, ())
    placement = Placement(
        gpus=(),
        threads=threads,
        context=None,
        parallel=request.parallel or 1,
        need=need,
        budget=need.total,
        reasons=(why,),
    )
    reasons = [
        tr(
            "{arithmetic}; {need_total} is free",
            arithmetic=arithmetic,
            need_total=room_for(need.total, room),
        )
    ]
    if facts.format in _OWN_PRECISION and not (request.precision or request.reference):
        reasons.append(
            tr(
                "weights counted in fp32: which precision is fastest, the processor decides "
                "when it starts (`precision: int8` takes a quarter of them, bf16 half)"
            )
        )
    return ModelPlan(request.name, "fits", placement, tuple(reasons))


def _need(request: Request, facts: ModelFacts) -> MemoryNeed:
    if request.reference:
        return MemoryNeed(facts.weight_bytes + request.beside, 0, _REFERENCE)
    share = 1.0
    if facts.format in _OWN_PRECISION:
        share = _SHARE.get(request.precision or "", 1.0)
    weights = int(facts.weight_bytes * share) + request.beside
    return MemoryNeed(weights, 0, _OVERHEAD.get(facts.format, GIB))


def _times(arithmetic: str, copies: int) -> str:
    if copies == 1:
        return arithmetic
    return tr("{arithmetic}, {copies} times", arithmetic=arithmetic, copies=copies)
