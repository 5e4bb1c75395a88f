"""Decoding: every format, every kind of bad file, every limit."""

from __future__ import annotations

import io
import resource
import socket
import struct
import threading

import pytest

pytest.importorskip("av", reason="decoding needs PyAV: run with a speech environment's Python")

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.speech.server.media import FORMATS, Format, encode, silence, tone, wav
from tests.speech.server.tone_engine import tone_of
from yibu.errors import InvalidRequestError
from yibu.speech.audio.decoding import Decoder
from yibu.speech.settings import EngineLimits
from yibu.speech.stated import RAW_FORMATS, RawFormat, Stated
from yibu.speech.types import Samples

LIMITS = EngineLimits()
CLIP = tone(440, 2.0)
SMALL = {how.name: encode(tone(440, 0.5), how) for how in FORMATS}


def decode(
    data: bytes, limits: EngineLimits = LIMITS, raw: RawFormat | None = None, block: float = 8.0
) -> Samples:
    decoder = Decoder(io.BytesIO(data), limits, Stated(raw=raw))
    try:
        blocks = []
        while (samples := decoder.read(block)) is not None:
            blocks.append(samples)
        return np.concatenate(blocks)
    finally:
        decoder.close()


def refusal(data: bytes, limits: EngineLimits = LIMITS, raw: RawFormat | None = None) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        decode(data, limits, raw)
    message = caught.value.message
    assert caught.value.param == "file"
    assert "\n" not in message
    assert len(message) < 200
    return message


@pytest.mark.parametrize("how", FORMATS, ids=lambda how: how.name)
def test_every_format_decodes_to_its_tone(how: Format) -> None:
    samples = decode(encode(CLIP, how))
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(len(CLIP), abs=0.12 * 16_000)  # codecs add their delay
    assert tone_of(samples[4000:-4000]) == 440
    assert 0.05 < np.abs(samples).max() <= 0.31


@pytest.mark.parametrize("how", FORMATS, ids=lambda how: how.name)
def test_the_expected_length_is_near_enough_to_plan_with(how: Format) -> None:
    decoder = Decoder(io.BytesIO(encode(CLIP, how)), LIMITS)
    decoder.close()
    assert 0.5 <= decoder.expected <= 60.0


@pytest.mark.parametrize("sample_format", RAW_FORMATS)
def test_raw_pcm_with_given_rate(sample_format: str) -> None:
    container = {"alaw": "alaw", "mulaw": "mulaw"}.get(sample_format, sample_format)
    codec = f"pcm_{sample_format}"
    data = encode(CLIP, Format("raw", container, codec, 8_000, "mono"))
    samples = decode(data, raw=RawFormat(sample_format, 8_000, 1))
    assert len(samples) == pytest.approx(len(CLIP), abs=200)
    assert tone_of(samples) == 440
    assert tone_of(decode(data, raw=RawFormat(sample_format, 16_000, 1))) == 880


def test_the_length_of_a_block_does_not_change_the_samples() -> None:
    data = encode(CLIP, FORMATS[4])
    assert np.array_equal(decode(data, block=0.1), decode(data, block=100.0))


def decodes_or_is_refused(data: bytes) -> None:
    try:
        samples = decode(data, EngineLimits(audio_seconds=600, decode_seconds=20))
    except InvalidRequestError:
        return
    assert samples.ndim == 1
    assert samples.dtype == np.float32


def test_empty() -> None:
    assert refusal(b"") == "The file is empty"


@pytest.mark.parametrize(
    "data",
    [
        b"hello, this is not audio\n" * 200,
        bytes(range(256)) * 100,
        b"\x89PNG\r\n\x1a\n" + bytes(2000),
        b"%PDF-1.7\n" + bytes(5000),
        b"PK\x03\x04" + bytes(5000),
        b"\x00",
        b"RIFF",
        b"RIFF\x24\x00\x00\x00WAVEfmt ",
        b"fLaC",
        b"OggS",
        b"ID3\x04\x00\x00\x00\x00\x00\x00",
        b"<html><body>502 Bad Gateway</body></html>",
        np.random.default_rng(1).bytes(20_000),
    ],
)
def test_not_audio(data: bytes) -> None:
    assert "audio" in refusal(data)


def test_a_video_without_sound() -> None:
    import av

    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert refusal(target.getvalue()) == "The file has no audio stream"


