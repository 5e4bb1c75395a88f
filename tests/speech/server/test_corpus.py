"""Files of many kinds against ffmpeg's own decode, and those on which its libraries end the process."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("av", reason="decoding needs PyAV: run with a speech environment's Python")

import av.format
import numpy as np

from tests.speech.server import pcmfiles as files
from tests.speech.server.media import Format, encode, tone
from tests.speech.server.test_headers import decode, is_the_tone, said
from yibu.errors import InvalidRequestError
from yibu.speech.audio.decoding import CONTAINERS
from yibu.speech.types import Samples

WRITTEN = (
    *(Format(f"wav {codec}", "wav", codec, 22_050, "stereo") for codec in ("adpcm_ms", "adpcm_ima_wav", "adpcm_yamaha", "pcm_f64le", "pcm_s32le", "pcm_u8")),
    *(Format(f"wav of {rate} Hz", "wav", "pcm_s24le", rate) for rate in (8_000, 11_025, 37_800, 96_000, 192_000)),
    *(Format(f"{kind} {layout}", kind, codec, 48_000, layout) for kind, codec in (("flac", "flac"), ("matroska", "libopus"), ("mp4", "aac"), ("caf", "pcm_s16be"), ("mov", "pcm_s16le"), ("wv", "wavpack")) for layout in ("3.0", "quad", "5.1", "7.1")),
    *(Format(f"aiff {codec}", "aiff", codec, 44_100, "mono") for codec in ("pcm_s8", "pcm_s24be", "pcm_f32be", "pcm_f64be", "pcm_alaw", "pcm_mulaw", "adpcm_ima_qt")),
    *(Format(f"au {codec}", "au", codec, 44_100, "mono") for codec in ("pcm_s8", "pcm_s24be", "pcm_f64be", "pcm_alaw")),
    *(Format(f"mov {codec}", "mov", codec, 44_100, "mono") for codec in ("alac", "pcm_s24be", "pcm_f32le", "adpcm_ima_qt")),
    *(Format(f"avi {codec}", "avi", codec, 44_100) for codec in ("libmp3lame", "mp2", "ac3", "adpcm_ms", "pcm_s16le")),
    *(Format(f"ts {codec}", "mpegts", codec, 48_000) for codec in ("aac", "ac3", "eac3", "libmp3lame")),
    *(Format(kind, kind, codec, rate, layout) for kind, codec, rate, layout in (("eac3", "eac3", 48_000, "5.1"), ("latm", "aac", 44_100, "stereo"), ("voc", "pcm_s16le", 22_050, "mono"), ("w64", "pcm_f32le", 96_000, "stereo"), ("ircam", "pcm_s16le", 22_050, "mono"), ("sox", "pcm_s32le", 22_050, "mono"), ("nut", "pcm_s24le", 22_050, "mono"), ("mp2", "mp2", 16_000, "mono"), ("flv", "libmp3lame", 44_100, "stereo"), ("f4v", "aac", 44_100, "stereo"), ("ismv", "aac", 44_100, "stereo"), ("3gp", "aac", 8_000, "mono"), ("vob", "mp2", 48_000, "stereo"))),
    *(Format(kind, kind, codec, rate, layout) for kind, codec, rate, layout in (("adx", "adpcm_adx", 44_100, "stereo"), ("spdif", "ac3", 48_000, "stereo"), ("swf", "libmp3lame", 44_100, "stereo"), ("gxf", "pcm_s16le", 48_000, "mono"), ("mmf", "adpcm_yamaha", 22_050, "mono"))),
)  # fmt: skip
FFMPEG = shutil.which("ffmpeg")


def theirs(data: bytes, folder: Path, *options: str) -> Samples:
    path = folder / "file"
    path.write_bytes(data)
    assert FFMPEG is not None
    command = [FFMPEG, "-v", "error", "-nostdin", *options, "-i", str(path), "-map", "0:a:0"]
    command += [
        "-af",
        "aresample=16000:rematrix_maxval=1.0:ocl=mono",
        "-ac",
        "1",
        "-f",
        "f32le",
        "-",
    ]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    return np.frombuffer(done.stdout, np.float32)


@pytest.mark.parametrize("how", WRITTEN, ids=lambda how: how.name)
def test_every_kind_is_decoded(how: Format, tmp_path: Path) -> None:
    data = encode(tone(440, 2.0), how)
    ours = decode(data)
    is_the_tone(ours)
    if FFMPEG is None or how.name == "gxf":  # of which older ones miss most
        return
    expected = theirs(data, tmp_path)
    assert len(ours) == pytest.approx(len(expected), abs=1600)
    level = np.abs(ours[4000:-4000]).max() / np.abs(expected[4000:-4000]).max()
    assert level == pytest.approx(1.0, rel=0.05 if how.layout in ("mono", "stereo") else 0.25)


def test_every_container_that_is_read_is_one_of_pyavs() -> None:
    """A name that it does not know is left out without a word."""
    known = {name for each in av.format.formats_available for name in each.split(",")}
    assert set(CONTAINERS.split(",")) <= known


_LAYOUTS = """
import io, sys
from tests.speech.server.pcmfiles import caf_with_layout
from yibu.errors import InvalidRequestError
from yibu.speech.audio.decoding import Decoder
from yibu.speech.settings import EngineLimits as Limits
for layout in range(99, 202):
    for channels in range(1, 17):
        decoder = Decoder(io.BytesIO(caf_with_layout(layout << 16 | channels, channels)), Limits())
        assert decoder.tracks[0].channels == channels, (layout, channels)
        assert len(decoder.read(8.0)) == 32_000 // channels, (layout, channels)
        assert decoder.read(8.0) is None
        decoder.close()
