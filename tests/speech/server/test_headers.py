"""Headers that lie, tags in front and behind, and what a request says against them."""

from __future__ import annotations

import io

import pytest

pytest.importorskip("av", reason="decoding needs PyAV: run with a speech environment's Python")

import numpy as np

from tests.speech.server import pcmfiles as files
from tests.speech.server.media import FORMATS, Format, encode, tone
from tests.speech.server.pcmfiles import APE, BIG, ID3, ID3V1, LIST, LYRICS, PCM
from tests.speech.server.tone_engine import tone_of
from yibu.errors import InvalidRequestError
from yibu.speech.audio.decoding import Decoder
from yibu.speech.http.upload import Form, Upload
from yibu.speech.settings import EngineLimits
from yibu.speech.stated import Stated, stated
from yibu.speech.types import Samples

LENGTH = len(PCM) // 2
UNKNOWN = (0, 0xFFFFFFFF, 0xFFFFFFFE, 0x40000000, 2_000_000_000, 0x7FFFFFFF, 0x80000000, 0x7FFF0000)
BEYOND = (len(PCM) + 1, len(PCM) + 1000, 2 * len(PCM))
WIDE = (0, 2**64 - 1, 2**63 - 1, 2**40)
NOISE = np.random.default_rng(1).bytes(3001)
TAILS = {
    "id3v1": ID3V1,
    "ape": APE,
    "ape and id3v1": APE + ID3V1,
    "lyrics": LYRICS + ID3V1,
    "id3v2": ID3,
    "zeros": bytes(3000),
    "noise": NOISE,
    "one byte": b"\0",
    "text": b"-- signature --\n" * 40,
}

WHOLE = {
    **{f"wav {n:#x}": files.wav(n) for n in (*UNKNOWN, *BEYOND)},
    **{f"wav, riff {n:#x}": files.wav(len(PCM), n) for n in (*UNKNOWN, 36)},
    **{f"wav, both {n:#x}": files.wav(n, n) for n in UNKNOWN},
    "wav 36/0": files.wav(0, 36),
    **{f"{kind.decode()} {n:#x}": files.rf64(n, kind=kind) for n in WIDE for kind in (b"RF64", b"BW64")},
    "rf64 with a size of 32 bits": files.rf64(0, len(PCM)),
    "rf64 with a size of 0": files.rf64(len(PCM), 0),
    "rf64 with a list behind": files.rf64(len(PCM), after=LIST),
    **{f"w64 {n:#x}": files.w64(n) for n in (*WIDE, 24, len(PCM) + 24)},
    "w64 with noise behind": files.w64(len(PCM) + 24, NOISE),
    **{f"aiff {n:#x} {m:#x}": files.aiff(n, m) for n in (*UNKNOWN, 8) for m in (0, LENGTH, 0xFFFFFFFF)},
    "aiff with noise behind": files.aiff(after=NOISE),
    "aiff with its format behind": files.aiff(common_last=True),
    **{f"au {n:#x}": files.au(n) for n in (*UNKNOWN, len(BIG))},
    "au with noise behind": files.au(len(BIG), NOISE),
    **{f"caf {n:#x}": files.caf(n) for n in (0, 4, -1, 2**40, 0x40000000, len(BIG) + 4)},
    "caf with noise behind": files.caf(len(BIG) + 4, NOISE),
    "rifx": files.rifx(),
    "wav with a second format": files.wav(len(PCM), before=files.fmt(rate=8_000)),
    **{f"wav with a byte rate of {n}": files.wav(len(PCM), head=files.fmt(n)) for n in (0, 1, 2**32 - 1)},
    **{f"wav with {name} behind": files.wav(len(PCM), after=tail) for name, tail in TAILS.items()},
    "wav with a list behind that lies": files.wav(len(PCM), after=LIST[:4] + b"\xff\xff\xff\x7f" + LIST[8:]),
    **{
        f"wav with a second data chunk of {size}": files.wav(
            6400, data=bytes(6400), after=between + files.chunk(b"data", PCM, size)
        )
        for size in (None, 0, 0xFFFFFFFF)
        for between in (b"", LIST)
    },
    "wav with an empty data chunk": files.wav(0, data=b"", after=files.chunk(b"data", PCM)),
    "wav with an empty data chunk behind": files.wav(len(PCM), after=files.chunk(b"data", b"")),
    "wav of odd length, padded": files.wav(len(PCM) + 1, data=PCM + b"\1", after=b"\0" + LIST),
    "wav of odd length, not padded": files.wav(len(PCM) + 1, data=PCM + b"\1", after=LIST),
    **{
        f"wav behind an odd chunk, padded: {padded}": files.wav(
            len(PCM), before=files.chunk(b"bext", bytes(603), padded=padded)
        )
        for padded in (True, False)
    },
    "wav with a format longer than it says": files.wav(len(PCM), head=files.fmt() + b"\0\0"),
    "wav behind id3": ID3 + files.wav(len(PCM)),
    "aiff behind id3": ID3 + files.aiff(),
    "au behind two id3": ID3 + ID3 + files.au(len(BIG)),
    "caf behind ape": APE + files.caf(len(BIG) + 4),
}  # fmt: skip

