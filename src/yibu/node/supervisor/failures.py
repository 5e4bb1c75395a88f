"""What a replica has failed of, and what is done about the next failure."""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from dataclasses import dataclass

from yibu.errors import EngineStartError
from yibu.node.timings import Timings
from yibu.routing import Failure


class RestartPolicy:
    """When an engine that failed is started again: exponential back-off with jitter, and an end to it.

    Decisions only, without a clock.

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


@dataclass(frozen=True, slots=True)
class Failed:
    """A life of an engine that ended otherwise than it was ordered."""

    error: EngineStartError
    ready_seconds: float | None
    """How long the engine had been ready; None: this start never got there."""


class Failures:
    """Those of one replica."""

    def __init__(self, timings: Timings) -> None:
        self.counts: Counter[str] = Counter()
        """By cause, a short key each."""
        self.last: Failure | None = None
        self.was_ready = False
        self._timings = timings
        self._policy = RestartPolicy(timings)
        self._port_changes = 0
        self._unanswered: str | None = None
        """The cause of a failure that no start has followed yet."""

    @property
    def recent(self) -> int:
        """Failures that count against the next restart."""
        return self._policy.failures

    def note(self, error: EngineStartError) -> None:
        self._unanswered = error.cause
        self.counts[error.cause] += 1
        self.last = Failure(error.cause, time.time())

    def start_cause(self) -> str:
        """What a start that begins now follows."""
        cause, self._unanswered = self._unanswered, None
        return cause or "asked"

    def delay(self, failed: Failed) -> float | None:
        """Seconds until the next try, 0 on another port; None: give up."""
        error, ready_seconds = failed.error, failed.ready_seconds
        if ready_seconds is not None:
            self._policy.ready_for(ready_seconds)
        elif error.cause == "port_in_use" and self._port_changes < self._timings.port_retries:
            self._port_changes += 1
            return 0.0
        # A start that failed is no crash: what has never worked is not tried again unchanged.
        return self._policy.failed(time.monotonic()) if self.was_ready else None

    def forget(self) -> None:
        """A person asked for a restart: earlier failures do not count against it."""
        self._port_changes = 0
        self._policy.reset()
