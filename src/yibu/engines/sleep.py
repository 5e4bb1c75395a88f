"""How an engine gives up GPU memory without ending, and takes it back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SleepCall:
    """One of the requests for it."""

    path: str
    body: Mapping[str, Any] | None = None
    """JSON; None: an empty POST."""


@dataclass(frozen=True, slots=True)
class SleepLevel:
    """One way to sleep."""

    number: int
    memory: int
    """Bytes of main memory used while asleep."""
    enter: tuple[SleepCall, ...]
    leave: tuple[SleepCall, ...]


@dataclass(frozen=True, slots=True)
class SleepPlan:
    """The ways that a launched engine can sleep, the preferred first."""

    levels: tuple[SleepLevel, ...]
    asleep_path: str
    """Answers GET with a JSON object."""
    asleep_field: str
    """The field of that object that is true while the engine sleeps."""
    same: SleepCall | None = None
    """A request whose answer has the same ``choices`` before and after: the weights are the same."""
    timeout: float = 300.0
    """Seconds for each call."""

    def level(self, number: int) -> SleepLevel | None:
        return next((level for level in self.levels if level.number == number), None)
