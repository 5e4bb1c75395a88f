"""What the scheduler is told, what it keeps, and what it calls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from yibu.config import ModelConfig
from yibu.config.types import Group
from yibu.errors import YibuError
from yibu.planner.ledger import Beside, Reservation
from yibu.planner.types import Machine, ModelFacts, Placement
from yibu.routing import Priority

Generation = tuple[str, int]
"""A model's name and the number of its configuration: old and new replicas of a model differ in it."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What a replica's processes hold at this moment."""

    pids: frozenset[int] = frozenset()
    resident: int = 0
    """Bytes of main memory that cannot be had back: not their files' pages."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The machine's memory at one moment."""

    machine: Machine
    holdings: Mapping[str, Holding] = field(default_factory=dict)
    """By replica."""


@dataclass(eq=False, slots=True)
class Waiter:
    """A request that waits for a replica."""

    model: str
    key: str = ""
    """The account that asks; requests of different accounts are answered in turn."""
    priority: Priority = "interactive"
    affinity: int | None = None
    """A hash of what an engine's prefix cache would keep; equal ones go to the same replica."""
    exclude: frozenset[str] = frozenset()
    """Replicas that failed this request already."""
    slotless: bool = False
    """It takes no slot of the engine: a question about the tokenizer, for instance."""
    since: float = 0.0
    deadline: float = math.inf
    weight: int = 1
    """The account's share of the answers where several wait."""


ReplicaState = Literal[
    "wanted", "placed", "starting", "ready", "suspending", "asleep", "stopping", "failed"
]
"""``wanted``: without memory; ``placed``: its memory is reserved, and it is about to start, or to wake;
``asleep``: its process has given its GPUs' memory up, as that of one that is wanted again (``slept``)."""

SleepLevels = tuple[tuple[int, int], ...]
"""Levels at which an engine can sleep, the preferred first, each with the bytes of main memory that it
takes meanwhile."""


@dataclass(eq=False, slots=True)
class Replica:
    """What the scheduler knows of one replica."""

    id: str
    generation: Generation
    number: int
    state: ReplicaState = "wanted"
    reservation: Reservation | None = None
    placement: Placement | None = None
    group: Group | None = None
    slots: int | None = None
    """Requests that it works on at once; None: any number."""
    engine_slots: int | None = None
    """What its engine says of that."""
    in_flight: int = 0
    turn: int = 0
    """Grows from request to request: which replica was used longest ago."""
    ready_since: float = 0.0
    last_used: float = 0.0
    error: YibuError | None = None
    """Why it has failed."""
    due: float | None = None
    """When it is likely ready again; None: cannot be known."""
    silent: bool = False
    """Its engine answers nothing at the moment: it gets requests only where all do so."""
    yielding: bool = False
    """It gets no more requests, and sleeps or stops when it has answered those in flight."""
    sleeps: SleepLevels = ()
    resting: bool = False
    """It is to sleep, if main memory has room for that."""
    slept: int | None = None
    """The level at which its process sleeps; None: it is awake, or is not there."""
    slept_at: float = 0.0
    awake_host: int = 0
    """Its reservation of main memory while it is awake."""
    start_seconds: float = 0.0
    """How long its latest start took."""
    starting_since: float = 0.0

    def serves(self, slots: int | None, most: int | None, now: float) -> None:
        """It is ready, and its engine works on so many requests at once, of which it gets ``most``."""
        if self.state != "ready":
            self.start_seconds = now - self.starting_since
        self.state, self.slept = "ready", None
        self.ready_since = self.last_used = now
        self.engine_slots = slots
        self.slots = most or slots

    def has_room(self) -> bool:
        return self.slots is None or self.in_flight < self.slots


class Place(Protocol):
    """Places one replica on a machine; pure."""

    def __call__(
        self, generation: Generation, number: int, machine: Machine, beside: Beside
    ) -> Placement:
        """``machine`` is as measured; ``beside`` has what is reserved, and what comes up too.

        Raises:
            DoesNotFitError: it does not fit.
            YibuError: it cannot be served at all.
        """
        ...


