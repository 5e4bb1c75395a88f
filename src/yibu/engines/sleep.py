"""How an engine gives its GPU memory up, and takes it back, without ending."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Call:
    """A request to the engine, in the order of a list."""

    path: str
    body: Mapping[str, Any] | None = None
    """JSON; None: an empty POST."""


@dataclass(frozen=True, slots=True)
class SleepLevel:
    """One way to sleep."""

    number: int
    memory: int
    """Bytes of main memory that it takes meanwhile."""
    enter: tuple[Call, ...]
    leave: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class SleepPlan:
    """The ways that a launched engine can sleep, the preferred first."""

    levels: tuple[SleepLevel, ...]
    asleep_path: str
    """Answers GET with a JSON object."""
    asleep_field: str
    """Which of its fields is true while the engine sleeps."""
    same: Call | None = None
    """A request whose answer has the same ``choices`` before and after: the weights are the same."""
    timeout: float = 300.0
    """Seconds for each call."""

    def level(self, number: int) -> SleepLevel | None:
        return next((level for level in self.levels if level.number == number), None)
