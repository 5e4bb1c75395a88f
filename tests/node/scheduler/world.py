"""A simulated machine: engines with sizes and start times, clients, crashes; a clock of its own.

What the scheduler calls is carried out after random delays, and every event is followed by a check
of what must always hold.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from yibu.config import ModelConfig
from yibu.errors import DoesNotFitError, EngineStartError, NotReadyError, RequestError, YibuError
from yibu.node.scheduler import Holding, Reading, Scheduler, Waiter
from yibu.node.scheduler.routing import choose
from yibu.node.scheduler.starts import Start
from yibu.node.scheduler.types import Generation, Replica
from yibu.planner.ledger import Beside, less_reserved
from yibu.planner.types import Gpu, GpuProcess, Machine, MemoryNeed, Placement

TOTAL = 100


@dataclass
class Engine:
    """A replica's processes."""

    id: str
    size: int
    used: int = 0
    in_flight: int = 0
    stopping: bool = False
    ready: bool = False
    ram: int = 0
    pid: int = field(default_factory=itertools.count(1).__next__)
    slept: int | None = None


@dataclass
class World:
    chance: random.Random
    total: int = TOTAL
    ram: int | None = None
    """Main memory beside a GPU of ``total``, in GiB both; None: engines are on the CPU."""
    trouble: float = 0.1
    """How likely a start fails, and an engine crashes."""
    slots: int | None = 4
    min_up: float = 3.0
    now: float = 0.0
    engines: dict[str, Engine] = field(default_factory=dict)
    waiting: dict[Waiter, float] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    waited: list[float] = field(default_factory=list)
    refused: list[YibuError] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    """Interactive requests of each model since its last batch one, while one of those could have a replica."""
    removed: set[Generation] = field(default_factory=set)
    """Generations that a person had stopped or replaced."""
    effects: list[tuple[str, Any]] = field(default_factory=list)
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _order: Any = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.sizes: dict[Generation, int] = {}
        self.broken: set[Generation] = set()
        self.scheduler = Scheduler(
            self,
            self._place,
            name=lambda key, number: f"{key[0]}-{number}.{key[1]}",
            min_up=self.min_up,
        )

    @property
    def unit(self) -> int:
        return 1 if self.ram is None else 1 << 30

    # Time.

    def after(self, delay: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + delay, next(self._order), event))

    def soon(self, most: float, event: Callable[[], None]) -> None:
        self.after(self.chance.uniform(0, most), event)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, event = heapq.heappop(self._events)
            event()
            self.check()
            self.check_queues()
        self.now = end

    def ticks(self, seconds: float, every: float = 0.5) -> None:
        """Let time pass as it does for a node, which looks at the clock now and then."""
        for _ in range(int(seconds / every)):
            self.run(every)
            self.scheduler.tick(self.now)
            self.check()

    # What always holds.

    def check(self) -> None:
        living = [r for r in self._all() if r.reservation is not None and r.state != "failed"]
        awake = [r for r in living if r.slept is None or r.state == "suspending"]
        if self.ram is not None:  # of a GPU it is measured what those hold that end
            awake = [r for r in awake if r.state != "stopping"]
        reserved = sum(r.reservation.memory for r in awake if r.reservation)
        assert reserved <= self.total * self.unit, "the budget is exceeded"
        assert sum(engine.used for engine in self.engines.values()) <= self.total * self.unit
        if self.ram is not None:
            held = sum(r.reservation.host for r in living if r.reservation)
            assert held <= self.ram * self.unit, "main memory is exceeded"
            assert sum(engine.ram for engine in self.engines.values()) <= self.ram * self.unit
        starting = Counter(r.generation for r in living if r.state in ("placed", "starting"))
        for key, count in starting.items():
            assert count <= self._policy_most(key), f"{count} replicas of {key} start"

    def check_queues(self) -> None:
        """Nobody waits for a replica that is free."""
        for name in self.scheduler.names():
            model = self.scheduler.model(name)
            assert model is not None
            for waiter in model.queue:
                assert choose(model.ready, waiter) is None, f"{waiter} waits for nothing"

    def _all(self) -> list[Replica]:
        return list(self.scheduler._replicas.values())

    def _policy_most(self, key: Generation) -> int:
        model = self.scheduler.model(key[0])
        if model is None:
            return 64
        for desired in model.generations():
            if desired.key == key:
                auto = desired.config.autoscale
                return auto.max if auto else desired.config.replicas
        return 64

    # Actions of people and clients.

    def up(self, config: ModelConfig, *, size: int, broken: bool = False) -> Generation:
        model = self.scheduler.model(config.name)
        key = self.scheduler.desire(config, self.now, start=self.chance.random() < 0.3 or None)
        if model is not None:
            self.removed.update(d.key for d in model.generations() if d.key != key)
            self.removed.update((key[0], n) for n in range(key[1]))
        self.sizes[key] = size
        if broken:
            self.broken.add(key)
        return key

    def down(self, name: str) -> None:
        model = self.scheduler.model(name)
        assert model is not None
        self.removed.update(desired.key for desired in model.generations())
        self.scheduler.remove(name, self.now)

    def remember(self, *names: str) -> None:
        """A person has these stopped, whatever they serve."""
        for name in names:
            model = self.scheduler.model(name)
            assert model is not None
            self.removed.update(desired.key for desired in model.generations())

    def ask(self, model: str, seconds: float, **fields: Any) -> Waiter:
        waiter = Waiter(model, **fields)
        self._durations[waiter] = seconds
        self.waiting[waiter] = self.now
        try:
            replica = self.scheduler.request(waiter, self.now)
        except RequestError as error:
            del self.waiting[waiter]
            self.outcomes[type(error).__name__] += 1
            return waiter
        if replica is not None:
            del self.waiting[waiter]
            self._serve(waiter, replica)
        return waiter

    def leave(self, waiter: Waiter) -> None:
        if waiter in self.waiting:
            del self.waiting[waiter]
            self.outcomes["left"] += 1
            self.scheduler.left(waiter, self.now)

    _durations: dict[Waiter, float] = field(default_factory=dict)

    def _serve(self, waiter: Waiter, replica: str) -> None:
        engine = self.engines[replica]
        assert engine.ready, f"{replica} is not ready"
        assert not engine.stopping, f"{replica} is stopping"
        engine.in_flight += 1
        assert self.slots is None or engine.in_flight <= self.slots
        self.outcomes["granted"] += 1

        def end() -> None:
            engine.in_flight -= 1
            self.scheduler.answered(waiter, self.now)
            self._may_end(engine)

        self.after(self._durations[waiter], end)

    # Effects.

    def prepare(self, generation: Generation) -> None:
        self.effects.append(("prepare", generation))

        def end() -> None:
            if generation in self.broken and self.chance.random() < 0.5:
                error = EngineStartError("no such file", cause="x")
                self.scheduler.unprepared(generation, error, self.now)
            else:
                self.scheduler.prepared(generation, None, self.now)

        self.soon(2, end)

    def read_memory(self) -> None:
        self.effects.append(("read", None))

        def end() -> None:
            used = sum(engine.used for engine in self.engines.values())
            machine = Machine("m", 2, 2, self.total, self.total - used)
            holdings = {
                engine.id: Holding(frozenset(), engine.used) for engine in self.engines.values()
            }
            if self.ram is not None:
                machine, holdings = self._read_gpu(used)
            reading = Reading(machine, holdings)
            self.soon(0.2, lambda: self.scheduler.memory_read(reading, self.now))

        self.soon(0.1, end)

    def _read_gpu(self, used: int) -> tuple[Machine, dict[str, Holding]]:
        assert self.ram is not None
        engines = self.engines.values()
        total, ram = self.total * self.unit, self.ram * self.unit
        held = tuple(GpuProcess(engine.pid, "e", engine.used) for engine in engines)
        gpu = Gpu(0, "g", total, total - used, processes=held)
        free = ram - sum(engine.ram for engine in engines)
        holdings = {engine.id: Holding(frozenset({engine.pid}), engine.ram) for engine in engines}
        return Machine("m", 2, 2, ram, free, (gpu,)), holdings

    def _place(
        self, generation: Generation, number: int, machine: Machine, beside: Beside
    ) -> Placement:
        size = self.sizes[generation]
        if self.ram is not None:
            (gpu,) = less_reserved(machine, (*beside.starting, *beside.held)).gpus
            if size * self.unit > gpu.free:
                raise DoesNotFitError(f"{size} of {gpu.free}")
            return Placement((0,), 1, None, 1, MemoryNeed(size * self.unit, 0, 0))
        free = machine.memory_available - sum(p.missing for p in (*beside.starting, *beside.held))
        if size > free:
            raise DoesNotFitError(f"{size} of {free}")
        return Placement((), 1, None, 1, MemoryNeed(size, 0, 0))

    def waits(self, generation: Generation, others: Sequence[str]) -> None:
        assert self.ram is not None, "no GPU here"

    def yields(self, generation: Generation, others: Sequence[str]) -> None:
        self.effects.append(("yields", (generation[0], *others)))

    def start(self, replica: Replica) -> None:
        self.effects.append(("start", replica.id))
        assert replica.id not in self.engines
        assert replica.reservation is not None
        engine = Engine(replica.id, replica.reservation.memory)
        self.engines[replica.id] = engine
        self.soon(0.5, lambda: self._spawn(engine))

    def _spawn(self, engine: Engine) -> None:
        if engine.stopping:
            return
        self.scheduler.replica_changed(engine.id, "starting", self.now)
        if engine.id in self.engines and not engine.stopping:
            start = Start(engine.id, frozenset(), engine.size, alone=False)
            self.scheduler.start_wanted(start, self.now)

    def let_start(self, replica: str) -> None:
        engine = self.engines[replica]
        fails = self.chance.random() < self.trouble or self._generation(replica) in self.broken

        def load() -> None:
            if not engine.stopping:
                least = engine.size if self.ram is not None else engine.size // 2
                engine.used = self.chance.randint(least, engine.size)

        def end() -> None:
            self.scheduler.start_over(replica, self.now)
            if engine.stopping or self.engines.get(replica) is not engine:
                return
            if fails:
                engine.used = 0
                error = EngineStartError("it failed", cause="x")
                self.scheduler.replica_changed(replica, "failed", self.now, error=error)
                return
            engine.ready, engine.ram = True, 0
            sleeps = ((1, engine.size), (2, 0))[: self.chance.randint(1, 2)] if self.ram else ()
            self.scheduler.replica_changed(
                replica, "ready", self.now, slots=self.slots, sleeps=sleeps
            )
            if self.chance.random() < self.trouble:
                self.soon(20, lambda: self._crash(engine))

        self.soon(1, load)
        self.after(1 + self.chance.uniform(0, 3), end)

    def suspend(self, replica: str, level: int) -> None:
        self.effects.append(("suspend", replica))
        engine = self.engines[replica]
        assert engine.ready
        assert not engine.in_flight, f"{replica} is serving and was to sleep"
        engine.ready = False

        def end() -> None:
            if engine.stopping or self.engines.get(replica) is not engine:
                return
            if self.chance.random() < self.trouble:
                engine.stopping = True
                self._may_end(engine)
                return
            engine.used, engine.ram, engine.slept = 0, engine.size if level == 1 else 0, level
            self.scheduler.replica_changed(replica, "sleeping", self.now, slept=level)

        self.soon(1, end)

    def wake(self, replica: str) -> None:
        self.effects.append(("wake", replica))
        engine = self.engines[replica]
        assert engine.slept is not None
        engine.slept = None
        self.soon(0.5, lambda: self._spawn(engine))

    def _crash(self, engine: Engine) -> None:
        """The supervisor starts it again."""
        if engine.stopping or self.engines.get(engine.id) is not engine or not engine.ready:
            return
        engine.ready, engine.used = False, 0
        self.scheduler.replica_changed(engine.id, "starting", self.now, due=self.now + 2)
        if not engine.stopping:
            start = Start(engine.id, frozenset(), engine.size, alone=False)
            self.scheduler.start_wanted(start, self.now)

    def stop(self, replica: str) -> None:
        self.effects.append(("stop", replica))
        engine = self.engines[replica]
        generation = self._generation(replica)
        if engine.ready and engine.in_flight:
            assert generation in self.removed, f"{replica} is serving and was stopped"
        engine.stopping = True
        self._may_end(engine)

    def _may_end(self, engine: Engine) -> None:
        if engine.stopping and not engine.in_flight:
            self.soon(1, lambda: self._gone(engine))

    def _gone(self, engine: Engine) -> None:
        if self.engines.get(engine.id) is engine:
            del self.engines[engine.id]
            self.scheduler.replica_ended(engine.id, self.now)

    def _generation(self, replica: str) -> Generation:
        name, _, rest = replica.rpartition("-")
        return name, int(rest.split(".")[1])

    def grant(self, waiter: Waiter, replica: str) -> bool:
        if waiter not in self.waiting:
            return False
        self.waited.append(self.now - self.waiting.pop(waiter))
        self._check_batch(waiter)
        self._serve(waiter, replica)
        return True

    def _check_batch(self, waiter: Waiter) -> None:
        """Of eight requests one is a batch one, where one of those waits."""
        model = self.scheduler.model(waiter.model)
        assert model is not None
        batch = any(w.priority == "batch" and not w.exclude for w in model.queue)
        passed = batch and waiter.priority == "interactive"
        self.passed_over[waiter.model] = self.passed_over[waiter.model] + 1 if passed else 0
        assert self.passed_over[waiter.model] < 8, "batch starves"

    def refuse(self, waiter: Waiter, error: YibuError) -> None:
        del self.waiting[waiter]
        self.outcomes["refused"] += 1
        self.refused.append(error)

    def not_ready(self, model: str, retry_after: float) -> YibuError:
        return NotReadyError(f"{model} is not ready", retry_after=retry_after)

    def changed(self, model: str) -> None:
        self.effects.append(("changed", model))
