"""The waits of a chaos run's node, and what follows from them for how long a recovery may take."""

from __future__ import annotations

from yibu.node.timings import Timings

TIMINGS = Timings(
    adopt=5.0,
    orphan_grace=0.5,
    drain=5.0,
    health_every=0.5,
    health_request=2.0,
    stall=20.0,
    backoff_first=0.1,
    backoff_cap=0.5,
    failure_limit=1_000_000,
    healthy_after=1.0,
)
RECOVERY = 5.0
"""Seconds in which a model answers again, beside the engine's own start and the time to find a hang."""


def hang_found() -> float:
    """Seconds in which an engine that was stopped is found, whenever it was."""
    failures = TIMINGS.health_failures
    between = TIMINGS.health_every + (failures - 1) * min(1.0, TIMINGS.health_every)
    return between + failures * TIMINGS.health_request


FOUND = {"stop_engine": hang_found()}
"""Seconds until it is known what an event did, by its name; the end of a process is known at once."""


def promised(event: str, start: float) -> float:
    """Seconds in which all replicas of a model are ready after an event, where an engine takes ``start``."""
    return FOUND.get(event, 0.0) + RECOVERY + start
