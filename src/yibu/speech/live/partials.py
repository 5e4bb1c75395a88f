"""Which open utterances are recognized once more, when the model has time for it."""

from __future__ import annotations

from typing import Protocol

from yibu.speech.batcher import Job


class Candidate(Protocol):
    """A live session in whose utterance something new was said."""

    heard_at: float
    """When the utterance was last recognized; 0 where it never was."""
    open_seconds: float
    """Of speech so far."""

    def recognize_again(self) -> Job: ...


class PartialQueue:
    """Candidates in the order of need: those that show nothing yet, then by how old what they show
    is. Nobody's audio is kept here: a job takes what there is when the model asks."""

    def __init__(self) -> None:
        self._waiting: set[Candidate] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def offer(self, candidate: Candidate) -> None:
        self._waiting.add(candidate)

    def withdraw(self, candidate: Candidate) -> None:
        self._waiting.discard(candidate)

    def take(self, seconds: float) -> list[Job]:
        order = sorted(self._waiting, key=lambda each: (each.heard_at, each.open_seconds))
        taken: list[Job] = []
        for candidate in order:
            seconds -= candidate.open_seconds
            if taken and seconds < 0:
                break
            self._waiting.discard(candidate)
            taken.append(candidate.recognize_again())
        return taken
