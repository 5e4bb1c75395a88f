"""Finding memory for replicas: where it fits, what to wait for, and what yields."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from yibu.errors import DoesNotFitError, YibuError
from yibu.node.scheduler.memory import (
    Room,
    reservations,
    reserve,
    reserve_asleep,
    reserve_awake,
)
from yibu.node.scheduler.model import ScheduledModel
from yibu.node.scheduler.types import Desired, Effects, Generation, Holding, Place, Reading, Replica
from yibu.planner.ledger import Coming, Reservation

Units = list[Sequence[Replica]]
_STALE = 3
"""Outdated readings in a row that are thrown away."""
_AGAIN = 1.0
"""Seconds after which whoever waits for one that serves looks whether another has become idle."""


class Placing:
    """Places replicas, one attempt at a time, each with a new reading of the memory."""

    def __init__(
        self,
        effects: Effects,
        place: Place,
        models: Mapping[str, ScheduledModel],
        replicas: Mapping[str, Replica],
        min_up: float,
    ) -> None:
        self._effects = effects
        self._place = place
        self._models = models
        self._replicas = replicas
        self._min_up = min_up
        self._dirty = False
        self._reading = False
        self._discarded = 0
        self._yielding: dict[Generation, Units] = {}

    def changed(self) -> None:
        """Try again: something that placement depends on has changed."""
        self._dirty = True

    def forget(self, key: Generation) -> None:
        """Drop a generation's claim on memory; replicas that were to yield to it stay."""
        self._release(self._yielding.pop(key, []))

    def _release(self, units: Units) -> None:
        for unit in units:
            for replica in unit:
                replica.yielding = replica.resting = False
            model = self._models.get(unit[0].generation[0])
            if model is not None and any(r in unit for r in model.current.living()):
                model.current.started = True
        if units:
            self._dirty = True

    def tick(self, now: float) -> None:
        if any(desired.blocked_until <= now for desired in self._wanting()):
            self._dirty = True
        if any(not d.known and d.foresight_until <= now for d in self._coming()):
            self._dirty = True

    def ask(self, now: float) -> None:
        """Measure the memory, if a generation needs some."""
        wanting = self._wanting()
        keys = {desired.key for desired in wanting}
        for key in [key for key in self._yielding if key not in keys]:
            self.forget(key)
        if not self._dirty or self._reading:
            return
        self._dirty = False
        if self._resting() or any(self._foreseen(desired, now) for desired in wanting):
            self._reading = True
            self._effects.read_memory()

    def read(self, reading: Reading, now: float) -> list[tuple[Desired, YibuError]]:
        """Place what fits; returns the generations that do not, with their errors."""
        self._reading = False
        if self._dirty and self._discarded < _STALE:
            self._discarded += 1  # what ended meanwhile would be counted as there
            return []
        self._discarded = 0
        for replica in self._resting():
            self._suspend(replica, reading)
        failed = []
        for desired in self._wanting():
            if self._foreseen(desired, now):
                error = self._try(desired, reading, now)
                if error is not None:
                    failed.append((desired, error))
        return failed

    def _resting(self) -> list[Replica]:
        return [r for r in self._replicas.values() if r.resting and r.state == "ready"]

    def _suspend(self, replica: Replica, reading: Reading) -> None:
        """Let a replica sleep, or have it stopped where main memory has no room for what it keeps."""
        room = Room(self._place, reading, list(self._replicas.values()), ())
        replica.resting, level = False, room.sleep_level(replica)
        if level is None:
            replica.sleeps = ()
            self._dirty = True
            return
        reserve_asleep(replica, level[1])
        replica.state, replica.slept = "suspending", level[0]
        self._effects.suspend(replica.id, level[0])

    def reserved(self, holdings: Mapping[str, Holding]) -> list[Reservation]:
        starting, started = reservations(self._replicas.values(), holdings)
        return [*starting, *started]

    def _wanting(self) -> list[Desired]:
        """Generations with unplaced replicas, in the order of their arrival."""
        found = [
            desired
            for model in self._models.values()
            for desired in model.generations()
            if any(replica.state == "wanted" for replica in desired.replicas.values())
        ]
        return sorted(found, key=lambda desired: desired.wanted_since)

    def _coming(self) -> list[Desired]:
        """Generations that come up and have no replica with memory yet."""
        return [
            desired
            for model in self._models.values()
            for desired in model.generations()
            if desired.started
            and desired.stage in ("new", "preparing", "prepared")
            and all(replica.state == "wanted" for replica in desired.replicas.values())
        ]

    def _foreseen(self, desired: Desired, now: float) -> bool:
        """Whether the needs of the other models that come up are known, from the headers of files still
        being downloaded."""
        return all(
            other.known or other.foresight_until <= now
            for other in self._coming()
            if other is not desired
        )

    def _try(self, desired: Desired, reading: Reading, now: float) -> YibuError | None:
        """Place a generation's replicas, or find what is in the way; the error if nothing is."""
        wanted = [r for r in desired.replicas.values() if r.state == "wanted"]
        desired.blocked_until = math.inf
        coming = tuple(Coming(d.config, d.facts) for d in self._coming() if d is not desired)
        room = Room(self._place, reading, list(self._replicas.values()), coming)
        rivals = self._rivals(desired)
        if rivals:
            return self._displace(desired, rivals, now)
        try:
            placements = room.fit(desired.key, wanted)
        except DoesNotFitError as error:
            return self._make_room(desired, wanted, room, error, now)
        except YibuError as error:  # its engine refuses it: memory would not help
            return error
        self._yielding.pop(desired.key, None)
        wanted.sort(key=lambda r: r.slept is None)  # as their placements are
        for replica, placement in zip(wanted, placements, strict=True):
            replica.state, replica.starting_since = "placed", now
            if placement is None:
                reserve_awake(replica)
                replica.slept = None
                self._effects.wake(replica.id)
            else:
                reserve(replica, placement)
                self._effects.start(replica)
        return None

    def _make_room(
        self,
        desired: Desired,
        wanted: Sequence[Replica],
        room: Room,
        error: DoesNotFitError,
        now: float,
    ) -> YibuError | None:
        if starting := room.waits_for(desired.key, wanted):
            self._effects.waits(desired.key, [replica.id for replica in starting])
            return None
        leaving, late = self._leaving()
        # Further replicas, for more load, displace nobody.
        units = self._yielders(desired) if len(wanted) == len(desired.living()) else []
        idle = [unit for unit in units if _idle(unit) and unit[0].generation[0] != desired.name]
        serving = [unit for unit in units if unit not in idle]
        units = [unit for unit in (leaving, *idle, late, *serving) if unit]
        chosen = room.enough(desired.key, wanted, units) if units else None
        if chosen is None and any(r.slept is not None for r in wanted):
            for replica in wanted:  # no room where they sleep: they start elsewhere, if anywhere
                replica.yielding = replica.slept is not None
            return None
        if chosen is None:
            return error
        more = [unit for unit in chosen if unit not in (leaving, late)]
        yielded = self._yield(desired, more, now)
        if yielded and late not in chosen:
            self._spare(desired.key, late)
        if not yielded or any(replica.in_flight for unit in chosen for replica in unit):
            desired.blocked_until = min(desired.blocked_until, now + _AGAIN)
        return None

    def _leaving(self) -> tuple[list[Replica], list[Replica]]:
        """Replicas that end, and those that will when they have answered what they have."""
        leaving = [
            r
            for r in self._replicas.values()
            if r.state in ("stopping", "suspending") or r.yielding
        ]
        late = [r for r in leaving if r.yielding and r.in_flight]
        return [r for r in leaving if r not in late], late

    def _displace(
        self, desired: Desired, rivals: Sequence[Replica], now: float
    ) -> YibuError | None:
        """Make loaded models of its group yield; the error where they never do."""
        standing = [
            r for r in rivals if r.state not in ("stopping", "suspending") and not r.yielding
        ]
        units: Units = []
        for name in dict.fromkeys(r.generation[0] for r in standing):
            config = self._models[name].current.config
            if not config.on_demand:
                return DoesNotFitError(
                    "{desired} is of the group {group!r}, of which {name} is loaded, "
                    "which is kept ({keep})",
                    desired=desired.name,
                    group=desired.config.group.name if desired.config.group else "",
                    name=name,
                    keep=config.keep,
                    hint="Stop it first: yibu down {name}; or give it `keep: idle` in yibu.yaml",
                )
            units.append([r for r in standing if r.generation[0] == name])
        self._yield(desired, units, now)
        return None

    def _spare(self, key: Generation, late: Sequence[Replica]) -> None:
        """Let those of its claim that still serve go on: others make room sooner."""
        claim = self._yielding.get(key, [])
        spared = [unit for unit in claim if any(replica in late for replica in unit)]
        if spared:
            self._yielding[key] = [unit for unit in claim if unit not in spared]
            self._release(spared)

    def _yield(self, desired: Desired, units: Units, now: float) -> bool:
        """Let these get no more requests and stop when they have answered what they have; False
        where one has not been up for as long as its start took."""
        later = max((self._free_at(desired, unit) for unit in units), default=now)
        if later > now:
            desired.blocked_until = later
            return False
        self._yielding.setdefault(desired.key, []).extend(units)
        for unit in units:
            model = self._models[unit[0].generation[0]]
            if model.current.config.on_demand and unit[0].state != "asleep":
                model.current.started = bool(len(model.queue))
            for replica in unit:
                replica.yielding = True
            model.refresh()
        if units:
            self._effects.yields(desired.key, [replica.id for unit in units for replica in unit])
        return True

    def _free_at(self, desired: Desired, unit: Sequence[Replica]) -> float:
        if unit[0].generation[0] == desired.name or unit[0].state == "asleep":
            return -math.inf
        if any(replica.state != "ready" for replica in unit):
            return math.inf  # it is started for somebody, who is served first
        return max(r.ready_since + min(self._min_up, r.start_seconds) for r in unit)

    def _yielders(self, desired: Desired) -> Units:
        """Who may make room, the idle and longest unused first: models that are loaded on demand,
        and at last what serves the same model until now."""
        units: Units = []
        found = []
        for model in self._models.values():
            units += [[r] for r in model.current.asleep() if not r.yielding]
            unit = [r for r in model.current.living() if r.reservation and not r.yielding]
            if unit and model.name != desired.name and model.current.config.on_demand:
                starting = any(replica.state != "ready" for replica in unit)
                found.append(((starting, model.in_flight > 0, model.last_used), unit))
        units += [unit for _, unit in sorted(found, key=lambda item: item[0])]
        own = self._models[desired.name]
        if desired is own.next:
            units += [unit] if (unit := own.current.living()) else []
        return units

    def _rivals(self, desired: Desired) -> list[Replica]:
        """Replicas of other models that have memory and may not be loaded beside it."""
        group = desired.config.group
        if group is None:
            return []
        found = []
        for replica in self._replicas.values():
            model = self._models.get(replica.generation[0])
            on_demand = model is None or model.current.config.on_demand
            if (
                replica.generation[0] != desired.name
                and replica.state not in ("wanted", "asleep", "failed")
                and group.excludes(replica.group, on_demand=on_demand)
            ):
                found.append(replica)
        return found


def _idle(unit: Sequence[Replica]) -> bool:
    return all(r.state in ("ready", "asleep") and not r.in_flight for r in unit)
