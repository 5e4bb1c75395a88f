"""Who may start beside whom on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Start:
    """A replica that is about to start."""

    replica: str
    gpus: frozenset[int]
    memory: int
    """Bytes planned, of each of these."""
    alone: bool
    """It measures its GPUs' free memory meanwhile, which nobody else may change."""


class Starts:
    """The engines that start just now, and those that wait for them."""

    def __init__(self) -> None:
        self._waiting: list[Start] = []
        self._starting: list[Start] = []

    def wanted(self, start: Start) -> None:
        self._waiting.append(start)

    def over(self, replica: str) -> None:
        """It has started, or does not start any more."""
        self._waiting = [start for start in self._waiting if start.replica != replica]
        self._starting = [start for start in self._starting if start.replica != replica]

    def next(self) -> list[str]:
        """The replicas that may start now; they are starting from here on."""
        chosen = may_start(self._waiting, self._starting)
        self._starting += chosen
        self._waiting = [start for start in self._waiting if start not in chosen]
        return [start.replica for start in chosen]


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
