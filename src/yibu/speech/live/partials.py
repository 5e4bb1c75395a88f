"""Which open utterances are recognized next, when the model has time for it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

from yibu.speech.batcher import Job

NOT_DUE = math.inf
_LATE = 0.1
"""Seconds from the end of an utterance to its text, over which partial texts become rarer."""
_LEAST_SHARE = 0.05
_COST = 0.1
"""Seconds that a candidate stands back for each second of speech: cheap ones go first."""


class Candidate(Protocol):
    """A live session with an open utterance in which something is new."""

    heard_at: float
    """When the utterance was last recognized; 0 where it never was."""
    due: float
    """When its final text will be asked for, if the silence that has begun goes on; ``NOT_DUE`` while
    somebody speaks."""
    cost: float
    """Seconds of speech to recognize."""
    shows: bool
    """Whether a partial text of it was shown."""

    def recognize_again(self) -> Job: ...


class PartialQueue:
    """Candidates by deadline: utterances that are about to end go first, since what is recognized
    during the silence is their final text; then those that show nothing yet, then by the age of what
    they show, a long one as if it were younger. No audio is kept here: a job takes what there is when the model asks.

    Partial texts of speech that goes on get a share of the model's time that shrinks while final
    texts are late, and grows while they are not (additive increase, multiplicative decrease).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._waiting: set[Candidate] = set()
        self._clock = clock
        self._share = 1.0
        self._paused_until = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def ready(self) -> bool:
        """Whether something can be taken now."""
        return self.urgent or (bool(self._waiting) and self._clock() >= self._paused_until)

    def computed(self, seconds: float) -> float:
        """A batch of speech that goes on took so long: the seconds for which nothing is ready now."""
        pause = seconds * (1 / self._share - 1)
        self._paused_until = self._clock() + pause
        return pause

    def final_came(self, delay: float) -> None:
        """A final text came ``delay`` seconds after the end of its utterance was noticed."""
        if delay > _LATE:
            self._share = max(_LEAST_SHARE, 0.7 * self._share)
        else:
            self._share = min(1.0, self._share + 0.05)

    @property
    def urgent(self) -> bool:
        """Whether an utterance is about to end."""
        return any(each.due != NOT_DUE for each in self._waiting)

    def offer(self, candidate: Candidate) -> None:
        self._waiting.add(candidate)

    def withdraw(self, candidate: Candidate) -> None:
        self._waiting.discard(candidate)

    def take(self, seconds: float) -> list[Job]:
        order = sorted(self._waiting, key=_rank)
        ending = bool(order) and order[0].due != NOT_DUE
        taken: list[Job] = []
        for candidate in order:
            seconds -= candidate.cost
            if taken and (seconds < 0 or (candidate.due == NOT_DUE) == ending):
                break
            self._waiting.discard(candidate)
            taken.append(candidate.recognize_again())
        return taken


def _rank(candidate: Candidate) -> tuple[float, bool, float]:
    return candidate.due, candidate.shows, candidate.heard_at + _COST * candidate.cost
