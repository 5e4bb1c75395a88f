"""Decoding of uploads to 16 kHz mono, block by block, through the ffmpeg libraries in PyAV.

What comes in is hostile until it is decoded: containers that name other files or hosts are not
opened, and bytes, seconds, rates and decoding time are bounded.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import IO, Any

import av
import av.error
import numpy as np

from yibu.errors import InvalidRequestError
from yibu.speech.settings import Limits
from yibu.speech.types import SAMPLE_RATE, Samples
from yibu.speech.wholeness import breaks_off, wav_header_lies, wav_seconds

_CONTAINERS = (
    "3g2,3gp,aac,ac3,ac4,aiff,amr,amrnb,amrwb,ape,asf,au,avi,avr,caf,dsf,dss,dts,dtshd,dv,eac3,"
    "epaf,flac,flv,iff,ircam,loas,m4a,matroska,mj2,mlp,mov,mp3,mp4,mpc,mpc8,mpeg,mpegts,mxf,"
    "nistsphere,nut,ogg,oma,paf,pvf,qcp,qoa,rm,sox,tak,truehd,tta,voc,vqf,w64,wav,webm,wsd,wtv,"
    "wv,xwma"
)
"""Demuxers that read the bytes they are given and nothing else. Playlists and descriptions (hls,
dash, concat, sdp, image2 …) open files and hosts that they name, capture devices the microphone."""

_HEADER_KNOWS_LENGTH = frozenset({"wav", "w64", "aiff", "caf", "au", "flac", "mov", "matroska"})
"""Containers whose header states the duration; elsewhere it is an estimate from the file's size."""

RAW_FORMATS = ("s16le", "s16be", "s24le", "s32le", "f32le", "u8", "alaw", "mulaw")

_RATES = range(2_000, 768_001)
_CHANNELS = range(1, 65)
_FEWEST_BYTES_A_SECOND = 1000.0
_DAMAGED_SHARE = 0.1
"""Of the packets; fewer broken ones are left out of the audio, as players do."""


@dataclass(frozen=True, slots=True)
class RawFormat:
    """Headerless samples, of which the client has to say everything."""

    sample_format: str
    rate: int
    channels: int


def bad_audio(message: str, *, code: str = "invalid_audio") -> InvalidRequestError:
    """A 400 about the uploaded file."""
    return InvalidRequestError(message, param="file", code=code)


class Decoder:
    """One upload, decoded forward once. Used by one thread at a time.

    Raises (all methods):
        InvalidRequestError: the file is empty, no audio, damaged, cut short, or over a limit.
    """

    def __init__(self, file: IO[bytes], limits: Limits, raw: RawFormat | None = None) -> None:
        self._limits = limits
        self._packets = self._bad_packets = 0
        self._cpu_seconds = 0.0
        self._read_started = 0.0
        self._broke_off = False
        self.seconds = 0.0
        """Decoded so far."""
        stated = wav_seconds(file)  # before the demuxer holds the file's position
        self._cut_off = raw is None and breaks_off(file)
        self._container = _open(file, raw)
        try:
            self._stream = _audio_stream(self._container)
            self.declared = _declared_seconds(self._container, self._stream)
            if self.declared is not None and raw is None:
                self.declared = max(self.declared, stated)
            """Seconds, where the header states them reliably."""
            self.expected = self.declared or _estimated_seconds(self._container, self._stream, file)
            """Seconds, as a guess where nothing is declared; for planning only."""
            known = self.declared
            if known is None and self._container.format.name == "ogg":
                known = (
                    self.expected
                )  # its last page counts the samples: hours of silence are small
            if known is not None and known > limits.audio_seconds:
                raise _too_long(limits)
        except BaseException:  # whatever it is, the container must not stay open
            self._container.close()
            raise
        self._blocks = self._decode()

    def read(self, seconds: float) -> Samples | None:
        """The next samples, about ``seconds`` of them, or None at the end of the file."""
        blocks: list[Samples] = []
        wanted = int(seconds * SAMPLE_RATE)
        self._read_started = time.thread_time()
        for block in self._blocks:
            blocks.append(block)
            wanted -= len(block)
            self.seconds += len(block) / SAMPLE_RATE
            if self.seconds > self._limits.audio_seconds:
                raise _too_long(self._limits)
            if wanted <= 0:
                break
        self._cpu_seconds += time.thread_time() - self._read_started
        if not blocks:
            self._check_complete()
            return None
        return np.concatenate(blocks)

    def close(self) -> None:
        self._blocks.close()
        self._container.close()

    def _decode(self) -> Generator[Samples, None, None]:
        """Decode and resample packet by packet.

        A resampler wants one input format; a chained stream may change it midway, so each format
        gets one of its own.
        """
        resampler: _Resampler | None = None
        current: tuple[object, ...] | None = None
        for packet in self._demux():
            self._check_effort()
            for frame in self._frames(packet):
                found = (frame.format.name, frame.layout.name, frame.sample_rate)
                if found != current:
                    if resampler is not None:
                        yield from resampler.feed(None)
                    _check_shape(frame.sample_rate, frame.layout.nb_channels)
                    resampler = _Resampler(frame.layout.nb_channels)
                    current = found
                frame.pts = None  # gaps and jumps in the time stamps are not samples
                assert resampler is not None
                yield from resampler.feed(frame)
        if resampler is not None:
            yield from resampler.feed(None)

    def _demux(self) -> Iterator[Any]:
        try:
            yield from self._container.demux(self._stream)
        except (av.error.FFmpegError, OSError, ValueError):
            self._broke_off = True

    def _frames(self, packet: Any) -> Iterator[Any]:
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, ValueError):
            self._bad_packets += 1
            frames = []
        if packet.size:
            self._packets += 1
        yield from frames

    def _check_effort(self) -> None:
        spent = self._cpu_seconds + time.thread_time() - self._read_started
        if spent > self._limits.decode_seconds:
            raise bad_audio(
                f"The file took more than {self._limits.decode_seconds:g} s to decode",
                code="decode_timeout",
            )

    def _check_complete(self) -> None:
        """At the end: refuse what was not audio after all, or was only a part of it."""
        if not self.seconds:
            raise bad_audio("No audio could be decoded from the file")
        if self._bad_packets > max(2, _DAMAGED_SHARE * self._packets):
            raise bad_audio(
                f"The file is damaged: {self._bad_packets} of its {self._packets} packets "
                "could not be decoded"
            )
        missing = (self.declared or 0.0) - self.seconds
        if missing > max(0.5, 0.02 * self.seconds):
            raise bad_audio(
                f"The file is cut short: its header says {self.declared:.1f} s, "
                f"{self.seconds:.1f} s could be decoded",
                code="truncated_audio",
            )
        if (self._broke_off and self.declared is None) or self._cut_off:
            raise bad_audio(
                f"The file is cut short: it breaks off after {self.seconds:.1f} s of audio",
                code="truncated_audio",
            )


