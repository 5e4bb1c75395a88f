"""The generations of models and their replicas, and how they begin and end."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from yibu.config import ModelConfig
from yibu.errors import YibuError
from yibu.node.scheduler import demand
from yibu.node.scheduler.model import ScheduledModel
from yibu.node.scheduler.placing import Placing
from yibu.node.scheduler.types import Desired, Effects, Generation, Replica


class Generations:
    """All generations. ``models`` and ``replicas`` are the scheduler's, by name and by id."""

    def __init__(
        self,
        effects: Effects,
        models: dict[str, ScheduledModel],
        replicas: dict[str, Replica],
        placing: Placing,
        name: Callable[[Generation, int], str],
        foresight: float,
    ) -> None:
        self._effects = effects
        self._models = models
        self._replicas = replicas
        self._placing = placing
        self._name = name
        self._foresight = foresight
        self._retired: list[Desired] = []
        self._numbers: dict[str, int] = {}
        self._failed: dict[Generation, YibuError] = {}
        """Errors of generations that failed to take over."""

    def make(
        self, config: ModelConfig, now: float, generation: int, *, start: bool | None
    ) -> Desired:
        number = generation or self.next_number(config.name)
        self._numbers[config.name] = max(number, self._numbers.get(config.name, 0))
        desired = Desired.of(config, number, now, self._foresight, start=start)
        desired.served = generation > 0  # the number that it had in an earlier node
        return desired

    def next_number(self, name: str) -> int:
        """The number of the model's next generation."""
        return self._numbers.get(name, 0) + 1

    def find(self, key: Generation) -> Desired | None:
        """The generation, if it is still desired."""
        model = self._models.get(key[0])
        if model is None:
            return None
        return next((desired for desired in model.generations() if desired.key == key), None)

    def outcome(self, key: Generation) -> bool | YibuError | None:
        """Whether a generation serves as desired; the error that prevented it; None where another took
        its place or it was removed."""
        if key in self._failed:
            return self._failed[key]
        desired = self.find(key)
        if desired is None:
            return None
        failed = (
            replica.error for replica in desired.replicas.values() if replica.state == "failed"
        )
        error = desired.error or next((error for error in failed if error), None)
        return error or demand.up(desired)

    def order(self, desired: Desired, target: int, now: float) -> None:
        """Add missing replicas; a number is free when its last replica has gone."""
        for replica in desired.asleep()[: max(0, target - len(desired.living()))]:
            if not replica.yielding:
                replica.state, desired.wanted_since = "wanted", now
                self._placing.changed()
        missing = target - len(desired.living())
        for number in [n for n in range(target) if n not in desired.replicas][:missing]:
            replica = Replica(self._name(desired.key, number), desired.key, number)
            replica.group = desired.config.group
            if not desired.living():
                desired.wanted_since = now
            desired.replicas[number] = self._replicas[replica.id] = replica
            self._placing.changed()

    def adjust(self, model: ScheduledModel, config: ModelConfig) -> Desired:
        """Give the latest generation a configuration that its engines need not know of."""
        desired = model.generations()[-1]
        before, desired.config = desired.config, config
        desired.scale, desired.most, desired.shortage = 0, None, None
        if config.stays_loaded and not before.stays_loaded:
            desired.started = True
        for replica in desired.replicas.values():
            replica.group = config.group
            replica.slots = config.max_concurrency or replica.engine_slots
        self._placing.changed()
        return desired

    def switch(self, model: ScheduledModel) -> None:
        """Let the next generation take over if it can serve."""
        following = model.next
        if following is None:
            return
        if following.stage == "prepared" and (
            demand.up(following) or not demand.target(model, following)
        ):
            self.retire(model.current)
            model.current, model.next = following, None

    def give_up(self, model: ScheduledModel, desired: Desired, error: YibuError) -> None:
        """Drop a generation that failed to take over."""
        self._failed[desired.key] = error
        self.withdraw(model)

    def withdraw(self, model: ScheduledModel) -> None:
        """No other generation is to take over."""
        if model.next is not None:
            self.retire(model.next)
            model.next = None

    def forget(self, name: str) -> None:
        """Remove the model."""
        self._failed = {key: error for key, error in self._failed.items() if key[0] != name}

    def give_back(
        self, model: ScheduledModel, desired: Desired, surplus: Iterable[Replica]
    ) -> None:
        """Stop replicas that are too many, and those that yield; let those sleep that can, where the
        model may be asked for again. Each answers first what it has."""
        for replica in desired.replicas.values():
            if replica.resting and desired.started and not replica.yielding:
                replica.resting = False  # somebody asked in the last moment
        for replica in surplus:
            if replica.slept is not None:
                replica.state = "asleep"  # it was about to be woken
            elif replica.in_flight and not replica.resting:
                replica.yielding = True
            else:
                self._let_go(model, desired, replica)
        for replica in list(desired.replicas.values()):
            if replica.yielding and not replica.in_flight:
                self._let_go(model, desired, replica)

    def _let_go(self, model: ScheduledModel, desired: Desired, replica: Replica) -> None:
        if replica.resting or replica.state in ("suspending", "stopping"):
            return
        back = desired is model.current and model.next is None and desired.config.on_demand
        if back and replica.sleeps and replica.state == "ready":
            replica.resting = True
            self._placing.changed()
        else:
            self.stop([replica])

    def retire(self, desired: Desired) -> None:
        """Stop all replicas of a generation."""
        self.stop(desired.replicas.values())
        if desired.replicas:
            self._retired.append(desired)

    def stop_retired(self) -> None:
        """Stop replicas that came back of generations no longer desired."""
        for desired in self._retired:
            self.stop(desired.replicas.values())

    def stop(self, replicas: Iterable[Replica]) -> None:
        for replica in list(replicas):
            if replica.state == "wanted" and replica.slept is None:
                self.remove(replica)
            elif replica.state != "stopping":
                replica.state = "stopping"
                self._placing.changed()
                self._effects.stop(replica.id)

    def remove(self, replica: Replica) -> None:
        """Forget a replica that is gone."""
        self._replicas.pop(replica.id, None)
        wanted = [desired for model in self._models.values() for desired in model.generations()]
        for desired in [*wanted, *self._retired]:
            if desired.replicas.get(replica.number) is replica:
                del desired.replicas[replica.number]
        self._retired = [desired for desired in self._retired if desired.replicas]
