"""What to do about crashes, silence and waiting callers: decisions only.

Nothing here reads a clock, sleeps or touches a process; the caller says what the time is. Models
on demand, which come later, are another :class:`Admission`, with a decision of its own to start a
model; :class:`yibu.node.fleet.Fleet` carries decisions out.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from yibu.node.timings import Timings


class RestartPolicy:
    """Exponential back-off with jitter, and an end to it.

    ``failure_limit`` failures within ``failure_window`` mean that restarting does not help.
    """

    def __init__(self, timings: Timings, rng: random.Random | None = None) -> None:
        self._timings = timings
        self._rng = rng or random.SystemRandom()
        self._failures: deque[float] = deque()

    @property
    def failures(self) -> int:
        return len(self._failures)

    def failed(self, now: float) -> float | None:
        """Note a failure at ``now``; seconds to wait before the restart, None: give up."""
        timings = self._timings
        self._failures.append(now)
        while self._failures[0] <= now - timings.failure_window:
            self._failures.popleft()
        if len(self._failures) >= timings.failure_limit:
            return None
        delay = timings.backoff_first * 2.0 ** (len(self._failures) - 1)
        spread = 1 + timings.backoff_jitter * self._rng.uniform(-1, 1)
        return min(delay, timings.backoff_cap) * spread

    def ready_for(self, seconds: float) -> None:
        """The engine has been ready so long before it failed."""
        if seconds >= self._timings.healthy_after:
            self._failures.clear()

    def reset(self) -> None:
        """A person asked for a restart: earlier failures do not count against it."""
        self._failures.clear()


@dataclass(slots=True)
class Liveness:
    """Tells a hung engine from a busy one.

    A hung engine may answer its health path for ever, and a busy one may answer nothing for
    minutes; what tells them apart is progress: a finished request, a byte of a stream, a canary's
    token, and, for a while, CPU time spent.
    """

    timings: Timings
    last_progress: float
    """When something last came out of the engine."""
    health_failures: int = 0
    canary_errors: int = 0

    def progressed(self, now: float) -> None:
        self.last_progress = now
        self.health_failures = 0
        self.canary_errors = 0

    def wants_canary(self, now: float, in_flight: int) -> bool:
        quiet = now - self.last_progress
        return quiet >= (self.timings.stall if in_flight else self.timings.idle_canary)

    def health(self, now: float, *, answered: bool, busy: bool) -> bool:
        """Note one health check; True when the engine has to be restarted.

        ``busy``: its processes burned CPU since the check before.
        """
        if answered:
            self.health_failures = 0
            return False
        self.health_failures += 1
        return self.health_failures >= self.timings.health_failures and not self._excused(
            now, busy=busy
        )

    def canary(
        self,
        now: float,
        *,
        outcome: Literal["token", "error", "silence"],
        sent: float,
        busy: bool,
    ) -> bool:
        """Note a canary's end; True when the engine has to be restarted."""
        if outcome == "token":
            self.progressed(now)
            return False
        if self.last_progress > sent:  # others got their tokens meanwhile: it only waited
            return False
        if outcome == "error":
            self.canary_errors += 1
            return self.canary_errors >= 2
        return not self._excused(now, busy=busy)

    def _excused(self, now: float, *, busy: bool) -> bool:
        if not busy:
            return False
        return now - self.last_progress < self.timings.busy_limit


@dataclass(frozen=True, slots=True)
class ModelView:
    """What admission may know of a model without a ready replica."""

    name: str
    state: str
    expected: float | None
    """Seconds until a replica is likely ready; None: cannot be known, or never."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Hold the request for a replica, at most so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Refuse:
    """503 now; ``retry_after`` seconds for the client."""

    retry_after: float


Decision = Wait | Refuse


class Admission(Protocol):
    """Decides about a request whose model has no ready replica."""

    def decide(self, view: ModelView) -> Decision: ...


@dataclass(frozen=True, slots=True)
class Supervised:
    """Every model is up or coming up on its own: wait when it is a matter of seconds.

    A crash of an engine that starts quickly then costs its callers a pause, not an error, while
    a model that loads for minutes says so at once.
    """

    longest_wait: float

    def decide(self, view: ModelView) -> Decision:
        if view.expected is None:
            return Refuse(retry_after=60.0 if view.state == "failed" else 10.0)
        if view.expected <= self.longest_wait:
            return Wait(self.longest_wait)
        return Refuse(retry_after=min(max(view.expected, 1.0), 60.0))


@dataclass(frozen=True, slots=True)
class Start:
    """A replica that is about to start."""

    replica: str
    gpus: frozenset[int]
    memory: int
    """Bytes planned, of each of these."""
    alone: bool
    """It measures its GPUs' free memory meanwhile, which nobody else may change."""


def may_start(waiting: Sequence[Start], starting: Sequence[Start]) -> list[Start]:
    """Who of those that wait may start now, the largest first.

    On different GPUs, and on the CPU, engines start together. On one GPU nobody starts beside an
    engine that must be alone, and nobody overtakes a larger one that waits for it: what is left
    between two small models may not hold a large one.
    """
    running = list(starting)
    kept: set[int] = set()
    chosen = []
    for start in sorted(waiting, key=lambda start: -start.memory):
        beside = [other for other in running if other.gpus & start.gpus]
        if start.gpus & kept or any(other.alone or start.alone for other in beside):
            kept |= start.gpus
        else:
            chosen.append(start)
            running.append(start)
    return chosen
