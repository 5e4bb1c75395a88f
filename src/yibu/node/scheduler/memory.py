"""Reservations of memory and GPUs, and whether more fits beside them.

What was placed stays reserved for as long as its engine lives: what it holds is measured, and what
it has not touched yet is not free either. Of a GPU it is reserved until the engine is ready, which
has then taken all of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

from yibu.errors import DoesNotFitError
from yibu.node.scheduler.types import Generation, Holding, Place, Reading, Replica
from yibu.planner import cpu
from yibu.planner.ledger import (
    Beside,
    Coming,
    Reservation,
    as_if_stopped,
    less_reserved,
    reserved_host,
    reserved_memory,
)
from yibu.planner.text import size
from yibu.planner.types import Machine, Placement

_HOLDING = frozenset({"placed", "starting", "ready", "suspending", "asleep", "stopping"})


def reserve(replica: Replica, placement: Placement) -> None:
    """Set the placement's memory aside for the replica."""
    replica.placement = placement
    replica.reservation = reservation_of(replica.id, placement)


def reserve_awake(replica: Replica) -> None:
    """Set the memory aside again that a sleeping replica had when it was awake."""
    assert replica.reservation is not None
    replica.reservation = dataclasses.replace(replica.reservation, host=replica.awake_host)


def reserve_asleep(replica: Replica, memory: int) -> None:
    """Set main memory aside for what a replica keeps there while it sleeps."""
    assert replica.reservation is not None
    replica.awake_host = replica.reservation.host
    replica.reservation = dataclasses.replace(replica.reservation, host=replica.awake_host + memory)


def reservation_of(replica: str, placement: Placement) -> Reservation:
    return Reservation(
        replica, placement.gpus, reserved_memory(placement), host=reserved_host(placement)
    )


def reservations(
    replicas: Iterable[Replica], holdings: Mapping[str, Holding]
) -> tuple[list[Reservation], list[Reservation]]:
    """The reservations of starting replicas, and those of started ones with what their processes hold."""
    starting, started = [], []
    for replica in replicas:
        reservation = replica.reservation
        holds = replica.state in _HOLDING or replica.slept is not None
        if reservation is None or not reservation.memory or not holds:
            continue
        reservation = measured(reservation, holdings)
        if replica.state in ("placed", "starting"):
            starting.append(reservation)
        elif not reservation.gpus:
            started.append(reservation)
        elif reservation.host:  # its GPUs' part is taken by now
            started.append(
                dataclasses.replace(reservation, gpus=(), memory=reservation.host, host=0)
            )
    return starting, started


def measured(reservation: Reservation, holdings: Mapping[str, Holding]) -> Reservation:
    holding = holdings.get(reservation.replica)
    if holding is None:
        return reservation
    return dataclasses.replace(reservation, pids=holding.pids, resident=holding.resident)


@dataclasses.dataclass(frozen=True, slots=True)
class Room:
    """What placement works with: a reading of the machine and the reservations on it."""

    place: Place
    reading: Reading
    replicas: Sequence[Replica]
    """All of the node's."""
    coming: tuple[Coming, ...]
    """Models that come up too and have no memory yet."""

    def fit(
        self,
        generation: Generation,
        replicas: Sequence[Replica],
        *,
        without: Collection[Replica] = (),
        settled: bool = False,
    ) -> list[Placement | None]:
        """Placements of a generation's replicas, each beside the ones before it; None for one that
        sleeps, and fits where it is.

        ``without``: as if these had ended. ``settled``: as if those that start on GPUs had
        taken no more than can be measured.

        Raises:
            DoesNotFitError: they do not fit.
        """
        others = [r for r in self.replicas if r not in without and r not in replicas]
        starting, started = reservations(others, self.reading.holdings)
        if settled:
            starting = [reservation for reservation in starting if not reservation.gpus]
        gone = [
            measured(r.reservation, self.reading.holdings)
            for r in without
            if r.reservation is not None
        ]
        machine = as_if_stopped(self.reading.machine, gone)
        placements: list[Placement | None] = []
        for replica in sorted(replicas, key=lambda r: r.slept is None):
            if replica.slept is not None:
                reservation = self._woken(replica, less_reserved(machine, [*starting, *started]))
                placements.append(None)
            else:
                beside = Beside(tuple(starting), tuple(started), self.coming)
                placement = self.place(generation, replica.number, machine, beside)
                reservation = reservation_of(replica.id, placement)
                placements.append(placement)
            starting.append(reservation)
        return placements

    def _woken(self, replica: Replica, machine: Machine) -> Reservation:
        """What a sleeping replica has when it is awake again, on the GPUs that it is bound to.

        Raises:
            DoesNotFitError: these have no room.
        """
        assert replica.reservation is not None
        reservation = measured(replica.reservation, self.reading.holdings)
        for gpu in machine.gpus:
            held = sum(p.memory or 0 for p in gpu.processes if p.pid in reservation.pids)
            if gpu.index in reservation.gpus and gpu.free + held < reservation.memory:
                raise DoesNotFitError(
                    "{replica} sleeps, and GPU {gpu_index} has {free} free of the "
                    "{memory} that it had",
                    replica=replica.id,
                    gpu_index=gpu.index,
                    free=size(gpu.free),
                    memory=size(reservation.memory),
                )
        return reservation

    def sleep_level(self, replica: Replica) -> tuple[int, int] | None:
        """At which level a replica can sleep, with the main memory that it takes; None: at none."""
        starting, started = reservations(self.replicas, self.reading.holdings)
        machine = less_reserved(self.reading.machine, [*starting, *started])
        free = machine.memory_available - cpu.reserve(machine)
        return next((each for each in replica.sleeps if each[1] <= max(free, 0)), None)

    def waits_for(self, generation: Generation, replicas: Sequence[Replica]) -> list[Replica]:
        """Replicas that start on GPUs and in whose way the generation is only until they are
        ready: a plan has reserves that an engine may not use."""
        starting = [
            r
            for r in self.replicas
            if r.state in ("placed", "starting") and r.reservation and r.reservation.gpus
        ]
        return starting if starting and self._fits(generation, replicas, settled=True) else []

    def enough(
        self,
        generation: Generation,
        replicas: Sequence[Replica],
        units: Sequence[Sequence[Replica]],
    ) -> list[Sequence[Replica]] | None:
        """The fewest of ``units``, in their order, with whose memory the replicas fit; None where
        all of it does not do. The replicas of a unit end together."""
        chosen: list[Sequence[Replica]] = []
        for unit in units:
            chosen.append(unit)
            if self._fits(generation, replicas, without=_flat(chosen)):
                break
        else:
            return None
        for unit in chosen[:-1]:  # those that made no difference stay
            others = [other for other in chosen if other is not unit]
            if self._fits(generation, replicas, without=_flat(others)):
                chosen = others
        return chosen

    def _fits(
        self,
        generation: Generation,
        replicas: Sequence[Replica],
        *,
        without: Collection[Replica] = (),
        settled: bool = False,
    ) -> bool:
        try:
            self.fit(generation, replicas, without=without, settled=settled)
        except DoesNotFitError:
            return False
        return True


def _flat(units: Iterable[Sequence[Replica]]) -> list[Replica]:
    return [replica for unit in units for replica in unit]
