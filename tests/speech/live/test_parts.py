"""The streaming parts without sockets: intake, endpointing, agreement."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")
av = pytest.importorskip("av")
hypothesis = pytest.importorskip("hypothesis")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from tests.speech.live.conftest import Clip  # noqa: E402
from yibu.errors import InvalidRequestError  # noqa: E402
from yibu.speech.live.agreement import Agreement, rest  # noqa: E402
from yibu.speech.live.intake import open_intake  # noqa: E402
from yibu.speech.types import Endpointing, Segment, SpeechBegan  # noqa: E402
from yibu.speech.vad.fsmn import FsmnVad  # noqa: E402


def sound(rate: int, seconds: float = 3.0):
    time = np.arange(int(rate * seconds)) / rate
    wave = 0.4 * np.sin(2 * np.pi * 440 * time) + 0.2 * np.sin(2 * np.pi * 1234 * time * time)
    return (wave * 32767).astype("<i2")


def pieces(data: bytes, seed: int = 1, most: int = 4000) -> list[bytes]:
    """Cut anywhere, in the middle of samples too."""
    cuts = np.cumsum(np.random.default_rng(seed).integers(1, most, size=len(data)))
    cuts = [0, *cuts[cuts < len(data)].tolist(), len(data)]
    return [data[a:b] for a, b in pairwise(cuts)]


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 44100, 48000])
def test_a_stream_is_resampled_without_seams(rate: int) -> None:
    samples = sound(rate)
    frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
    frame.sample_rate = rate
    resampler = av.AudioResampler("flt", "mono", 16000)
    frames = [*resampler.resample(frame), *resampler.resample(None)]
    at_once = np.concatenate([each.to_ndarray()[0] for each in frames])
    intake = open_intake("s16le", rate)
    parts = [intake.feed(piece) for piece in pieces(samples.tobytes())]
    streamed = np.concatenate([*parts, intake.finish()])
    assert len(streamed) == len(at_once) == 48000
    assert np.abs(streamed - at_once).max() < 1e-4


@pytest.mark.parametrize(("law", "codec"), [("mulaw", "pcm_mulaw"), ("alaw", "pcm_alaw")])
def test_g711_is_what_ffmpeg_encoded(law: str, codec: str) -> None:
    samples = sound(8000)
    encoder = av.CodecContext.create(codec, "w")
    encoder.sample_rate, encoder.layout, encoder.format = 8000, "mono", "s16"
    frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
    frame.sample_rate = 8000
    data = b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
    assert len(data) == len(samples)
    plain, coded = open_intake("s16le", 8000), open_intake(law, 8000)
    expected = np.concatenate([plain.feed(samples.tobytes()), plain.finish()])
    decoded = np.concatenate([*(coded.feed(piece) for piece in pieces(data)), coded.finish()])
    assert len(decoded) == len(expected)
    assert np.abs(decoded - expected).max() < 0.05


@pytest.mark.parametrize(
    ("container", "codec"),
    [("webm", "libopus"), ("ogg", "libopus"), ("mp3", "mp3"), ("wav", "pcm_s16le")],
)
def test_a_recording_is_decoded_while_it_grows(container: str, codec: str) -> None:
    target = io.BytesIO()
    with av.open(target, "w", format=container) as output:
        stream = output.add_stream(codec, rate=48000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(sound(48000)[None], "s16", "mono")
        frame.sample_rate = 48000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            output.mux(packet)
    data = target.getvalue()
    resampler = av.AudioResampler("flt", "mono", 16000)
    with av.open(io.BytesIO(data)) as whole:
        frames = [r for f in whole.decode(audio=0) for r in resampler.resample(f)]
    frames += resampler.resample(None)
    expected = np.concatenate([each.to_ndarray()[0] for each in frames])
    intake = open_intake(container, 0)
    parts = [intake.feed(piece) for piece in pieces(data)]
    assert any(len(part) for part in parts[:-1]), "nothing came before the end"
    decoded = np.concatenate([*parts, intake.finish()])
    assert abs(len(decoded) - len(expected)) <= 16
    shortest = min(len(decoded), len(expected)) - 1600  # who can seek knows where an MP3 ends
    assert np.abs(decoded[:shortest] - expected[:shortest]).max() < 1e-3


def test_what_is_no_recording_is_refused() -> None:
    intake = open_intake("webm", 0)
    with pytest.raises(InvalidRequestError, match="cannot be decoded"):
        intake.feed(b"this is no audio at all " * 30_000)
    for _ in range(50):  # its thread ends meanwhile, and nobody waits for it
        with pytest.raises(InvalidRequestError, match="cannot be decoded"):
            intake.feed(b"more")
    intake.close()
    with pytest.raises(InvalidRequestError, match="8000 to 48000"):
        open_intake("s16le", 7999)


def found(vad: FsmnVad, samples, chunk: int, **rule: float):
    detector = vad.utterances(Endpointing(**rule))
    events = []
    for at in range(0, len(samples), chunk):
        events += [(at + chunk, event) for event in detector.feed(samples[at : at + chunk])]
    return events + [(len(samples), event) for event in detector.finish()]


def test_speech_begins_and_ends_where_and_when_it_does(vad_dir: Path, clips: list[Clip]) -> None:
    vad = FsmnVad.load(vad_dir, samples=False)
    for clip in clips:
        quiet = np.zeros(16000, np.float32)
        samples = np.concatenate([quiet, clip.samples, quiet, quiet])
        first, last = 1.0 + clip.marks[0][1], 1.0 + clip.marks[-1][2]
        events = found(vad, samples, 1600)
        (noticed, began), *_, (told, ended) = events
        assert isinstance(began, SpeechBegan)
        assert isinstance(ended, Segment)
        assert abs(began.start + 0.3 - first) <= 0.2
        assert noticed / 16000 - first <= 0.3
        assert -0.05 <= ended.end - last <= 0.4  # the VAD hears the last sound fade
        assert told / 16000 - last <= 0.5 + 0.4


def test_how_the_stream_comes_in_does_not_matter(vad_dir: Path, clips: list[Clip]) -> None:
    vad = FsmnVad.load(vad_dir, samples=False)
    samples = np.concatenate([*(clip.samples for clip in clips), np.zeros(16000, np.float32)])
    expected = [event for _, event in found(vad, samples, len(samples))]
    assert sum(isinstance(event, Segment) for event in expected) >= 4
    for chunk in (160, 999, 16_000):
        events = [event for _, event in found(vad, samples, chunk)]
        for one, other in zip(events, expected, strict=True):
            assert one.start == other.start
            if isinstance(one, Segment):
                assert one.length == other.length
                assert np.abs(one.features - other.features).max() < 1e-4


def test_nothing_is_found_where_nothing_can_be(vad_dir: Path, clips: list[Clip]) -> None:
    """A session does not listen before the samples in which something can begin or end."""
    detector = FsmnVad.load(vad_dir, samples=False).utterances(Endpointing())
    samples = np.concatenate(
        [np.concatenate([c.samples, np.zeros(16000, np.float32)]) for c in clips]
    )
    at = times = 0
    while at < len(samples):
        certain = detector.ending() is not None
        quiet = detector.uneventful
        assert detector.feed(samples[at : at + quiet]) == []
        if not certain:
            assert detector.ending() is None
        detector.feed(samples[at + quiet : at + quiet + 1])
        at += quiet + 1
        times += 1
    assert times < len(samples) / 600


def test_the_settings_of_the_endpointing_are_heeded(vad_dir: Path, clips: list[Clip]) -> None:
    vad = FsmnVad.load(vad_dir, samples=False)
    gap = np.zeros(int(0.9 * 16000), np.float32)
    samples = np.concatenate([gap, clips[1].samples, gap, clips[5].samples, gap, gap])

    def ends(**rule: float) -> list[float]:
        return [e.end for _, e in found(vad, samples, 1600, **rule) if isinstance(e, Segment)]

    assert len(ends(silence=0.3)) >= len(ends(silence=0.6)) >= 2 > len(ends(silence=1.9)) == 1
    starts = [
        next(e.start for _, e in found(vad, samples, 1600, prefix_padding=padding))
        for padding in (0.1, 0.3, 0.6)
    ]
    assert np.allclose(np.diff(starts), [-0.2, -0.3])


def test_silence_for_an_hour_takes_no_memory(vad_dir: Path) -> None:
    detector = FsmnVad.load(vad_dir, samples=False).utterances(Endpointing())
    quiet = np.zeros(16000, np.float32)
    for _ in range(120):
        assert detector.feed(quiet) == []
    assert detector.speech() is None
    held = detector._cutter._features._blocks
    assert sum(len(block) for block in held) < 400


WORDS = st.lists(st.sampled_from(["stop", "four", "九", "一", ".", ",", "it's", "停"]), max_size=8)


@given(st.lists(WORDS, max_size=8))
def test_what_is_shown_is_never_taken_back(texts: list[list[str]]) -> None:
    agreement = Agreement()
    shown = ""
    for n, words in enumerate(texts):
        shown += agreement.hypothesis(" ".join(words), n * 0.1)
        assert agreement.shown == shown
    final = " ".join(texts[-1]) if texts else ""
    if final.startswith(shown):
        assert shown + rest(shown, final) == final


def test_a_word_is_shown_sooner_where_another_follows_it() -> None:
    agreement = Agreement()
    assert agreement.hypothesis("win", 0.4) == ""
    assert agreement.hypothesis("win", 0.6) == ""
    assert agreement.hypothesis("window", 0.7) == ""
    assert agreement.hypothesis("window loud", 0.8) == ""
    assert agreement.hypothesis("window louder", 0.9) == "window"


def test_two_hypotheses_must_agree() -> None:
    agreement = Agreement()
    assert agreement.hypothesis("stop wind.", 1.0) == ""
    assert agreement.hypothesis("stop window.", 2.0) == "stop"
    assert agreement.hypothesis("stop window loud.", 3.0) == " window"
    assert agreement.hypothesis("stop winter loud.", 4.0) == ""
    assert rest(agreement.shown, "stop winter louder.") == " louder."
    chinese = Agreement()
    assert chinese.hypothesis("九一听。", 5.0) == ""
    assert chinese.hypothesis("九一停止。", 6.0) == "九一"


def test_hypotheses_close_together_must_all_agree() -> None:
    agreement = Agreement()
    assert agreement.hypothesis("six", 0.3) == ""
    assert agreement.hypothesis("six", 0.4) == "", "for too short"
    assert agreement.hypothesis("stop", 0.5) == ""
    assert agreement.hypothesis("stop", 0.6) == ""
    assert agreement.hypothesis("stop.", 0.7) == "", "the word may go on"
    assert agreement.hypothesis("stop.", 0.8) == "stop"
    assert agreement.hypothesis("stop window", 1.1) == ""
    assert agreement.hypothesis("stop window now", 1.5) == " window"
