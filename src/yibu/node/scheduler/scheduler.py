"""The scheduler's state, the events that change it, and the effects that follow.

Each event changes what the ``Scheduler`` knows, and then :meth:`_settle` compares what is wanted with what
there is. A request that finds a ready replica with room takes none of that way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from yibu.config import ModelConfig
from yibu.errors import DoesNotFitError, EngineStartError, YibuError
from yibu.node.scheduler import admission, demand
from yibu.node.scheduler.generations import Generations
from yibu.node.scheduler.model import ScheduledModel
from yibu.node.scheduler.placing import Placing
from yibu.node.scheduler.requests import Requests, gone
from yibu.node.scheduler.starts import Start, Starts
from yibu.node.scheduler.types import (
    Desired,
    Effects,
    Generation,
    Holding,
    Place,
    Reading,
    Replica,
    SleepLevels,
    Waiter,
)
from yibu.planner.ledger import Reservation
from yibu.planner.types import ModelFacts

_RETRY = 60.0
"""Seconds until more replicas are tried again that could not be had."""


class Scheduler:
    """Of one node. Every method is an event, called from one thread with the time in monotonic
    seconds."""

    def __init__(
        self,
        effects: Effects,
        place: Place,
        *,
        name: Callable[[Generation, int], str],
        ready_wait: float = 5.0,
        min_up: float = 30.0,
        scale_down: float = 60.0,
        foresight: float = 20.0,
    ) -> None:
        """``name`` gives a replica's id. ``ready_wait``: seconds that a request waits for a model
        that restarts. ``min_up``: seconds that a loaded model stays at most before it yields to
        another, where its start took as long. ``foresight``: seconds that placing waits for what
        other models that come up will need."""
        self._effects = effects
        self._models: dict[str, ScheduledModel] = {}
        self._replicas: dict[str, Replica] = {}
        self._starts = Starts()
        self._settling = self._again = False
        self._scale_down = scale_down
        self._requests = Requests(effects, self._models, ready_wait)
        self._placing = Placing(effects, place, self._models, self._replicas, min_up)
        self._generations = Generations(
            effects, self._models, self._replicas, self._placing, name, foresight
        )

    # Desired models.

    def desire(
        self, config: ModelConfig, now: float, *, start: bool | None = None, generation: int = 0
    ) -> Generation:
        """Serve this configuration from now on; ``start``: load it, or not; None: as it is kept.
        ``generation`` is the number that it had in an earlier node. The generation that serves is
        replaced when the new one is ready; see :meth:`outcome`."""
        desired = self._generations.make(config, now, generation, start=start)
        model = self._models.get(config.name)
        if model is None:
            self._models[config.name] = ScheduledModel(desired)
        elif model.usable:
            self._generations.withdraw(model)
            model.next = desired
            desired.started = desired.started or bool(model.current.living())
        else:
            for old in model.generations():
                self._generations.retire(old)
            model.current, model.next = desired, None
        self._settle(now)
        return desired.key

    def withdraw(self, name: str, now: float) -> None:
        """What is about to take the model's place is not wanted any more."""
        self._generations.withdraw(self._models[name])
        self._settle(now)

    def adopt(
        self,
        config: ModelConfig,
        generation: int,
        found: list[Replica],
        now: float,
        *,
        start: bool = True,
    ) -> None:
        """A model that an earlier node served, with its replicas that still run; ``start``: it is
        wanted in memory."""
        desired = self._generations.make(config, now, generation, start=start)
        for replica in found:
            replica.state = "starting" if replica.slept is None else "asleep"
            replica.slept_at = replica.starting_since = now
            replica.group = config.group
            desired.replicas[replica.number] = self._replicas[replica.id] = replica
        if config.autoscale is not None:  # there was a load that needed them all
            desired.scale = max(0, len(desired.living()) - config.fewest)
        self._models[config.name] = ScheduledModel(desired)
        self._settle(now)

    def start(self, name: str, now: float) -> None:
        """A person wants the model loaded; what failed before is tried again."""
        model = self._models[name]
        current = model.current
        current.load(asked=False)
        current.error, current.failures, current.retry_at = None, 0, 0.0
        current.most, current.shortage = None, None
        if current.stage == "failed":
            current.stage = "new"
            current.wanted_since = now
        self._generations.stop([r for r in current.replicas.values() if r.state == "failed"])
        self._settle(now)

    def unload(self, name: str, now: float) -> None:
        """A person wants the model out of memory; ``start``, or a request where it is kept on
        demand, loads it again."""
        model = self._models[name]
        for desired in model.generations():
            desired.started = False
            self._generations.stop(desired.replicas.values())
        self._requests.refuse_all(model, now)
        self._settle(now)

    def adjust(self, config: ModelConfig, now: float) -> Generation:
        """The latest generation has another configuration from now on; its engines go on."""
        desired = self._generations.adjust(self._models[config.name], config)
        self._settle(now)
        return desired.key

    def remove(self, name: str, now: float) -> None:
        """Serve the model no longer."""
        model = self._models.pop(name)
        self._generations.forget(name)
        for waiter in list(model.queue):
            self._effects.refuse(waiter, gone(name))
        for desired in model.generations():
            self._generations.retire(desired)
        self._settle(now)

    def close(self) -> None:
        """The node stops: requests that wait are refused, and no more are taken."""
        self._requests.close()

    # What preparing found.

    def foreseen(self, key: Generation, facts: ModelFacts | None, now: float) -> None:
        """What is known of a model's files while they are still downloaded; None: nothing."""
        if (desired := self.desired(key)) is not None:
            desired.facts, desired.known = facts or desired.facts, True
            self._placing.changed()
            self._settle(now)

    def prepared(self, key: Generation, facts: ModelFacts | None, now: float) -> None:
        """Its files are here, and an engine serves it."""
        if (desired := self.desired(key)) is not None:
            desired.stage, desired.facts = "prepared", facts
            self.foreseen(key, facts, now)

    def unprepared(self, key: Generation, error: YibuError, now: float) -> None:
        """It cannot be served."""
        if (desired := self.desired(key)) is not None:
            self._fail(desired, error, now)
            self._settle(now)

    # Memory.

    def memory_read(self, reading: Reading, now: float) -> None:
        for desired, error in self._placing.read(reading, now):
            self._fail(desired, error, now)
        self._settle(now)

    # Replicas.

    def replica_changed(
        self,
        replica_id: str,
        state: Literal["starting", "ready", "sleeping", "draining", "failed"],
        now: float,
        *,
        slots: int | None = None,
        sleeps: SleepLevels = (),
        slept: int | None = None,
        due: float | None = None,
        error: YibuError | None = None,
    ) -> None:
        """A supervisor's replica is in another state. ``slots`` are requests that its engine works
        on at once; ``sleeps`` is how it can sleep, and ``slept`` how it does; ``due`` is when it is
        likely ready. What was said of its silence is over."""
        replica = self._replicas.get(replica_id)
        desired = None if replica is None else self.desired(replica.generation)
        if replica is None or desired is None or replica.state == "stopping":
            return
        # One event, for between two requests could be granted to an engine that is gone.
        replica.due, replica.error, replica.silent = due, error, False
        if state == "sleeping":
            replica.state, replica.slept, replica.slept_at = "asleep", slept, now
            replica.yielding = replica.resting = False
        elif state == "draining" and replica.state == "suspending":
            return
        elif state == "draining":  # a restart that a person asked for
            replica.state = "starting"
        elif state == "starting":
            if replica.state != "starting":
                replica.starting_since = now
            replica.state, replica.slept, replica.resting = "starting", None, False
        elif state == "failed":
            self._replica_failed(desired, replica, now)
        else:
            replica.sleeps = sleeps
            replica.serves(slots, desired.config.max_concurrency, now)
            desired.failures, desired.error, desired.served = 0, None, True
        self._placing.changed()
        self._settle(now)

    def replica_silent(self, replica_id: str, now: float, *, silent: bool) -> None:
        """Whether a ready replica's engine answers nothing at the moment."""
        replica = self._replicas.get(replica_id)
        if replica is not None and replica.silent != silent:
            replica.silent = silent
            self._settle(now)

    def _replica_failed(self, desired: Desired, replica: Replica, now: float) -> None:
        replica.state, replica.reservation = "failed", None
        model = self._models[desired.name]
        replica.error = replica.error or EngineStartError(
            "{replica} has failed", replica=replica.id
        )
        on_demand = desired.config.on_demand and not model.ready
        if desired is model.next or on_demand:
            self._fail(desired, replica.error, now)
        elif not desired.living():
            self._requests.refuse_all(model, now)

    def replica_ended(self, replica_id: str, now: float) -> None:
        """Nothing is left of it."""
        replica = self._replicas.get(replica_id)
        if replica is None:
            return
        self._starts.over(replica_id)
        self._generations.remove(replica)
        self._memory_freed(now)
        self._settle(now)

    def _memory_freed(self, now: float) -> None:
        """What found no room may be tried again at once."""
        self._placing.changed()
        for model in self._models.values():
            if isinstance(model.current.error, DoesNotFitError):
                model.current.failures, model.current.retry_at = 0, now

    def start_wanted(self, start: Start, now: float) -> None:
        """A supervisor is about to spawn its engine; ``let_start`` says when it may."""
        self._starts.wanted(start)
        self._settle(now)

    def start_over(self, replica_id: str, now: float) -> None:
        """That start has ended, well or not."""
        self._starts.over(replica_id)
        self._settle(now)

    # Requests.

    def request(self, waiter: Waiter, now: float) -> str | None:
        """The replica that answers a request; None where it waits, for ``grant`` or ``refuse``.

        Raises:
            RequestError: it gets none.
        """
        replica = self._requests.take(waiter, now)
        if replica is None and not self._models[waiter.model].ready:
            self._settle(now)
        return replica

    def occupied(self, replica_id: str, waiter: Waiter, now: float) -> bool:
        """A request has had this replica since before this node; False where one of them is not here."""
        return self._requests.occupied(self._replicas.get(replica_id), waiter, now)

    def answered(self, waiter: Waiter, now: float) -> None:
        """A request that had a replica has ended."""
        replica = self._requests.answered(waiter, now)
        if replica is not None and replica.yielding:
            self._settle(now)

    def left(self, waiter: Waiter, now: float) -> None:
        """A request that waits is not wanted any more."""
        if (model := self._models.get(waiter.model)) is not None and model.queue.remove(waiter):
            self._settle(now)

    def tick(self, now: float) -> None:
        """Time has passed."""
        for model in self._models.values():
            self._requests.expire(model, now)
            demand.review(model, now, self._scale_down)
            self._generations.stop(demand.overslept(model, now))
        self._placing.tick(now)
        self._settle(now)

    # What is wanted, and what there is.

    def _settle(self, now: float) -> None:
        """Do what follows from the state. An effect that ends at once comes back as an event, which
        must not find the state half changed: it is settled when this round is over."""
        if self._settling:
            self._again = True
            return
        self._settling = True
        try:
            while True:
                self._again = False
                for model in list(self._models.values()):
                    self._settle_model(model, now)
                self._generations.stop_retired()
                self._placing.ask(now)
                for replica_id in self._starts.next():
                    self._effects.let_start(replica_id)
                if not self._again:
                    return
        finally:
            self._settling = False

    def _settle_model(self, model: ScheduledModel, now: float) -> None:
        self._generations.switch(model)
        for desired in model.generations():
            target = demand.target(model, desired)
            missing = len(desired.living()) < target or not desired.replicas
            if desired.stage == "new" and missing:
                # On demand too: what would keep it from being served is found out now.
                desired.stage = "preparing"
                self._effects.prepare(desired.key)
            if desired.stage == "prepared":
                self._generations.order(desired, target, now)
            self._generations.give_back(model, desired, demand.surplus(desired, target))
        model.refresh()
        self._requests.dispatch(model, now)
        if model.changed():
            self._effects.changed(model.name)

    def _fail(self, desired: Desired, error: YibuError, now: float) -> None:
        """The generation cannot be started; what had begun of it ends, and an earlier one serves on."""
        model = self._models[desired.name]
        self._placing.forget(desired.key)
        running = [r for r in desired.living() if r.state != "wanted"]
        if desired is model.next:
            self._generations.give_up(model, desired, error)
        elif running:  # more of it than there is cannot be had
            desired.most, desired.retry_at = len(running), now + _RETRY
            desired.shortage = error
            if desired.stage != "prepared":
                desired.stage = "new"
            self._generations.stop([r for r in desired.living() if r.state == "wanted"])
        elif desired.config.on_demand and desired.stage == "prepared":
            desired.error, desired.started = error, False
            desired.failures += 1
            desired.retry_at = now + admission.pause(desired.failures)
            self._generations.stop(desired.replicas.values())
            self._requests.refuse_all(model, now)
        else:
            desired.error, desired.stage = error, "failed"
            self._generations.stop(desired.living())
            self._requests.refuse_all(model, now)

    # What others may know.

    def outcome(self, key: Generation) -> bool | YibuError | None:
        """See ``Generations.outcome``."""
        return self._generations.outcome(key)

    def desired(self, key: Generation) -> Desired | None:
        """A generation that is wanted still."""
        return self._generations.find(key)

    def next_number(self, name: str) -> int:
        """The number of the model's next generation."""
        return self._generations.next_number(name)

    def model(self, name: str) -> ScheduledModel | None:
        return self._models.get(name)

    def waiting(self) -> list[Waiter]:
        """The requests that wait for a replica."""
        return [waiter for model in self._models.values() for waiter in model.queue]

    def names(self) -> list[str]:
        return list(self._models)

    def reserved(self, holdings: Mapping[str, Holding]) -> list[Reservation]:
        """What living replicas were planned, with what their processes hold of it."""
        return self._placing.reserved(holdings)