SMALL = {how.name: encode(tone(440, 2.0), how) for how in FORMATS if not how.video}
SMALL["wavpack"] = encode(tone(440, 2.0), Format("wavpack", "wv", "wavpack", 16_000, "mono"))
SMALL["tta"] = encode(tone(440, 2.0), Format("tta", "tta", "tta", 16_000, "mono"))


def decode(data: bytes, said: Stated | None = None) -> Samples:
    decoder = Decoder(io.BytesIO(data), EngineLimits(), said)
    try:
        blocks = []
        while (samples := decoder.read(8.0)) is not None:
            blocks.append(samples)
        return np.concatenate(blocks)
    finally:
        decoder.close()


def is_the_tone(samples: Samples, seconds: float = 2.0) -> None:
    assert len(samples) == pytest.approx(seconds * 16_000, abs=0.12 * 16_000)
    assert tone_of(samples[2000 : 2000 + 24_000]) == 440


@pytest.mark.parametrize("name", WHOLE)
def test_pcm_is_read_as_far_as_it_goes(name: str) -> None:
    samples = decode(WHOLE[name])
    assert len(samples) == LENGTH
    assert np.abs(samples - tone(440, 2.0)).max() < 1e-4


@pytest.mark.parametrize(
    "data",
    [
        files.wav(len(PCM) // 2),
        files.wav(len(PCM) // 2, after=NOISE),
        files.rf64(len(PCM) // 2),
        files.w64(len(PCM) // 2 + 24),
        files.aiff(len(PCM) // 2 + 8),
        files.au(len(PCM) // 2),
    ],
)
def test_half_the_size_is_half_the_file(data: bytes) -> None:
    is_the_tone(decode(data), 1.0)


@pytest.mark.parametrize(
    "data", [files.aiff(), files.au(len(BIG)), files.caf(len(BIG) + 4)], ids=["aiff", "au", "caf"]
)
def test_what_states_more_than_there_is_was_cut(data: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="cut short"):
        decode(data[:50_000])


@pytest.mark.parametrize("data", [files.wav(0, data=b""), files.wav(0, data=b"", after=LIST)])
def test_a_recording_of_nothing(data: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="No audio"):
        decode(data)


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize(
    "name", sorted(set(SMALL) - {"amr nb"})
)  # whose frames begin with any byte
def test_what_stands_behind_a_file_is_ignored(name: str, tail: str) -> None:
    samples = decode(SMALL[name] + TAILS[tail])
    # Noise has the heads of some MP3 frames.
    is_the_tone(samples[:33_000] if "mp3" in name and tail == "noise" else samples)


@pytest.mark.parametrize("tag", [ID3, ID3 + ID3, APE], ids=["id3", "two id3", "ape"])
@pytest.mark.parametrize("name", sorted(SMALL))
def test_tags_stand_in_front_of_anything(name: str, tag: bytes) -> None:
    is_the_tone(decode(tag + SMALL[name]))


def said(kind: str = "", name: str = "a", **fields: str) -> Stated:
    form = Form({name: [value] for name, value in fields.items()})
    return stated(form, Upload(io.BytesIO(), name, kind))


TYPES = (
    *("audio/mpeg; rate=16000", "audio/wav;rate=8000", "audio/flac; rate=48000", "audio/L16"),
    *("audio/L16; rate=16000; channels=2", "audio/pcm;rate=24000;encoding=signed-int;bits=16"),
    *("audio/basic", "audio/PCMU;rate=8000", "application/octet-stream; rate=16000"),
    *("audio/wav; codecs=audio/pcm; samplerate=16000", "audio/x-raw, format=S16LE, rate=16000"),
)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", [*sorted(SMALL), "wav by hand"])
def test_a_header_wins_over_the_content_type(name: str, kind: str) -> None:
    is_the_tone(decode(SMALL.get(name, files.wav(0)), said(kind, "line.pcm")))


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("audio/L16;rate=16000", BIG),
        ("audio/L16; rate=16000; channels=1; endianness=little-endian", PCM),
        ('audio/l16; rate="16000"', BIG),
        ("audio/pcm;rate=16000", PCM),
        ("audio/PCM; samplerate=16000", PCM),
        ("audio/x-raw, layout=(string)interleaved, rate=(int)16000, format=(string)S16LE", PCM),
        ("audio/x-raw,+format=(string)S16BE,+rate=(int)16000,+channels=(int)1", BIG),
    ],
)
def test_samples_without_a_header_are_as_their_type_says(kind: str, data: bytes) -> None:
    is_the_tone(decode(data, said(kind)))


@pytest.mark.parametrize("kind", ["", "application/octet-stream", "audio/wav", "audio/pcm"])
def test_samples_without_a_header_are_as_the_fields_say(kind: str) -> None:
    is_the_tone(decode(PCM, said(kind, sample_rate="16000")))


@pytest.mark.parametrize(
    ("kind", "fields", "param"),
    [
        ("audio/mpeg; rate=16000", {}, "file"),
        ("audio/mpeg", {"sample_rate": "16000"}, "file"),
        ("application/octet-stream; rate=16000", {}, "file"),
        ("audio/L16", {}, "sample_rate"),
        ("audio/pcm; rate=", {}, "sample_rate"),
        ("audio/pcm; rate=fast", {}, "sample_rate"),
    ],
)
def test_samples_of_which_too_little_is_said(kind: str, fields: dict[str, str], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        decode(PCM, said(kind, **fields))
    assert caught.value.param == param


@pytest.mark.parametrize("kind", ["", "audio/pcm", "audio/mpeg"])
@pytest.mark.parametrize(
    "data", [b"hello, this is text\n" * 200, b"\x89PNG\r\n\x1a\n" + NOISE, b"fLaC" + NOISE, b"OggS"]
)
def test_what_is_no_audio_is_not_read_as_samples(data: bytes, kind: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        decode(data, said(kind, sample_rate="16000"))
    assert caught.value.param == "file"


@pytest.mark.parametrize("name", ["flac", "mp3", "wav 16k mono", "m4a", "aac adts"])
def test_fields_that_contradict_a_header_are_refused(name: str) -> None:
    how = next(how for how in FORMATS if how.name == name)
    channels = 1 if how.layout == "mono" else 2
    is_the_tone(decode(SMALL[name], said(sample_rate=str(how.rate), channels=str(channels))))
    for fields in ({"sample_rate": "8000"}, {"channels": "3"}, {"sample_format": "mulaw"}):
        with pytest.raises(InvalidRequestError) as caught:
            decode(SMALL[name], said(**fields))
        assert [caught.value.param] == list(fields)
        assert "header" in caught.value.message
