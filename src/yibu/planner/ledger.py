"""Memory that is planned for engines and that no measurement shows: of those that start just now,
and of those that are ready and have not touched all of theirs (a cache that no prompt has filled)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from yibu.config import ModelConfig
from yibu.messages import joined, tr
from yibu.planner.arithmetic import MIB
from yibu.planner.gpu_need import margin
from yibu.planner.request import Request
from yibu.planner.text import size
from yibu.planner.types import Gpu, Machine, ModelFacts, Placement

_WORTH_A_WORD = 16 * MIB


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one replica was placed with. It counts for as long as the replica lives, as far as its
    processes do not hold it already; of a GPU until it is ready, for vLLM has then taken it all."""

    replica: str
    gpus: tuple[int, ...]
    memory: int
    """Bytes of each of its GPUs; without GPUs, of main memory in total."""
    pids: frozenset[int] = frozenset()
    """Its processes, if it has any yet."""
    resident: int = 0
    """Bytes of main memory that these hold and that cannot be had back: not their files' pages."""
    host: int = 0
    """Bytes of main memory, beside those of its GPUs."""

    @property
    def missing(self) -> int:
        """Bytes of main memory that are planned and not held yet."""
        return max(0, (self.host if self.gpus else self.memory) - self.resident)


@dataclass(frozen=True, slots=True)
class Coming:
    """A model that comes up too and is not placed yet."""

    config: ModelConfig
    facts: ModelFacts | None = None
    """From its files, or from their headers while they are still downloaded; None where neither
    can be read, or where it has none."""
    request: Request | None = None
    """What its engine asks of the planner, where that is known by now."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What to consider when one replica is placed."""

    starting: tuple[Reservation, ...] = ()
    """Reservations of replicas that start."""
    held: tuple[Reservation, ...] = ()
    """Reservations of ready replicas."""
    coming: tuple[Coming, ...] = ()

    @property
    def on_cpu(self) -> int:
        """The number of engines that share the CPU's cores already."""
        return sum(1 for reservation in (*self.starting, *self.held) if not reservation.gpus)


def reserved_memory(placement: Placement) -> int:
    """Bytes that a placement sets aside: of each of its GPUs, or of main memory in all."""
    if placement.offload is not None and not placement.gpus:
        return placement.offload.host.total  # of its devices NVML does not tell
    memory = max(placement.budget, placement.need.total)
    return memory if placement.gpus else memory * placement.tensor_parallel


def reserved_host(placement: Placement) -> int:
    """Bytes of main memory that a placement on GPUs sets aside besides: what of a GGUF model stays
    there."""
    offload = placement.offload
    return offload.host.total if offload is not None and placement.gpus else 0


def less_reserved(machine: Machine, reservations: Sequence[Reservation]) -> Machine:
    """The machine with reservations subtracted from its free memory.

    What the replicas' processes hold already is missing from the measured figures, so that part
    is not taken off once more.
    """
    on_cpu = sum(reservation.missing for reservation in reservations)
    return replace(
        machine,
        memory_available=max(0, machine.memory_available - on_cpu),
        gpus=tuple(_less_reserved_gpu(gpu, reservations) for gpu in machine.gpus),
    )


def as_if_stopped(machine: Machine, reservations: Sequence[Reservation]) -> Machine:
    """The machine without those replicas: what their processes hold is free again."""
    free = machine.memory_available + sum(reservation.resident for reservation in reservations)
    pids = frozenset[int]().union(*(reservation.pids for reservation in reservations))
    return replace(
        machine,
        memory_available=min(free, machine.memory_total),
        gpus=tuple(_as_if_stopped_gpu(gpu, pids) for gpu in machine.gpus),
    )


def emptied(machine: Machine) -> Machine:
    """The machine if nothing ran on it."""
    gpus = tuple(replace(gpu, free=gpu.total, processes=()) for gpu in machine.gpus)
    return replace(machine, memory_available=machine.memory_total, gpus=gpus)


def _as_if_stopped_gpu(gpu: Gpu, pids: frozenset[int]) -> Gpu:
    held = sum(process.memory or 0 for process in gpu.processes if process.pid in pids)
    others = tuple(process for process in gpu.processes if process.pid not in pids)
    return replace(gpu, free=min(gpu.free + held, gpu.total), processes=others)


def _less_reserved_gpu(gpu: Gpu, reservations: Sequence[Reservation]) -> Gpu:
    missing = 0
    for reservation in reservations:
        if gpu.index in reservation.gpus:
            held = sum(p.memory or 0 for p in gpu.processes if p.pid in reservation.pids)
            missing += max(0, reservation.memory - held)
    if not missing:
        return gpu
    # The margin is nobody's: what a driver takes for these engines is not measured yet.
    return replace(gpu, free=max(0, min(gpu.free, gpu.total - margin(gpu)) - missing))


def explain_missing(reservations: Sequence[Reservation]) -> str:
    """Reservations of main memory not in use yet, as a clause; "" for none."""
    kept = [reservation for reservation in reservations if reservation.missing >= _WORTH_A_WORD]
    return joined(
        ", ",
        (
            tr(
                "{missing} for {replica}",
                missing=size(reservation.missing),
                replica=reservation.replica,
            )
            for reservation in kept
        ),
    )
