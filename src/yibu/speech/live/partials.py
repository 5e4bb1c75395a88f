"""Chooses which open utterances to recognize when the model has time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

from yibu.speech.jobs import Job

NOT_DUE = math.inf
_LATE = 0.2
"""Delay of final texts, in seconds, above which partial texts become rarer."""
_MOST_USED = 0.8
"""Share of all cores in use above which partial texts become rarer, to leave room for final texts."""
_LOAD_SECONDS = 0.5
"""Seconds over which that share is measured."""
_LEAST_SHARE = 0.05
_FIRSTS = 4
"""Times this share is that of utterances that show nothing yet: the others stand back before them."""
_IN_TIME = 0.7
"""The share from which on first texts go before utterances that are about to end."""
_COST = 0.1
"""Seconds that a candidate stands back for each second of speech: cheap ones go first."""


class Candidate(Protocol):
    """A live session with an open utterance that has new speech."""

    heard_at: float
    """When the utterance was last recognized; when it began, where it never was."""
    due: float
    """From when on its final text is to be computed, if the silence that has begun goes on; ``NOT_DUE``
    while somebody speaks, and once that is done."""
    news: bool
    """Whether a partial text is wanted now."""
    cost: float
    """Seconds of speech to recognize."""
    shows: bool
    """Whether a partial text of it was shown."""

    def recognize_again(self) -> list[Job]: ...


class PartialQueue:
    """Candidates in the order of need: those that show nothing yet, which are short; utterances that are about
    to end, since what is recognized during the silence is their final text; then by the age of what
    they show, a long one as if it were younger. No audio is kept here: a job takes what there is when the model asks.

    Partial texts of speech that goes on get a share of a worker's time that shrinks while final texts are
    late or the cores are busy, and grows while they are not (additive increase, multiplicative decrease).
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        used: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """``used`` returns this process's CPU seconds on all cores."""
        self._waiting: set[Candidate] = set()
        self._clock, self._used = clock, used
        self._measured = clock(), used()
        self.share = 1.0
        """Share of a worker's time for partial texts; other optional work follows it too."""
        self._firsts_from = self._further_from = 0.0
        """When partial texts may be computed again, of utterances that show nothing yet and of others."""

    def __len__(self) -> int:
        return len(self._waiting)

    def computed(self, seconds: float) -> tuple[float, float]:
        """A batch of speech that goes on took so long: the seconds for which nothing is ready now, and
        after which all is."""
        now = self._clock()
        since, used = self._measured
        if now - since >= _LOAD_SECONDS:
            self._measured = now, self._used()
            self._adapt(well=self._measured[1] - used <= _MOST_USED * (now - since))
        pauses = _pause(seconds, min(1.0, _FIRSTS * self.share)), _pause(seconds, self.share)
        self._firsts_from, self._further_from = now + pauses[0], now + pauses[1]
        return pauses

    def final_came(self, delay: float) -> None:
        """Note that a final text came ``delay`` seconds after its utterance's end was noticed."""
        self._adapt(well=delay <= _LATE)

    def _adapt(self, *, well: bool) -> None:
        self.share = min(1.0, self.share + 0.05) if well else max(_LEAST_SHARE, 0.7 * self.share)

    def offer(self, candidate: Candidate) -> None:
        self._waiting.add(candidate)

    def withdraw(self, candidate: Candidate) -> None:
        self._waiting.discard(candidate)

    def take(self, seconds: float, *, firsts: bool, further: bool) -> list[Job]:
        """The most urgent ones, about so much audio: utterances that are about to end, the ``firsts`` of
        those that go on and show nothing yet, and ``further`` texts of others."""
        now = self._clock()
        order = sorted(
            (each for each in self._waiting if each.due <= now), key=lambda each: each.due
        )
        since = (
            self._firsts_from if firsts else NOT_DUE,
            self._further_from if further else NOT_DUE,
        )
        news = [each for each in self._waiting if each.news and each.due > now >= since[each.shows]]
        news.sort(key=_rank)
        if news and not (order and (news[0].shows or self.share < _IN_TIME)):
            order, seconds = news, seconds / 2  # a sentence may end meanwhile, and wait
        taken: list[Job] = []
        for candidate in order:
            seconds -= candidate.cost
            if taken and seconds < 0:
                break
            self._waiting.discard(candidate)
            taken += candidate.recognize_again()
        return taken


def _pause(seconds: float, share: float) -> float:
    """After ``seconds`` of computing, where ``share`` of the time may be."""
    return seconds * (1 / share - 1)


def _rank(candidate: Candidate) -> tuple[bool, float]:
    return candidate.shows, candidate.heard_at + _COST * candidate.cost
