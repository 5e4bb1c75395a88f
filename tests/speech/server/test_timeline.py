"""Times as a player shows them: tracks that begin late, holes, several tracks, opposite channels."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("av", reason="decoding needs PyAV: run with a speech environment's Python")

import av
import numpy as np

from tests.speech.server.media import tone
from tests.speech.server.tone_engine import tone_of
from yibu.errors import InvalidRequestError
from yibu.speech.audio.decoding import Decoder
from yibu.speech.audio.mixing import OPPOSITE
from yibu.speech.settings import EngineLimits
from yibu.speech.stated import RawFormat, Stated
from yibu.speech.types import Samples

Part = tuple[float, float, int]
"""Begin and length in seconds, and frequency."""

VIDEO = {"webm": "libvpx", "mpegts": "mpeg2video", "mpeg": "mpeg2video", "flv": "flv"}
KINDS = [
    *(("mp4", "aac", {}), ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov"})),
    *(("mov", "aac", {}), ("matroska", "libopus", {}), ("matroska", "flac", {})),
    *(("webm", "libopus", {}), ("mpegts", "mp2", {}), ("mpegts", "aac", {}), ("nut", "libopus", {})),
    *(("mpeg", "mp2", {}), ("flv", "aac", {})),
]  # fmt: skip
IDS = ["mp4", "fragmented mp4", "mov", "mkv opus", "mkv flac", "webm", "ts", "ts aac", "nut", "mpg", "flv"]  # fmt: skip


def record(
    container: str,
    codec: str,
    tracks: Sequence[Sequence[Part]],
    *,
    video: float = 0.0,
    options: dict[str, str] | None = None,
    default: int | None = None,
) -> bytes:
    """A file whose audio tracks are tones at the given times, beside ``video`` seconds of pictures."""
    target = io.BytesIO()
    rate = 44_100 if container == "flv" else 48_000
    with av.open(target, "w", format=container, options=options or {}) as out:
        pictures = out.add_stream(VIDEO.get(container, "mpeg4"), rate=25) if video else None
        streams = [out.add_stream(codec, rate=rate, layout="mono") for _ in tracks]
        for number, stream in enumerate(streams):
            if default is not None:
                flag = av.stream.Disposition.default if number == default else 0
                stream.disposition = flag
        packets = _pictures(pictures, video) if pictures is not None else []
        for stream, parts in zip(streams, tracks, strict=True):
            packets += _tones(stream, parts, rate)
        for packet in sorted(packets, key=lambda one: one.dts * one.time_base):
            out.mux(packet)
    return target.getvalue()


def _pictures(stream: Any, seconds: float) -> list[Any]:
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    stream.codec_context.thread_count = 1
    packets = []
    for number in range(int(seconds * 25)):
        image = np.full((48, 64, 3), number % 255, np.uint8)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, 25)
        packets += stream.encode(frame)
    return packets + list(stream.encode(None))


def _tones(stream: Any, parts: Sequence[Part], rate: int) -> list[Any]:
    packets = []
    for begin, seconds, frequency in parts:
        resampler = av.AudioResampler(stream.codec_context.format.name, "mono", rate)
        frame = av.AudioFrame.from_ndarray(tone(frequency, seconds, rate)[None], "flt", "mono")
        frame.sample_rate = rate
        fifo = av.AudioFifo()
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            piece.pts = None
            fifo.write(piece)
        at = int(begin * rate)
        while piece := fifo.read(stream.codec_context.frame_size or 1024, partial=True):
            piece.pts, piece.time_base = at, Fraction(1, rate)
            at += piece.samples
            packets += stream.encode(piece)
    return packets + list(stream.encode(None))


def decode(data: bytes, said: Stated | None = None) -> tuple[Samples, Decoder]:
    decoder = Decoder(io.BytesIO(data), EngineLimits(), said)
    try:
        blocks = []
        while (samples := decoder.read(8.0)) is not None:
            blocks.append(samples)
        return np.concatenate(blocks), decoder
    finally:
        decoder.close()


def onsets(samples: Samples) -> list[float]:
    """Where sound begins after a fifth of a second of silence."""
    whole = samples[: len(samples) // 160 * 160].reshape(-1, 160)
    loud = np.flatnonzero(np.sqrt((whole**2).mean(axis=1)) > 0.05)
    return [
        at / 100 for at, before in zip(loud, [-100, *loud[:-1]], strict=True) if at - before > 20
    ]


@pytest.mark.parametrize(("container", "codec", "options"), KINDS, ids=IDS)
def test_a_track_that_begins_late_keeps_its_time(
    container: str, codec: str, options: dict[str, str]
) -> None:
    data = record(container, codec, [[(2.5, 1.5, 440)]], video=5.0, options=options)
    samples, _ = decode(data)
    assert onsets(samples) == pytest.approx([2.5], abs=0.1)
    assert len(samples) / 16_000 == pytest.approx(4.0, abs=0.1)


@pytest.mark.parametrize("video", [0.0, 6.0], ids=["alone", "in a video"])
@pytest.mark.parametrize(("container", "codec", "options"), KINDS, ids=IDS)
def test_a_hole_in_the_time_stamps_is_silence(
    container: str, codec: str, options: dict[str, str], video: float
) -> None:
    if container == "mpeg" and not video:
        pytest.skip("a program stream without pictures has no clock of its own")
    parts = [(0.0, 1.5, 440), (4.0, 1.5, 880)]
    samples, _ = decode(record(container, codec, [parts], video=video, options=options))
    assert onsets(samples) == pytest.approx([0.0, 4.0], abs=0.1)
    assert len(samples) / 16_000 == pytest.approx(5.5, abs=0.1)
    assert tone_of(samples[-16_000:-4_000]) == 880


def test_a_hole_in_ogg_is_silence() -> None:
    parts = [(0.0, 1.5, 440), (4.0, 1.5, 880)]
    # Within a page, of a second by itself, Ogg has no times.
    samples, _ = decode(record("ogg", "libopus", [parts], options={"page_duration": "20000"}))
    assert onsets(samples) == pytest.approx([0.0, 4.0], abs=0.1)


@pytest.mark.parametrize(("container", "codec"), [("ogg", "libopus"), ("mpegts", "mp2")])
def test_a_recording_joined_to_another_follows_it(container: str, codec: str) -> None:
    """Its clock begins anew."""
    first = record(container, codec, [[(0.0, 1.5, 440)]])
    second = record(container, codec, [[(0.0, 1.5, 880)]])
    samples, _ = decode(first + second)
    assert len(samples) / 16_000 == pytest.approx(3.0, abs=0.15)
    assert tone_of(samples[:16_000]) == 440
    assert tone_of(samples[-16_000:]) == 880


@pytest.mark.parametrize(
    ("container", "codec"), [("mp4", "aac"), ("matroska", "libopus"), ("webm", "libopus")]
)
def test_a_hole_is_no_truncation_and_a_truncation_is_no_hole(container: str, codec: str) -> None:
    data = record(container, codec, [[(0.0, 1.0, 440), (9.0, 1.0, 880)]], video=12.0)
    assert len(decode(data)[0]) / 16_000 == pytest.approx(10.0, abs=0.1)
    with pytest.raises(InvalidRequestError, match="cut"):
        decode(data[: len(data) * 2 // 3])


@pytest.mark.parametrize(
    ("container", "codec"),
    [("matroska", "libopus"), ("webm", "libopus"), ("mp4", "aac"), ("mov", "aac")],
)
def test_the_default_track_is_taken_or_the_one_that_is_asked_for(
    container: str, codec: str
) -> None:
    tracks = [[(0.0, 1.0, 440)], [(0.0, 1.0, 660)], [(0.0, 1.0, 880)]]
    data = record(container, codec, tracks, default=1)
    samples, decoder = decode(data)
    assert tone_of(samples[2000:14_000]) == 660
    assert (decoder.track, [track.default for track in decoder.tracks]) == (1, [False, True, False])
    for wanted, frequency in enumerate((440, 660, 880)):
        samples, decoder = decode(data, Stated(track=wanted))
        assert (decoder.track, tone_of(samples[2000:14_000])) == (wanted, frequency)
    with pytest.raises(InvalidRequestError, match="tracks 0 to 2") as caught:
        decode(data, Stated(track=3))
    assert caught.value.param == "audio_track"


def test_of_two_tracks_without_a_flag_the_first_is_taken() -> None:
    samples, decoder = decode(record("mpegts", "mp2", [[(0.0, 1.0, 440)], [(0.0, 1.0, 880)]]))
    assert (decoder.track, tone_of(samples[2000:14_000])) == (0, 440)


def stereo(left: Samples, right: Samples, block: float = 8.0) -> tuple[Samples, list[str]]:
    data = np.stack([left, right], axis=1).astype("<f4").tobytes()
    decoder = Decoder(io.BytesIO(data), EngineLimits(), Stated(raw=RawFormat("f32le", 16_000, 2)))
    blocks = []
    while (samples := decoder.read(block)) is not None:
        blocks.append(samples)
    decoder.close()
    return np.concatenate(blocks), decoder.notes


@pytest.mark.parametrize("gain", [1.0, 0.9, 0.6])
def test_opposite_channels_do_not_cancel_out(gain: float) -> None:
    voice = tone(440, 3.0)
    noise = np.random.default_rng(2).normal(0, 0.01, len(voice)).astype(np.float32)
    samples, notes = stereo(voice * np.float32(gain), noise - voice)
    assert notes == [OPPOSITE]
    np.testing.assert_allclose(samples, noise - voice, atol=1e-6)
    assert np.array_equal(samples, stereo(voice * np.float32(gain), noise - voice, 0.1)[0])


def test_other_channels_are_mixed_to_their_mean() -> None:
    voice, other, nothing = tone(440, 3.0), tone(990, 3.0), tone(0, 3.0)
    for left, right in ((voice, voice), (voice, other), (voice, nothing), (nothing, voice)):
        samples, notes = stereo(left, right)
        assert notes == []
        np.testing.assert_allclose(samples, (left + right) / 2, atol=1e-6)


FFMPEG = shutil.which("ffmpeg")


@pytest.mark.skipif(FFMPEG is None, reason="compared with ffmpeg where it is installed")
@pytest.mark.parametrize(("container", "codec", "options"), KINDS, ids=IDS)
def test_the_samples_are_those_of_ffmpeg(
    container: str, codec: str, options: dict[str, str], tmp_path: Path
) -> None:
    """Silence for holes is its resampler's, with ``async=1``."""
    parts = [(0.0, 1.5, 440), (4.0, 1.5, 880)]
    path = tmp_path / "file"
    path.write_bytes(record(container, codec, [parts], video=6.0, options=options))
    assert FFMPEG is not None
    command = [FFMPEG, "-v", "error", "-nostdin", "-i", str(path), "-map", "0:a:0", "-af"]
    command += ["aresample=16000:async=1:first_pts=0", "-ac", "1", "-f", "f32le", "-"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    theirs = np.frombuffer(done.stdout, np.float32)
    ours, _ = decode(path.read_bytes())
    assert len(ours) == pytest.approx(len(theirs), abs=1600)
    assert onsets(ours) == pytest.approx(onsets(theirs), abs=0.1)