class Effects(Protocol):
    """What the scheduler has done. None of these blocks, or calls the scheduler before it returns."""

    def prepare(self, generation: Generation) -> None:
        """Get its files and find out what it needs; ends in ``prepared`` or ``unprepared``."""
        ...

    def read_memory(self) -> None:
        """Measure the machine; ends in ``memory_read``."""
        ...

    def waits(self, generation: Generation, others: Sequence[str]) -> None:
        """It waits for memory of these replicas."""
        ...

    def yields(self, generation: Generation, others: Sequence[str]) -> None:
        """These replicas make room for it: they answer what they have, and sleep or end."""
        ...

    def start(self, replica: Replica) -> None:
        """Start a placed replica; from now on ``replica_changed`` tells of it."""
        ...

    def suspend(self, replica: str, level: int) -> None:
        """Let a replica sleep; ends in ``replica_changed``, or in ``replica_ended`` where it fails."""
        ...

    def wake(self, replica: str) -> None:
        """Wake a placed replica; from now on as after ``start``."""
        ...

    def let_start(self, replica: str) -> None:
        """A replica that asked (``start_wanted``) may spawn its process."""
        ...

    def stop(self, replica: str) -> None:
        """Drain and end a replica; ends in ``replica_ended``."""
        ...

    def grant(self, waiter: Waiter, replica: str) -> bool:
        """Give a waiting request its replica; False when it has gone."""
        ...

    def refuse(self, waiter: Waiter, error: YibuError) -> None:
        """Answer a waiting request with an error."""
        ...

    def not_ready(self, model: str, retry_after: float) -> YibuError:
        """The error for a request whose model is not ready, with the reason as it is shown."""
        ...

    def changed(self, model: str) -> None:
        """The model's generations or replicas are others, or in other states."""
        ...


@dataclass(eq=False, slots=True)
class Desired:
    """One generation of a model that is wanted, and its replicas."""

    key: Generation
    config: ModelConfig
    stage: Literal["new", "preparing", "prepared", "failed"] = "new"
    facts: ModelFacts | None = None
    known: bool = False
    """Its facts are known as far as they will be before its files are here."""
    foresight_until: float = 0.0
    replicas: dict[int, Replica] = field(default_factory=dict)
    error: YibuError | None = None
    """Why it has no replicas."""
    served: bool = False
    """Whether it has been ready, or an earlier node served it."""
    started: bool = True
    """Wanted in memory: always, or since a person said so; of an ``idle`` model, since somebody
    asked for it."""
    retry_at: float = 0.0
    """Until then a failed start is not tried again for a request."""
    failures: int = 0
    """Failed starts in a row, of a model that is started on demand."""
    asked: bool = False
    """It is started for a request, not for a person."""
    scale: int = 0
    """Replicas beyond the fewest, for the load."""
    most: int | None = None
    """Replicas that could be had; more are not tried before ``retry_at``."""
    shortage: YibuError | None = None
    """Why more could not be had."""
    busy_at: float = 0.0
    """When the load last needed them all."""
    wanted_since: float = 0.0
    blocked_until: float = math.inf
    """When to look again at memory that others may not give up before."""

    @property
    def name(self) -> str:
        return self.key[0]

    @classmethod
    def of(
        cls, config: ModelConfig, number: int, now: float, foresight: float, *, start: bool | None
    ) -> Desired:
        """A configuration that is wanted from now on; ``start``: in memory, or not; None: as it is
        kept."""
        return cls(
            (config.name, number),
            config,
            known=not config.source,
            foresight_until=now + foresight,
            started=config.stays_loaded or bool(config.preload) if start is None else start,
            busy_at=now,
            wanted_since=now,
        )

    def load(self, *, asked: bool) -> None:
        """Want it in memory: with the fewest replicas where it was not, whatever load it had before."""
        self.scale *= self.started
        self.started, self.asked = True, asked

    def living(self) -> list[Replica]:
        """Those that serve or will; not those that sleep."""
        gone = ("failed", "stopping", "suspending", "asleep")
        return [r for r in self.replicas.values() if r.state not in gone]

    def asleep(self) -> list[Replica]:
        return [r for r in self.replicas.values() if r.state == "asleep"]
