"""One model's scheduling state: generations, ready replicas and queue."""

from __future__ import annotations

from collections import deque

from yibu.node.scheduler.queue import RequestQueue
from yibu.node.scheduler.types import Desired, Replica

_SAMPLES = 64


class Rate:
    """The rate of recent answers, over the time in which there was something to answer."""

    def __init__(self) -> None:
        self._ends: deque[float] = deque(maxlen=_SAMPLES)
        self._since = 0.0
        self._earlier = 1.0
        """Seconds per request before that."""

    def begun(self, now: float) -> None:
        """Note that the only request in flight has begun."""
        if self._ends:
            self._earlier = self._each(self._ends[-1])
        self._ends.clear()
        self._since = now

    def answered(self, now: float) -> None:
        if len(self._ends) == _SAMPLES:
            self._since = self._ends[0]
        self._ends.append(now)

    def seconds(self, requests: int, now: float) -> float:
        """Seconds that so many requests take; 1 each where nothing is known."""
        return requests * (self._each(now) if self._ends else self._earlier)

    def _each(self, now: float) -> float:
        return max(now - self._since, 1e-6) / len(self._ends)


class ScheduledModel:
    """``current`` serves; ``next`` takes its place as soon as it is ready."""

    def __init__(self, current: Desired) -> None:
        self.name = current.name
        self.current = current
        self.next: Desired | None = None
        self.queue = RequestQueue()
        self.rate = Rate()
        self.ready: list[Replica] = []
        """Replicas of ``current`` that get requests."""
        self.turn = 0
        self.last_used = 0.0
        self._told: list[object] = []

    def generations(self) -> list[Desired]:
        return [self.current] if self.next is None else [self.current, self.next]

    def changed(self) -> bool:
        """Whether anything shown to others changed since the last call."""
        before = self._told
        self._told = [
            (d.key, d.stage, d.started, [(r.id, r.state, r.yielding) for r in d.replicas.values()])
            for d in self.generations()
        ]
        return before != self._told

    def refresh(self) -> None:
        """Bring ``ready`` up to date."""
        ready = [
            replica
            for replica in self.current.replicas.values()
            if replica.state == "ready" and not (replica.yielding or replica.resting)
        ]
        self.ready = [replica for replica in ready if not replica.silent] or ready

    @property
    def in_flight(self) -> int:
        return sum(r.in_flight for d in self.generations() for r in d.replicas.values())

    @property
    def usable(self) -> bool:
        """Whether its current generation serves, would on demand, or did until its engines crashed,
        which are started again: a change that fails must not cost what served before."""
        current = self.current
        if current.served and current.living():
            return True
        unloaded = all(replica.state == "asleep" for replica in current.replicas.values())
        return current.stage == "prepared" and current.error is None and unloaded
