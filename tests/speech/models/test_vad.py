"""The real FSMN-VAD: our segments against FunASR's own."""

from __future__ import annotations

from pathlib import Path

import pytest

np = pytest.importorskip("numpy")

from yibu.errors import VerificationError  # noqa: E402
from yibu.speech.features import fbank  # noqa: E402
from yibu.speech.vad.endpoint import Frames  # noqa: E402
from yibu.speech.vad.fsmn import FsmnVad  # noqa: E402


def silence(seconds: float):
    noise = np.random.default_rng(2).standard_normal(int(seconds * 16000))
    return (noise * 1e-4).astype(np.float32)


@pytest.fixture
def speech_with_gaps(clips):
    """58 seconds: one of FunASR's chunks, within which its patience is constant."""
    parts = [silence(5.0)]
    for clip, gap in zip(clips, (0.5, 6.0, 2.4, 9.0, 1.9, 1.0), strict=False):
        parts += [clip.samples, silence(gap)]
    audio = np.concatenate(parts)
    assert 40 * 16000 < len(audio) < 58 * 16000
    return audio


def spans(vad: FsmnVad, audio, chunk: int) -> list[list[int]]:
    """What the endpointer says, in ms, before the segment rule joins anything."""
    session = vad.session()
    found: list[Frames] = []
    feed, finish = session._endpointer.feed, session._endpointer.finish

    def recorded(frames: list[Frames]) -> list[Frames]:
        found.extend(frames)
        return frames

    session._endpointer.feed = lambda silence: recorded(feed(silence))
    session._endpointer.finish = lambda: recorded(finish())
    for at in range(0, len(audio), chunk):
        session.feed(audio[at : at + chunk])
    session.finish()
    return [[frames.start * 10, frames.end * 10] for frames in found]


def test_spans_are_funasrs_to_the_frame(vad_dir: Path, speech_with_gaps) -> None:
    funasr = pytest.importorskip("funasr")
    model = funasr.AutoModel(
        model=str(vad_dir), disable_update=True, disable_pbar=True, max_single_segment_time=30000
    )
    theirs = model.generate(input=speech_with_gaps, cache={})[0]["value"]
    assert len(theirs) >= 4
    assert spans(FsmnVad.load(vad_dir), speech_with_gaps, 9_999) == theirs


def test_how_the_file_comes_in_does_not_matter(vad_dir: Path, speech_with_gaps) -> None:
    vad = FsmnVad.load(vad_dir)
    expected = spans(vad, speech_with_gaps, len(speech_with_gaps))
    for chunk in (160, 399, 4_001, 160_000):
        assert spans(vad, speech_with_gaps, chunk) == expected


def test_gaps_are_skipped_and_segments_carry_their_features(
    vad_dir: Path, speech_with_gaps
) -> None:
    session = FsmnVad.load(vad_dir).session()
    segments = session.feed(speech_with_gaps) + session.finish()
    assert sum(segment.duration for segment in segments) < len(speech_with_gaps) / 16000 - 15
    for segment in segments:
        start = round(segment.start * 16000)
        assert np.array_equal(
            segment.samples, speech_with_gaps[start : start + len(segment.samples)]
        )
        assert segment.features is not None
        assert np.abs(fbank(segment.samples) - segment.features).max() < 1e-3


@pytest.mark.parametrize("samples", [0, 1, 399, 400, 560, 800, 16000])
def test_little_or_silent_audio_has_no_segments(vad_dir: Path, samples: int) -> None:
    session = FsmnVad.load(vad_dir).session()
    assert session.feed(np.zeros(samples, np.float32)) + session.finish() == []


def test_memory_does_not_grow_with_the_file(vad_dir: Path, clips) -> None:
    session = FsmnVad.load(vad_dir).session()
    minute = np.resize(np.concatenate([clips[0].samples, silence(20)]), 60 * 16000)
    longest = 0
    for _ in range(20):
        session.feed(minute)
        held = sum(len(block) for block in session._cutter._samples._blocks)
        longest = max(longest, held)
    assert longest <= (60 + 45) * 16000


def test_a_damaged_vad_is_named(tmp_path: Path, vad_dir: Path) -> None:
    with pytest.raises(VerificationError, match=r"config\.yaml is missing"):
        FsmnVad.load(tmp_path)
    for name in ("config.yaml", "am.mvn"):
        (tmp_path / name).write_bytes((vad_dir / name).read_bytes())
    with pytest.raises(VerificationError, match=r"model\.pt is missing"):
        FsmnVad.load(tmp_path)
