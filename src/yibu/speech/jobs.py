"""Jobs for the model: one segment each, and the computation of a batch of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from yibu.errors import RequestError
from yibu.speech.allocator import give_back
from yibu.speech.types import RecognitionOptions, Recognized, Recognizer, Segment

log = logging.getLogger(__name__)


class ModelFailedError(RequestError):
    """The model raised an exception on a segment of this request."""

    status = 500
    default_code = "model_failed"


Answer = Recognized | RequestError


@dataclass(frozen=True, slots=True)
class Job:
    """One segment for the model."""

    seconds: float
    options: RecognitionOptions
    segment: Callable[[], Segment]
    """Makes the segment; called on a thread of the model's."""
    deliver: Callable[[Answer], None]
    """Takes the answer; called on the event loop."""
    final: bool = True
    """False for speech that may go on."""
    spare: bool = False
    """Whether it only uses spare time."""
    recognize: Callable[[Segment], Recognized] | None = None
    """Replaces the batcher's recognizer."""


def work_off(recognizer: Recognizer, batch: Sequence[Job]) -> list[Answer]:
    """On a thread of the model's: recognize a batch, and return the memory that it took, which
    costs a millisecond and would otherwise stay with the process in pieces."""
    shared = [job for job in batch if job.recognize is None]
    answers = iter(
        _recognize(
            recognizer.recognize, [job.segment() for job in shared], [job.options for job in shared]
        )
    )
    results = [
        next(answers) if job.recognize is None else _recognize_alone(job.recognize, job.segment())
        for job in batch
    ]
    give_back()
    return results


def _recognize_alone(recognize: Callable[[Segment], Recognized], segment: Segment) -> Answer:
    return _recognize(
        lambda segments, _: [recognize(segments[0])], [segment], [RecognitionOptions()]
    )[0]


def _recognize(
    recognize: Callable[[Sequence[Segment], Sequence[RecognitionOptions]], list[Recognized]],
    segments: Sequence[Segment],
    options: Sequence[RecognitionOptions],
) -> list[Answer]:
    """Recognize a batch; if it fails, each segment alone, so that a bad segment costs its own request
    only."""
    try:
        return list(recognize(segments, options)) if segments else []
    except Exception as error:  # one bad segment must fail its own request alone
        if len(segments) > 1:
            log.warning("a batch of %d failed, trying its segments alone: %s", len(segments), error)
            pairs = zip(segments, options, strict=True)
            return [_recognize(recognize, [segment], [option])[0] for segment, option in pairs]
        log.exception("the model failed on a segment of %.2f s", segments[0].duration)
        return [
            ModelFailedError("The model failed on this audio: {name}", name=type(error).__name__)
        ]
