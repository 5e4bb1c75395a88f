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
_MOST_USED = 0.7
"""Of all cores, beyond which partial texts become rarer too: what a final text needs is to be free."""
_LOAD_SECONDS = 0.5
"""Over which that is measured."""
_LEAST_SHARE = 0.05
_COST = 0.1
"""Seconds that a candidate stands back for each second of speech: cheap ones go first."""


class Candidate(Protocol):
    """A live session with an open utterance in which something is new."""

    heard_at: float
    """When the utterance was last recognized; 0 where it never was."""
    due: float
    """From when on its final text is to be computed, if the silence that has begun goes on; ``NOT_DUE``
    while somebody speaks, and once that is done."""
    news: bool
    """Whether a partial text is wanted now."""
    cost: float
    """Seconds of speech to recognize."""
    shows: bool
    """Whether a partial text of it was shown."""

    def recognize_again(self) -> Job: ...


class PartialQueue:
    """Candidates by deadline: utterances that are about to end go first, since what is recognized
    during the silence is their final text; then those that show nothing yet, then by the age of what
    they show, a long one as if it were younger. No audio is kept here: a job takes what there is when the model asks.

    Partial texts of speech that goes on get a share of a worker's time that shrinks while final texts are
    late or the cores are busy, and grows while they are not (additive increase, multiplicative decrease).
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        used: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """``used`` returns the seconds that all cores have computed for this process."""
        self._waiting: set[Candidate] = set()
        self._clock, self._used = clock, used
        self._measured = clock(), used()
        self._share = 1.0
        self._paused_until = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def ready(self) -> bool:
        """Whether something can be taken now."""
        paused = self._clock() < self._paused_until
        return self.urgent or (not paused and any(each.news for each in self._waiting))

    def computed(self, seconds: float) -> float:
        """A batch of speech that goes on took so long: the seconds for which nothing is ready now."""
        now = self._clock()
        since, used = self._measured
        if now - since >= _LOAD_SECONDS:
            self._measured = now, self._used()
            self._adapt(well=self._measured[1] - used <= _MOST_USED * (now - since))
        pause = seconds * (1 / self._share - 1)
        self._paused_until = now + pause
        return pause

    def final_came(self, delay: float) -> None:
        """A final text came ``delay`` seconds after the end of its utterance was noticed."""
        self._adapt(well=delay <= _LATE)

    def _adapt(self, *, well: bool) -> None:
        self._share = min(1.0, self._share + 0.05) if well else max(_LEAST_SHARE, 0.7 * self._share)

    @property
    def urgent(self) -> bool:
        """Whether an utterance is about to end."""
        now = self._clock()
        return any(each.due <= now for each in self._waiting)

    def offer(self, candidate: Candidate) -> None:
        self._waiting.add(candidate)

    def withdraw(self, candidate: Candidate) -> None:
        self._waiting.discard(candidate)

    def take(self, seconds: float) -> list[Job]:
        now = self._clock()
        order = sorted(
            (each for each in self._waiting if each.due <= now), key=lambda each: each.due
        )
        taken: list[Job] = []
        for candidate in order or sorted((each for each in self._waiting if each.news), key=_rank):
            seconds -= candidate.cost
            if taken and seconds < 0:
                break
            self._waiting.discard(candidate)
            taken.append(candidate.recognize_again())
        return taken


def _rank(candidate: Candidate) -> tuple[bool, float]:
    return candidate.shows, candidate.heard_at + _COST * candidate.cost
