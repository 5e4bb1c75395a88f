"""When an engine that failed is started again: decisions only, without a clock."""

from __future__ import annotations

import random
from collections import deque

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