def _open(file: IO[bytes], raw: RawFormat | None) -> Any:
    file.seek(0, 2)
    if file.tell() == 0:
        raise bad_audio("The file is empty", code="empty_audio")
    if wav_header_lies(file):
        raise bad_audio("The file is damaged or cut off in its header", code="truncated_audio")
    file.seek(0)
    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": ""}
    name = None
    if raw is not None:
        _check_shape(raw.rate, raw.channels)
        name = raw.sample_format
        options = {
            "format_whitelist": name,
            "protocol_whitelist": "",
            "sample_rate": str(raw.rate),
            "ch_layout": f"{raw.channels}C",
        }
    try:
        return av.open(
            _Nameless(file),
            format=name,
            container_options=options,
            metadata_errors="ignore",
            io_open=_refuse_to_open,
        )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise bad_audio(
            "The file is not audio in a format that can be read, or is cut off in its header"
        ) from error


class _Nameless:
    """What PyAV needs of a file and no more: from a name it would guess the format, and a file
    that lies about its type is judged by its bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self.read = file.read
        self.seek = file.seek
        self.tell = file.tell


def _refuse_to_open(url: str, *_: object) -> None:
    raise PermissionError(f"an upload may not open {url}")


def _audio_stream(container: Any) -> Any:
    streams = container.streams.audio
    if not streams:
        raise bad_audio("The file has no audio stream")
    stream = streams[0]
    context = stream.codec_context
    if context is None:
        raise bad_audio(f"The file's audio codec is not known ({stream.type} stream 0)")
    context.thread_count = 1  # concurrency comes from decoding several files
    return stream


def _declared_seconds(container: Any, stream: Any) -> float | None:
    names = set(container.format.name.split(","))
    if not names & _HEADER_KNOWS_LENGTH:
        return None
    if stream.duration is not None and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return float(container.duration / av.time_base)
    return None


def _estimated_seconds(container: Any, stream: Any, file: IO[bytes]) -> float:
    if stream.duration is not None and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration is not None:
        return float(container.duration / av.time_base)
    position = file.tell()
    size = file.seek(0, 2)
    file.seek(position)
    return size / _FEWEST_BYTES_A_SECOND


def _check_shape(rate: int, channels: int) -> None:
    if rate not in _RATES:
        raise bad_audio(
            f"The audio's sample rate is {rate} Hz; {_RATES.start} to {_RATES.stop - 1} is read"
        )
    if channels not in _CHANNELS:
        raise bad_audio(f"The audio has {channels} channels; 1 to {_CHANNELS.stop - 1} are read")


def _too_long(limits: Limits) -> InvalidRequestError:
    return bad_audio(
        f"The audio is longer than {limits.audio_seconds:.0f} s, the limit of this server",
        code="audio_too_long",
    )


class _Resampler:
    """Makes 16 kHz mono of frames of one format."""

    def __init__(self, channels: int) -> None:
        # Without it what is mixed is not divided: two equal channels are 1.4 times as loud as one.
        options = {"rematrix_maxval": "1.0"} if channels > 1 else None
        self._resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE, options=options)
        self._channels = 1
        self._fed = False

    def feed(self, frame: Any) -> Iterator[Samples]:
        """What a frame becomes, or what is left in the resampler for None."""
        try:
            pieces = self._resample(frame)
        except (av.error.FFmpegError, ValueError) as error:
            raise bad_audio("The audio's channels cannot be mixed down to one") from error
        for piece in pieces:
            samples = np.ascontiguousarray(piece.to_ndarray()[0], dtype=np.float32)
            if self._channels > 1:
                samples = samples.reshape(-1, self._channels).mean(axis=1)
            yield samples

    def _resample(self, frame: Any) -> Any:
        try:
            return self._resampler.resample(frame)
        except (av.error.FFmpegError, ValueError):
            if self._fed or frame is None:
                raise
        finally:
            self._fed = True
        # libswresample mixes the layouts that have a name; of other channels the mean is taken.
        self._channels = frame.layout.nb_channels
        self._resampler = av.AudioResampler("flt", frame.layout, SAMPLE_RATE)
        return self._resampler.resample(frame)
