"""Silero VAD and the segment rule, on real speech with gaps."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

pytest.importorskip("faster_whisper", reason="the VAD comes with faster-whisper")

import av
import numpy as np

from tests.speech.server.conftest import SHARED
from tests.speech.server.media import silence, tone
from yibu.speech.types import SAMPLE_RATE, Endpointing, Samples, Segment, SpeechBegan
from yibu.speech.vad.silero import MAX_SECONDS, SileroVad

CLIP = SHARED / "clips" / "jfk.flac"


@pytest.fixture(scope="module")
def speech() -> Samples:
    """Eleven seconds of a voice."""
    if not CLIP.is_file():
        pytest.skip("the clips are not at ../shared/clips")
    resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE)
    with av.open(str(CLIP)) as container:
        frames = [
            piece for frame in container.decode(audio=0) for piece in resampler.resample(frame)
        ]
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


@pytest.fixture(scope="module")
def vad() -> SileroVad:
    return SileroVad()


def segments(vad: SileroVad, samples: Samples, block: int = 100_000) -> list[Segment]:
    session = vad.session()
    found = []
    for start in range(0, len(samples), block):
        found += session.feed(samples[start : start + block])
    return found + session.finish()


def well_formed(found: Sequence[Segment], samples: Samples) -> None:
    end = 0.0
    for segment in found:
        assert segment.start >= end
        assert 0 < segment.duration <= MAX_SECONDS + 0.5
        assert segment.end <= len(samples) / SAMPLE_RATE + 1e-6
        begin = round(segment.start * SAMPLE_RATE)
        assert np.array_equal(segment.samples, samples[begin : begin + len(segment.samples)])
        end = segment.end


def test_nothing_is_found_in_silence_hum_or_noise(vad: SileroVad) -> None:
    noise = np.random.default_rng(0).normal(0, 0.02, 20 * SAMPLE_RATE).astype(np.float32)
    for quiet in (silence(20.0), tone(50, 20.0) * 0.1, noise, silence(0.01), silence(0.0)):
        assert segments(vad, quiet) == []


def test_long_silence_is_skipped_and_the_speech_kept(vad: SileroVad, speech: Samples) -> None:
    samples = np.concatenate([silence(30), speech, silence(60), speech, silence(90)])
    found = segments(vad, samples)
    well_formed(found, samples)
    assert sum(segment.duration for segment in found) < 24.0
    starts = [segment.start for segment in found]
    assert starts[0] == pytest.approx(30.0, abs=0.6)
    assert any(start == pytest.approx(101.0, abs=0.6) for start in starts)


def test_the_length_of_the_blocks_changes_nothing(vad: SileroVad, speech: Samples) -> None:
    samples = np.concatenate([speech, silence(3.3), speech[:70_001]])
    whole = segments(vad, samples, len(samples))
    for block in (160, 511, 5_000, 128_000):
        cut = segments(vad, samples, block)
        assert [s.start for s in cut] == [s.start for s in whole]
        assert all(np.array_equal(a.samples, b.samples) for a, b in zip(cut, whole, strict=True))


def test_speech_without_pauses_is_cut_before_the_cap(vad: SileroVad, speech: Samples) -> None:
    samples = np.concatenate([speech[5_000:35_000]] * 50)
    found = segments(vad, samples)
    well_formed(found, samples)
    assert len(found) >= 3
    covered = sum(segment.duration for segment in found)
    assert covered > 0.9 * len(samples) / SAMPLE_RATE


def test_a_session_does_not_grow_with_the_file(vad: SileroVad, speech: Samples) -> None:
    session = vad.session()
    for _ in range(60):
        session.feed(speech)
        session.feed(silence(3.0))
        assert len(session._buffer) < (MAX_SECONDS + 15) * SAMPLE_RATE
    assert len(session._probabilities) < 2_000


def live(
    vad: SileroVad, samples: Samples, block: int
) -> tuple[list[SpeechBegan | Segment], list[bool]]:
    """What a live stream hears; and of each utterance that a pause ended, whether it was known just
    so before."""
    detector = vad.utterances(Endpointing(silence=0.5))
    events: list[SpeechBegan | Segment] = []
    known: list[bool] = []
    ending = None
    for start in range(0, len(samples), block):
        found = detector.feed(samples[start : start + block])
        known += [
            ending is not None
            and ending.start == each.start
            and np.array_equal(ending.samples, each.samples)
            for each in found
            if isinstance(each, Segment)
        ]
        events += found
        ending = detector.ending()
    return events + detector.finish(), known


def test_live_speech_ends_at_its_pauses(vad: SileroVad, speech: Samples) -> None:
    quiet = np.zeros(SAMPLE_RATE, np.float32)
    samples = np.concatenate([quiet, speech, quiet, speech, quiet])
    events, known = live(vad, samples, 1600)
    assert [type(event) for event in events] == [SpeechBegan, Segment] * (len(events) // 2)
    found = [event for event in events if isinstance(event, Segment)]
    began = [event for event in events if isinstance(event, SpeechBegan)]
    assert [each.start for each in began] == [each.start for each in found]
    assert len(found) >= 4
    assert all(known)
    well_formed(found, samples)
    others, _ = live(vad, samples, 999)
    assert [(each.start, getattr(each, "end", None)) for each in others] == [
        (each.start, getattr(each, "end", None)) for each in events
    ]