@pytest.mark.parametrize(
    "name",
    [
        "flac",
        "m4a",
        "mp4 fragmented",
        "wma",
        "matroska flac",
        "webm opus",
        "mp4 video",
        "webm video",
        "aiff",
        "caf alac",
        "mp3",
        "mp3 8k",
        "ogg opus",
        "ogg vorbis",
    ],
)
def test_a_file_cut_in_half(name: str) -> None:
    how = next(how for how in FORMATS if how.name == name)
    data = encode(tone(440, 6.0), how)
    message = refusal(data[: len(data) // 2])
    assert "cut" in message or "damaged" in message


def test_a_lying_name_is_not_asked() -> None:
    """The decoder sees bytes only: an mp3 called .wav decodes, see test_every_format."""
    file = io.BytesIO(SMALL["mp3"])
    file.name = "speech.wav"  # type: ignore[attr-defined]
    decoder = Decoder(file, LIMITS)
    assert decoder.read(8.0) is not None
    decoder.close()


@pytest.mark.parametrize("rate", [0, 1, 100, 4_000_000_000])
def test_a_lying_sample_rate(rate: int) -> None:
    data = bytearray(wav(CLIP))
    at = data.index(b"fmt ") + 12
    data[at : at + 4] = struct.pack("<I", rate)
    refusal(bytes(data))


def test_too_many_channels() -> None:
    assert "channels" in refusal(bytes(9999), raw=RawFormat("s16le", 16_000, 5000))


@pytest.mark.parametrize("channels", [2, 7, 9, 24, 32, 64])
def test_every_number_of_channels_is_mixed_down(channels: int) -> None:
    apart = np.repeat(CLIP[:, None], channels, axis=1)
    samples = decode(apart.astype("<f4").tobytes(), raw=RawFormat("f32le", 16_000, channels))
    assert len(samples) == len(CLIP)
    assert tone_of(samples) == 440
    assert np.abs(samples).max() == pytest.approx(0.3, rel=0.01)


def test_two_channels_are_mixed_to_their_mean() -> None:
    """As the script hears them, whose model was trained on such loudness."""
    left, right = tone(440, 1.0), tone(990, 1.0)
    both = np.stack([left, right], axis=1).astype("<f4")
    samples = decode(both.tobytes(), raw=RawFormat("f32le", 16_000, 2))
    np.testing.assert_allclose(samples, (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize("offset", [0, 1, 700, 3000, 9000])
def test_whole_files_are_not_taken_for_cut_ones(offset: int) -> None:
    """Tags before and behind an MP3, and what a download left behind an Ogg file's end."""
    size = bytes((offset >> shift) & 0x7F for shift in (21, 14, 7, 0))
    mp3 = b"ID3\x04\x00\x00" + size + bytes(offset) + SMALL["mp3"] + b"TAG" + bytes(125)
    assert tone_of(decode(mp3)[2000:-2000]) == 440
    assert tone_of(decode(SMALL["ogg vorbis"] + bytes(offset))[2000:-2000]) == 440


def test_a_chunk_that_claims_a_gigabyte_is_not_allocated() -> None:
    data = bytearray(SMALL["wav 16k mono"])
    at = data.index(b"LIST") + 4
    data[at : at + 4] = struct.pack("<I", 1_200_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "damaged" in refusal(bytes(data))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize("name", ["ogg opus", "mp3", "webm opus", "aac adts"])
def test_a_small_file_of_long_silence_stops_at_the_limit(name: str) -> None:
    bomb = encode(silence(40), next(how for how in FORMATS if how.name == name))
    assert "longer than 8 s" in refusal(bomb, EngineLimits(audio_seconds=8))


@pytest.mark.parametrize("name", ["ogg opus", "webm opus", "flac", "m4a"])
def test_hours_that_the_file_owns_to_are_refused_undecoded(name: str) -> None:
    bomb = encode(silence(16), next(how for how in FORMATS if how.name == name))
    with pytest.raises(InvalidRequestError, match="longer than 8 s"):
        Decoder(io.BytesIO(bomb), EngineLimits(audio_seconds=8))


def test_decoding_time_is_bounded() -> None:
    data = encode(tone(440, 12), FORMATS[4])
    assert "to decode" in refusal(data, EngineLimits(decode_seconds=1e-4))


def test_a_playlist_opens_neither_hosts_nor_files(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Playlists and the like make ffmpeg fetch what they name: none of it may happen."""
    secret = tmp_path / "secret.wav"
    secret.write_bytes(wav(CLIP))
    asked = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.5)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/a.ts"

        def accept() -> None:
            try:
                listener.accept()[0].close()
                asked.set()
            except TimeoutError:
                return

        thread = threading.Thread(target=accept)
        thread.start()
        for text in (
            f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{url}\n#EXT-X-ENDLIST\n",
            f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{secret}\n#EXT-X-ENDLIST\n",
            f"ffconcat version 1.0\nfile {secret}\n",
            f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio {url[17:22]} RTP/AVP 0\n",
            f'<?xml version="1.0"?><MPD type="static"><BaseURL>{url}</BaseURL></MPD>',
        ):
            refusal(text.encode())
        thread.join()
    assert not asked.is_set()


@pytest.mark.parametrize("name", sorted(SMALL))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damaged_containers_decode_or_are_refused(name: str, data: st.DataObject) -> None:
    """Truncations and flipped bits of real files: audio or a 400, never anything else."""
    original = SMALL[name]
    damaged = bytearray(original[: data.draw(st.integers(0, len(original)), "length")])
    flips = st.tuples(st.integers(0, max(0, len(damaged) - 1)), st.integers(0, 7))
    for position, bit in data.draw(st.lists(flips, max_size=20), "flips"):
        if damaged:
            damaged[position] ^= 1 << bit
    decodes_or_is_refused(bytes(damaged))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=4000))
@example(b"#!AMR\n" + b"\x3c" * 64)
@example(b"fLaC\x00\x00\x00\x22" + bytes(34))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    decodes_or_is_refused(data)
