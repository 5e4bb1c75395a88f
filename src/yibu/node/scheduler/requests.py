"""Requests: granted at once where a replica has room, else queued."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from yibu.errors import NotReadyError, UnknownModelError, YibuError
from yibu.node.scheduler import admission
from yibu.node.scheduler.model import ScheduledModel
from yibu.node.scheduler.routing import choose
from yibu.node.scheduler.types import Effects, Replica, Waiter


class Requests:
    """The requests of all models."""

    def __init__(
        self, effects: Effects, models: Mapping[str, ScheduledModel], ready_wait: float
    ) -> None:
        self._effects = effects
        self._models = models
        self._ready_wait = ready_wait
        self._closed = False
        self._in_flight: dict[Waiter, tuple[ScheduledModel, Replica]] = {}
        """Where requests count. A name may be another's by the time that one ends: of a model that was put
        up again, of a replica that was started again."""

    def take(self, waiter: Waiter, now: float) -> str | None:
        """The replica for a request; None where it waits.

        Raises:
            UnknownModelError: no such model is served.
            NotReadyError: the model cannot answer, nor will it soon.
            OverloadedError: too many wait for it already.
        """
        model = self._models.get(waiter.model)
        if model is None:
            raise gone(waiter.model)
        if self._closed:
            raise closing()
        if not len(model.queue) or waiter.exclude or waiter.slotless:
            replica = choose(model.ready, waiter)
            if replica is not None:
                self._give(model, replica, waiter, now)
                return replica.id
        waiter.since = now
        waiter.deadline = admission.deadline(model, waiter, now, self._ready_wait, self._effects)
        model.queue.push(waiter)
        if model.ready:
            self.dispatch(model, now)  # those before it may wait for other replicas than are free
        elif model.current.config.on_demand and not model.current.started:
            model.current.load(asked=True)
            model.current.wanted_since = now
        return None

    def answered(self, waiter: Waiter, now: float) -> Replica | None:
        """End a request; returns its replica, if it counted here."""
        if (counted := self._in_flight.pop(waiter, None)) is None:
            return None
        model, replica = counted
        model.queue.answered(waiter.key)
        model.last_used = replica.last_used = now
        if not waiter.slotless:
            model.rate.answered(now)
            replica.in_flight -= 1
        if len(model.queue) and self._models.get(model.name) is model:
            self.dispatch(model, now)
        return replica

    def dispatch(self, model: ScheduledModel, now: float) -> None:
        """Grant replicas with room to waiting requests."""
        while len(model.queue) and any(replica.has_room() for replica in model.ready):
            waiter = model.queue.pop(lambda w: not w.exclude or choose(model.ready, w) is not None)
            if waiter is None:
                return
            replica = choose(model.ready, waiter)
            assert replica is not None
            if self._effects.grant(waiter, replica.id):
                self._give(model, replica, waiter, now)

    def expire(self, model: ScheduledModel, now: float) -> None:
        """Refuse requests that have waited too long, the time of a start not counted."""
        if admission.patient(model):
            least = now + model.current.config.queue_timeout
            for waiter in model.queue:
                waiter.deadline = max(waiter.deadline, least)
            return
        for waiter in [waiter for waiter in model.queue if waiter.deadline <= now]:
            model.queue.remove(waiter)
            self._effects.refuse(waiter, admission.waited(model, waiter, now, self._effects))

    def refuse_all(self, model: ScheduledModel, now: float) -> None:
        """Refuse all waiting requests of a model, with its current state as the reason."""
        wait = admission.again(model, now)
        self._refuse_all(model, lambda: self._effects.not_ready(model.name, wait))

    def _refuse_all(self, model: ScheduledModel, error: Callable[[], YibuError]) -> None:
        for waiter in list(model.queue):
            model.queue.remove(waiter)
            self._effects.refuse(waiter, error())

    def close(self) -> None:
        """Refuse waiting and new requests."""
        self._closed = True
        for model in self._models.values():
            self._refuse_all(model, closing)

    def occupied(self, replica: Replica | None, waiter: Waiter, now: float) -> bool:
        """See ``Scheduler.occupied``."""
        model = self._models.get(waiter.model)
        if model is None or replica is None:
            return False
        self._give(model, replica, waiter, now)
        return True

    def _give(self, model: ScheduledModel, replica: Replica, waiter: Waiter, now: float) -> None:
        if not model.queue.granted_any:
            model.rate.begun(now)
        model.turn += 1
        replica.turn = model.turn
        if not waiter.slotless:
            replica.in_flight += 1
        model.queue.granted(waiter)
        self._in_flight[waiter] = model, replica


def gone(name: str) -> UnknownModelError:
    """The error for a model that was removed while the request waited."""
    return UnknownModelError("the model {name!r} is not served here any more", name=name)


def closing() -> NotReadyError:
    return NotReadyError("this node is shutting down", retry_after=10.0)
