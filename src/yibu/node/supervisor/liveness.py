"""Whether an engine hangs: decisions only, without a clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from yibu.node.timings import Timings


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

    def wants_health(self, now: float, in_flight: int) -> bool:
        """Before its time: nothing comes although something should."""
        return in_flight > 0 and now - self.last_progress >= self.timings.quiet

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
