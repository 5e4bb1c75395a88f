"""What recognizers with stacked filter banks have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

from yibu.speech.features import Normalizer, fbank, stack_frames
from yibu.speech.types import Features, RecognitionOptions, Recognized, Segment

STACK_WIDTH, STACK_STEP = 7, 6

Found = TypeVar("Found")
"""What the network says of one segment."""


class StackedRecognizer(ABC, Generic[Found]):
    """See ``Recognizer`` in ``types.py``."""

    tasks = frozenset({"transcribe"})
    tells_times = True

    def __init__(self, name: str, precision: str, normalizer: Normalizer) -> None:
        self.name, self.precision, self._normalizer = name, precision, normalizer

    def recognize(
        self, segments: Sequence[Segment], options: Sequence[RecognitionOptions]
    ) -> list[Recognized]:
        """One answer a segment, in order; those without a whole frame have no text."""
        stacked = [self._stacked(segment) for segment in segments]
        audible = [n for n, features in enumerate(stacked) if len(features)]
        answers = [Recognized("", segment.start, segment.end) for segment in segments]
        if audible:
            found = self._found([stacked[n] for n in audible], [options[n] for n in audible])
            for n, one in zip(audible, found, strict=True):
                answers[n] = self._answer(segments[n], options[n], one)
        return answers

    def _stacked(self, segment: Segment) -> Features:
        features = segment.features if segment.features is not None else fbank(segment.samples)
        return self._normalizer(stack_frames(features, STACK_WIDTH, STACK_STEP))

    @abstractmethod
    def _found(
        self, features: Sequence[Features], options: Sequence[RecognitionOptions]
    ) -> Sequence[Found]:
        """Of normalized stacked frames, in order."""

    @abstractmethod
    def _answer(
        self, segment: Segment, options: RecognitionOptions, found: Found
    ) -> Recognized: ...
