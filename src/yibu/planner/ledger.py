"""Memory that is planned for engines which start just now, and that no measurement shows yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from yibu.config import ModelConfig
from yibu.planner.gpu import margin
from yibu.planner.types import Gpu, Machine, Placement


@dataclass(frozen=True, slots=True)
class Promise:
    """What one replica was placed with. It counts until the replica is ready: then what it
    really took is measured."""

    replica: str
    gpus: tuple[int, ...]
    memory: int
    """Bytes of each of its GPUs; without GPUs, of main memory in all."""
    pids: frozenset[int] = frozenset()
    """Its processes, if it has any by now."""
    resident: int = 0
    """Bytes of main memory that these hold."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What else is to be thought of when one replica is placed."""

    promises: tuple[Promise, ...] = ()
    coming: tuple[ModelConfig, ...] = ()
    """Models that come up too and have no place yet."""


def promised_memory(placement: Placement) -> int:
    """Bytes that a placement sets aside: of each of its GPUs, or of main memory in all."""
    memory = max(placement.budget, placement.need.total)
    return memory if placement.gpus else memory * placement.tensor_parallel


def less_promised(machine: Machine, promises: Sequence[Promise]) -> Machine:
    """The machine with what was promised taken off what it has free.

    What the replicas' processes hold already is missing from the measured figures, so that part
    is not taken off once more.
    """
    on_cpu = sum(max(0, p.memory - p.resident) for p in promises if not p.gpus)
    return replace(
        machine,
        memory_available=max(0, machine.memory_available - on_cpu),
        gpus=tuple(_less_promised_gpu(gpu, promises) for gpu in machine.gpus),
    )


def _less_promised_gpu(gpu: Gpu, promises: Sequence[Promise]) -> Gpu:
    missing = 0
    for promise in promises:
        if gpu.index in promise.gpus:
            held = sum(p.memory or 0 for p in gpu.processes if p.pid in promise.pids)
            missing += max(0, promise.memory - held)
    if not missing:
        return gpu
    # The margin is nobody's: what a driver takes for the promised engines is not measured yet.
    return replace(gpu, free=max(0, min(gpu.free, gpu.total - margin(gpu)) - missing))
