"""The segment rule and the endpointer."""

from __future__ import annotations

import itertools

import pytest

np = pytest.importorskip("numpy")

from yibu.speech.segments import SegmentCutter, SegmentRule, Span, SpanMerger  # noqa: E402
from yibu.speech.vad.endpoint import Endpointer, EndpointRule, Frames  # noqa: E402

SECOND = 16_000


def spans(*seconds: tuple[float, float], rule: SegmentRule | None = None) -> list[tuple]:
    merger = SpanMerger(rule or SegmentRule())
    out = []
    for start, end in seconds:
        out += merger.push(Span(int(start * SECOND), int(end * SECOND)))
    out += merger.finish()
    return [(span.start / SECOND, span.end / SECOND) for span in out]


def test_neighbours_are_joined_across_short_gaps_only() -> None:
    assert spans((0, 2), (3, 5), (5.5, 6)) == [(0, 6)]
    assert spans((5, 7), (60, 62), (120, 121)) == [(5, 7), (60, 62), (120, 121)]


def test_joined_segments_stay_within_fifteen_seconds() -> None:
    assert spans((0, 8), (8.5, 15), (15.5, 20)) == [(0, 15), (15.5, 20)]


@pytest.mark.parametrize("length", [30.0, 30.01, 59.99, 60.0, 61.0, 200.0])
def test_the_cap_is_hard_and_nothing_is_lost(length: float) -> None:
    parts = spans((1, 1 + length))
    assert all(end - start <= 30.0 for start, end in parts)
    assert parts[0][0] == 1
    assert parts[-1][1] == pytest.approx(1 + length, abs=1e-4)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(parts))
    assert all(round(start * SECOND) % 160 == 0 for start, _ in parts)


def test_spans_must_come_in_order() -> None:
    merger = SpanMerger(SegmentRule())
    merger.push(Span(0, 100))
    with pytest.raises(ValueError, match="begins before"):
        merger.push(Span(50, 150))


def test_the_cutter_holds_no_more_than_what_may_still_be_speech() -> None:
    cutter = SegmentCutter(SegmentRule())
    audio = np.arange(100 * SECOND, dtype=np.float32)
    segments = []
    for second in range(100):
        cutter.append(audio[second * SECOND : (second + 1) * SECOND])
        if second == 61:
            segments += cutter.speech(Span(57 * SECOND, 61 * SECOND))
        # As a VAD does: between seconds 57 and 61 it knows that speech has begun.
        segments += cutter.advance((57 if 57 <= second <= 60 else second) * SECOND)
        assert sum(len(block) for block in cutter._samples._blocks) <= 9 * SECOND
    (segment,) = segments + cutter.finish()
    assert segment.start == 57.0
    assert np.array_equal(segment.samples, audio[57 * SECOND : 61 * SECOND])


def endpoints(pattern: list[tuple[bool, int]], rule: EndpointRule | None = None) -> list[Frames]:
    silence = np.concatenate([np.full(n, 0.0 if on else 1.0, np.float32) for on, n in pattern])
    endpointer = Endpointer(rule or EndpointRule())
    out = []
    for at in range(0, len(silence), 7):
        out += endpointer.feed(silence[at : at + 7])
    return out + endpointer.finish()


def test_silence_and_clicks_are_no_speech() -> None:
    assert endpoints([(False, 1000)]) == []
    assert endpoints([(False, 100), (True, 10), (False, 300)]) == []


def test_speech_keeps_its_margins() -> None:
    (span,) = endpoints([(False, 100), (True, 200), (False, 400)])
    assert span.start == 100 + 14 - 40  # noticed at the 15th frame, 400 ms looked back
    assert 300 <= span.end <= 300 + 30


def test_pauses_shorter_than_the_patience_stay_inside() -> None:
    assert len(endpoints([(True, 200), (False, 150), (True, 200), (False, 300)])) == 1
    assert len(endpoints([(True, 200), (False, 250), (True, 200), (False, 300)])) == 2


def test_patience_shrinks_and_the_cap_holds() -> None:
    talk = [(True, 300), (False, 60)] * 40
    found = endpoints(talk)
    assert all(span.end - span.start <= 3000 for span in found)
    endless = endpoints([(True, 10_000)])
    assert [span.end - span.start for span in endless[:-1]] == [3000, 3000, 3000]


def test_speech_that_the_file_cuts_off_ends_with_it() -> None:
    (span,) = endpoints([(False, 50), (True, 100)])
    assert span.end == 150
