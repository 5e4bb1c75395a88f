"""Recordings that come while they are made, held against the same bytes as a file."""

from __future__ import annotations

import pytest

pytest.importorskip("av", reason="run with a speech environment's Python")

import numpy as np

from tests.speech.live.test_parts import pieces
from tests.speech.server.media import Format, encode, tone
from tests.speech.server.test_headers import decode
from tests.speech.server.tone_engine import tone_of
from yibu.speech.live.intake import open_intake
from yibu.speech.stated import RawFormat, Stated
from yibu.speech.types import Samples

VOICE = tone(440, 3.0) + tone(1230, 3.0)
KINDS = [
    (kind, Format(f"{kind} {codec} {layout}{fragments}", container, codec, rate, layout))
    for layout in ("mono", "stereo", "5.1")
    for kind, container, codec, rate, fragments in (
        ("webm", "webm", "libopus", 48_000, ""),
        ("ogg", "ogg", "libopus", 48_000, ""),
        ("ogg", "ogg", "vorbis", 44_100, ""),
        ("wav", "wav", "pcm_s16le", 44_100, ""),
        ("flac", "flac", "flac", 44_100, ""),
        ("mp4", "mp4", "aac", 44_100, " fragmented"),
        ("aac", "adts", "aac", 44_100, ""),
    )
    if (codec, layout) not in {("vorbis", "5.1"), ("vorbis", "mono")}
]


def streamed(kind: str, data: bytes, most: int = 900) -> Samples:
    intake = open_intake(kind, 0)
    parts = [intake.feed(piece) for piece in pieces(data, most=most)]
    return np.concatenate([*parts, intake.finish()])


@pytest.mark.parametrize(("kind", "how"), KINDS, ids=lambda one: getattr(one, "name", ""))
def test_a_recording_is_heard_as_its_file_is(kind: str, how: Format) -> None:
    data = encode(VOICE, how)
    samples, file = streamed(kind, data), decode(data)
    assert len(samples) == pytest.approx(len(file), abs=16)
    shorter = min(len(samples), len(file))
    assert np.abs(samples[:shorter] - file[:shorter]).max() < 1e-4


@pytest.mark.parametrize("kind", ["webm", "ogg"])
def test_what_comes_at_every_byte(kind: str) -> None:
    data = encode(VOICE[:16_000], Format(kind, kind, "libopus", 48_000, "mono"))
    assert np.array_equal(streamed(kind, data, most=2), streamed(kind, data, most=len(data)))


def test_opposite_channels_do_not_cancel_out() -> None:
    """From the first second on: samples are not held back to compare them."""
    pair = np.stack([VOICE, -VOICE], axis=1)
    head = encode(VOICE, Format("wav", "wav", "pcm_s16le", 16_000, "stereo"))[:44]
    start = head.index(b"data") if b"data" in head else 36
    data = head[:start] + b"data\xff\xff\xff\xff" + (pair * 32767).astype("<i2").tobytes()
    samples = streamed("wav", data)
    assert len(samples) == len(VOICE)
    assert np.abs(samples[:8000]).max() < 1e-3
    assert np.abs(np.abs(samples[16_000:]) - np.abs(VOICE[16_000:])).max() < 1e-3


def test_a_damaged_packet_ends_nothing() -> None:
    data = bytearray(encode(VOICE, Format("aac", "adts", "aac", 44_100, "mono")))
    heads = [at for at in range(len(data) - 1) if data[at] == 0xFF and data[at + 1] & 0xF6 == 0xF0]
    for at in (heads[40], heads[90]):
        data[at + 7 : at + 60] = bytes(range(200, 253))
    samples = streamed("aac", bytes(data))
    assert len(samples) > 0.9 * len(VOICE)
    assert len(samples) == len(decode(bytes(data)))


JOINED = [
    [("libopus", 48_000, "stereo"), ("libopus", 48_000, "mono")],
    [("libopus", 48_000, "mono"), ("vorbis", 44_100, "stereo"), ("libopus", 48_000, "mono")],
    [("vorbis", 44_100, "stereo"), ("vorbis", 22_050, "stereo"), ("flac", 44_100, "stereo")],
]


@pytest.mark.parametrize("kinds", JOINED, ids=lambda kinds: " ".join(kind[0] for kind in kinds))
def test_ogg_files_joined_into_one_are_heard_to_the_end(kinds: list[tuple[str, int, str]]) -> None:
    """ffmpeg ends, without a word, where the codec or the channels change."""
    pitches = (440, 880, 1320)
    data = b"".join(
        encode(tone(pitch, 2.0), Format("link", "ogg", *kind))
        for kind, pitch in zip(kinds, pitches, strict=False)
    )
    samples = decode(data)
    assert len(samples) == pytest.approx(32_000 * len(kinds), abs=3200)
    for number, pitch in enumerate(pitches[: len(kinds)]):
        assert tone_of(samples[number * 32_000 + 8000 : number * 32_000 + 24_000]) == pitch


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000])
def test_raw_samples_are_heard_as_their_file_is(rate: int) -> None:
    data = (tone(440, 2.0, rate) * 32767).astype("<i2").tobytes()
    intake = open_intake("s16le", rate)
    parts = [intake.feed(piece) for piece in pieces(data, most=700)]
    samples = np.concatenate([*parts, intake.finish()])
    file = decode(data, Stated(raw=RawFormat("s16le", rate, 1)))
    np.testing.assert_array_equal(samples, file)
