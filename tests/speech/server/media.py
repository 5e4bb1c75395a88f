"""Audio made on the spot: tones, and files of every format that the codecs here can write."""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt


def tone(frequency: float, seconds: float, rate: int = 16_000) -> npt.NDArray[np.float32]:
    time = np.arange(int(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def silence(seconds: float, rate: int = 16_000) -> npt.NDArray[np.float32]:
    return np.zeros(int(seconds * rate), np.float32)


@dataclass(frozen=True)
class Format:
    """How to write one kind of file."""

    name: str
    container: str
    codec: str
    rate: int = 44_100
    layout: str = "stereo"
    video: bool = False


FORMATS = (
    Format("wav 16k mono", "wav", "pcm_s16le", 16_000, "mono"),
    Format("wav 8k mono a-law", "wav", "pcm_alaw", 8_000, "mono"),
    Format("wav 48k 5.1 float", "wav", "pcm_f32le", 48_000, "5.1"),
    Format("wav 96k 24 bit", "wav", "pcm_s24le", 96_000),
    Format("mp3", "mp3", "libmp3lame"),
    Format("mp3 8k", "mp3", "libmp3lame", 8_000, "mono"),
    Format("m4a", "ipod", "aac"),
    Format("mp4 fragmented", "mp4", "aac", 48_000),
    Format("flac", "flac", "flac"),
    Format("ogg vorbis", "ogg", "vorbis"),
    Format("ogg opus", "ogg", "libopus", 48_000),
    Format("webm opus", "webm", "libopus", 48_000, "mono"),
    Format("matroska flac", "matroska", "flac"),
    Format("aac adts", "adts", "aac"),
    Format("amr nb", "amr", "libopencore_amrnb", 8_000, "mono"),
    Format("aiff", "aiff", "pcm_s16be"),
    Format("au", "au", "pcm_mulaw", 8_000, "mono"),
    Format("caf alac", "caf", "alac"),
    Format("wma", "asf", "wmav2"),
    Format("ac3", "ac3", "ac3", 48_000),
    Format("mp4 video", "mp4", "aac", 44_100, "stereo", video=True),
    Format("webm video", "webm", "libopus", 48_000, "stereo", video=True),
    Format("mpegts video", "mpegts", "mp2", 44_100, "stereo", video=True),
)


def encode(samples: npt.NDArray[np.float32], how: Format, source_rate: int = 16_000) -> bytes:
    """Write mono samples as a file of the given kind."""
    target = io.BytesIO()
    options = {"movflags": "frag_keyframe+empty_moov"} if "fragmented" in how.name else {}
    with av.open(target, "w", format=how.container, options=options) as container:
        stream = container.add_stream(how.codec, rate=how.rate)
        if how.codec == "wmav2":
            stream.bit_rate = 128_000
        stream.options = {"strict": "experimental"}  # ffmpeg's own vorbis encoder
        stream.layout = how.layout
        picture = _picture(container, how) if how.video else None
        resampler = av.AudioResampler(stream.codec_context.format.name, how.layout, how.rate)
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.sample_rate = source_rate
        if picture is not None:
            _write_pictures(container, picture, len(samples) / source_rate)
        fifo = av.AudioFifo()
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            piece.pts = None
            fifo.write(piece)
        size = stream.codec_context.frame_size or 1024
        while (piece := fifo.read(size)) or (piece := fifo.read(0, partial=True)):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return target.getvalue()


def wav(samples: npt.NDArray[np.float32]) -> bytes:
    return encode(samples, FORMATS[0])


def _picture(container: Any, how: Format) -> Any:
    codec = {"mp4": "mpeg4", "webm": "libvpx", "mpegts": "mpeg2video"}[how.container]
    stream = container.add_stream(codec, rate=25)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    stream.time_base = Fraction(1, 25)
    return stream


def _write_pictures(container: Any, stream: Any, seconds: float) -> None:
    for number in range(int(seconds * 25)):
        image = np.full((48, 64, 3), number % 255, np.uint8)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts = number
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
