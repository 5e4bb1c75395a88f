"""The segment rule: which stretches of speech are recognized together.

Pure bookkeeping over sample positions; it knows nothing of any VAD. A VAD reports spans of
speech in order; neighbours are joined across short gaps while the whole stays within
``merge_up_to``, a span longer than ``cap`` is cut into equal parts, and what lies between
segments is dropped and never computed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from yibu.speech.features import FRAME_SHIFT, frame_count
from yibu.speech.types import SAMPLE_RATE, Features, Samples, Segment


@dataclass(frozen=True, slots=True)
class Span:
    """Speech from sample ``start`` up to, not including, sample ``end`` of a file."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class SegmentRule:
    """The rule's limits, in seconds."""

    cap: float = 30.0
    """Maximum length of a segment."""
    merge_up_to: float = 15.0
    """Neighbours are joined while the joined segment is no longer than this."""
    short_gap: float = 2.0
    """Neighbours further apart than this are never joined: the silence is skipped."""


class SpanMerger:
    """Applies a rule to spans as they come. Times are samples."""

    def __init__(self, rule: SegmentRule) -> None:
        self._cap = int(rule.cap * SAMPLE_RATE)
        self._merge_up_to = int(rule.merge_up_to * SAMPLE_RATE)
        self._short_gap = int(rule.short_gap * SAMPLE_RATE)
        self._pending: Span | None = None

    @property
    def pending(self) -> Span | None:
        """What may still be joined with the next span."""
        return self._pending

    def push(self, span: Span) -> list[Span]:
        """Take the next span, which must not begin before the last one ended."""
        last = self._pending
        if last is not None and span.start < last.end:
            raise ValueError(f"{span} begins before {last} ends")
        if last is None:
            self._pending = span
            return []
        if span.end - last.start <= self._merge_up_to and span.start - last.end <= self._short_gap:
            self._pending = Span(last.start, span.end)
            return []
        self._pending = span
        return self._capped(last)

    def advance(self, position: int) -> list[Span]:
        """No later span begins before ``position``: release what can no longer be joined."""
        last = self._pending
        if last is None or position - last.end <= self._short_gap:
            return []
        return self.finish()

    def finish(self) -> list[Span]:
        """Release what is pending."""
        last, self._pending = self._pending, None
        return [] if last is None else self._capped(last)

    def _capped(self, span: Span) -> list[Span]:
        parts = -(-len(span) // self._cap)
        if parts <= 1:
            return [span]
        # Cuts stand on whole frames, so that the filter bank of the file is that of the part.
        step = -(-len(span) // (parts * FRAME_SHIFT)) * FRAME_SHIFT
        starts = range(span.start, span.end, step)
        return [Span(start, min(start + step, span.end)) for start in starts]


class SegmentCutter:
    """Keeps a file's newest samples and cuts the merged spans out of them.

    It holds no more than the pending span and what came after it, however long the file is.
    With a VAD whose filter bank the recognizer can reuse, ``append`` takes that too: frame i
    begins at sample ``i * FRAME_SHIFT`` of the file, and spans begin on whole frames. Then
    ``samples`` may be False: segments carry the filter bank only.
    """

    def __init__(self, rule: SegmentRule, *, samples: bool = True) -> None:
        self._merger = SpanMerger(rule)
        self._samples = _Window()
        self._keep_samples = samples
        self._appended = 0
        self._features: _Window | None = None

    def append(self, samples: Samples, features: Features | None = None) -> None:
        """Add the file's next samples, and the frames that became whole with them."""
        self._appended += len(samples)
        if self._keep_samples:
            self._samples.append(samples)
        if features is not None:
            if self._features is None:
                self._features = _Window()
            self._features.append(features)

    def speech(self, span: Span) -> list[Segment]:
        """The VAD found ``span``: return the segments that this finishes."""
        return self._cut(self._merger.push(span))

    def advance(self, position: int) -> list[Segment]:
        """No later span begins before sample ``position``: finish and forget what can be."""
        segments = self._cut(self._merger.advance(position))
        pending = self._merger.pending
        self.drop_before(position if pending is None else min(position, pending.start))
        return segments

    def drop_before(self, position: int) -> None:
        """Forget the samples before ``position``."""
        self._samples.drop_before(position)
        if self._features is not None:
            self._features.drop_before(position // FRAME_SHIFT)

    def finish(self) -> list[Segment]:
        """The file is over: return what is left."""
        return self._cut(self._merger.finish())

    def _cut(self, spans: list[Span]) -> list[Segment]:
        return [self.segment(span) for span in spans]

    def segment(self, span: Span) -> Segment:
        """Just this span, whatever the rule."""
        length = min(span.end, self._appended) - span.start
        samples = np.empty(0, np.float32)
        if self._keep_samples:
            samples = self._samples.read(span.start, span.end)
        features = None
        if self._features is not None:
            first = span.start // FRAME_SHIFT
            features = self._features.read(first, first + frame_count(length))
        return Segment(span.start / SAMPLE_RATE, samples, features, length)


class _Window:
    """The newest rows of an array that grows at its end and is forgotten at its beginning."""

    def __init__(self) -> None:
        self._blocks: deque[Samples] = deque()
        self._first = 0
        """Position of the first row still held."""

    def append(self, rows: Samples) -> None:
        if len(rows):
            self._blocks.append(rows)

    def drop_before(self, position: int) -> None:
        while self._blocks and self._first + len(self._blocks[0]) <= position:
            self._first += len(self._blocks.popleft())

    def read(self, start: int, end: int) -> Samples:
        """Rows [start, end), as far as they were appended; a copy that owns its memory."""
        if start < self._first:
            raise ValueError(f"rows from {start} were dropped; {self._first} is the first held")
        parts = []
        at = self._first
        for block in self._blocks:
            if at + len(block) > start and at < end:
                parts.append(block[max(start - at, 0) : end - at])
            at += len(block)
        if not parts:
            raise ValueError(f"rows {start} to {end} were never appended; {at} came")
        return np.concatenate(parts)