print("all")
"""


def test_no_order_of_channels_ends_the_process() -> None:
    """Of the layouts that CAF and QuickTime number, PyAV frees those in an order of their own twice."""
    done = subprocess.run(
        [sys.executable, "-c", _LAYOUTS], capture_output=True, text=True, timeout=200, check=False
    )
    assert (done.returncode, done.stdout) == (0, "all\n"), done.stderr[-2000:]


@pytest.mark.parametrize("bits", [8, 24])
@pytest.mark.parametrize("behind", [b"", b"\0", b"\0" + files.LIST, files.LIST])
def test_aiff_of_odd_length(bits: int, behind: bytes) -> None:
    """With the byte behind the data that the format wants, and without."""
    samples = decode(files.aiff_of(bits, 32_001) + behind)
    assert len(samples) == 32_001 - (behind == b"")
    is_the_tone(samples)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.75, 0.9, 0.99])
@pytest.mark.parametrize(
    "codec", [("tta", "tta"), ("wv", "wavpack"), ("flac", "flac"), ("caf", "alac")]
)
def test_a_last_packet_that_is_cut_is_a_file_that_is_cut(
    codec: tuple[str, str], share: float
) -> None:
    """It cannot be decoded, and is not one that was damaged."""
    data = encode(tone(440, 6.0), Format("cut", *codec, 44_100, "mono"))
    with pytest.raises(InvalidRequestError, match=r"cut short|No audio|cut off"):
        decode(data[: int(len(data) * share)])


CODED = [("g722", "g722", ".g722", "audio/G722;rate=8000", 16_000), ("s16le", "pcm_s16le", ".sln16", "", 16_000), ("s16le", "pcm_s16le", ".sln", "", 8_000)]  # fmt: skip


@pytest.mark.parametrize(("container", "codec", "suffix", "kind", "rate"), CODED)
def test_what_telephone_systems_record_is_known_by_its_name_or_type(
    container: str, codec: str, suffix: str, kind: str, rate: int
) -> None:
    data = encode(tone(440, 2.0), Format("call", container, codec, rate, "mono"))
    for stated in filter(None, (said("", "call" + suffix.upper()), kind and said(kind, "call"))):
        is_the_tone(decode(data, stated))
    # A header wins over a name.
    is_the_tone(decode(files.wav(0), said("", "call" + suffix)))


@pytest.mark.skipif(FFMPEG is None, reason="GSM is written by ffmpeg's program")
@pytest.mark.parametrize("stated", [("", "a.gsm"), ("audio/x-gsm", "a"), ("audio/GSM", "a.wav")])
def test_gsm(stated: tuple[str, str], tmp_path: Path) -> None:
    assert FFMPEG is not None
    command = [FFMPEG, "-v", "error", "-f", "s16le", "-ar", "16000", "-i", "-", "-ar", "8000"]
    done = subprocess.run(
        [*command, "-f", "gsm", "-"], input=files.PCM, capture_output=True, timeout=60, check=False
    )
    if done.returncode:
        pytest.skip("this ffmpeg has no GSM")
    ours = decode(done.stdout, said(*stated))
    np.testing.assert_allclose(ours, theirs(done.stdout, tmp_path, "-f", "gsm"), atol=1e-3)
