"""Utterances of a live session, and their listener."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from yibu.errors import RequestError
from yibu.speech.answers.formats import pieces
from yibu.speech.jobs import Answer
from yibu.speech.live.agreement import rest
from yibu.speech.live.hypotheses import Hypotheses
from yibu.speech.types import RecognitionOptions, Recognized, Segment


def span(segment: Segment) -> tuple[float, float]:
    """Its start and duration."""
    return segment.start, segment.duration


@dataclass(eq=False, slots=True)
class Early:
    """An utterance recognized before it is certain that it has ended."""

    span: tuple[float, float]
    """Start and duration of its segment."""
    options: RecognitionOptions
    result: Answer | None = None
    deliver: Callable[[Answer], None] | None = None
    """Called with the result where the utterance ended before it came."""

    def fits(self, segment: Segment, options: RecognitionOptions) -> bool:
        failed = isinstance(self.result, RequestError)
        return not failed and options == self.options and span(segment) == self.span


@dataclass(eq=False, slots=True)
class Utterance:
    """Speech that becomes one text."""

    start: float
    """Seconds of the session's audio."""
    hypotheses: Hypotheses
    end: float = 0.0
    segments: list[Recognized | None] = field(default_factory=list)
    """Results of its segments, None while pending."""
    whole: bool = False
    """Whether all of its segments are known."""
    error: RequestError | None = None
    early: Early | None = None
    """Its final text, recognized during the silence that may end it."""

    @property
    def done(self) -> bool:
        return self.whole and (self.error is not None or None not in self.segments)

    @property
    def recognized(self) -> list[Recognized]:
        return [segment for segment in self.segments if segment is not None]

    @property
    def text(self) -> str:
        return "".join(pieces(self.recognized))

    @property
    def shown(self) -> str:
        """The shown part of the text."""
        return self.hypotheses.shown

    @property
    def rest(self) -> str:
        """The part of the final text that was not shown."""
        return rest(self.shown, self.text)


class Listener(Protocol):
    """A protocol's side of a session. Called on the event loop, in the order of the speech."""

    def began(self, utterance: Utterance) -> None: ...

    def ended(self, utterance: Utterance) -> None: ...

    def partial(self, utterance: Utterance, new: str) -> None:
        """``new`` follows what was shown of it before."""
        ...

    def final(self, utterance: Utterance) -> None:
        """Its text is complete, or its ``error`` is set."""
        ...
