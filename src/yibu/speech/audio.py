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

_PIPED_WAV = 0x7FFF0000
"""Bytes: programs that write to a pipe state such a length, up to 0xFFFFFFFF, or none."""

_MAX_CHUNKS = 256

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
        wav_seconds = _wav_seconds(file)  # before the demuxer holds the file's position
        self._container = _open(file, raw)
        try:
            self._stream = _audio_stream(self._container)
            self.declared = _declared_seconds(self._container, self._stream)
            if self.declared is not None and raw is None:
                self.declared = max(self.declared, wav_seconds)
            """Seconds, where the header states them reliably."""
            self.expected = self.declared or _estimated_seconds(self._container, self._stream, file)
            """Seconds, as a guess where nothing is declared; for planning only."""
            if self.declared is not None and self.declared > limits.audio_seconds:
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

        ``av.AudioResampler`` wants one input format; a chained stream may change it midway, so
        each format gets a resampler of its own.
        """
        resampler: av.AudioResampler | None = None
        current: tuple[object, ...] | None = None
        for packet in self._demux():
            self._check_effort()
            for frame in self._frames(packet):
                found = (frame.format.name, frame.layout.name, frame.sample_rate)
                if found != current:
                    if resampler is not None:
                        yield from _resampled(resampler, None)
                    _check_shape(frame.sample_rate, frame.layout.nb_channels)
                    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
                    current = found
                frame.pts = None  # gaps and jumps in the time stamps are not samples
                assert resampler is not None
                yield from _resampled(resampler, frame)
        if resampler is not None:
            yield from _resampled(resampler, None)

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
        if self._broke_off and self.declared is None:
            raise bad_audio(
                f"The file is damaged after {self.seconds:.1f} s of audio", code="truncated_audio"
            )


def _open(file: IO[bytes], raw: RawFormat | None) -> Any:
    file.seek(0, 2)
    if file.tell() == 0:
        raise bad_audio("The file is empty", code="empty_audio")
    _check_wav(file)
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


def _wav_seconds(file: IO[bytes]) -> float:
    """What a WAV header says of its data's length, 0 for other files and for recordings from a
    pipe: ffmpeg shortens it to the file's size, which hides that the file is cut off."""
    byte_rate = 0
    for name, size, head, _ in _wav_chunks(file):
        if name == b"fmt ":
            byte_rate = int.from_bytes(head[8:12], "little")
        if name == b"data" and byte_rate:
            return size / byte_rate if size < _PIPED_WAV else 0.0
    return 0.0


def _check_wav(file: IO[bytes]) -> None:
    """Refuse a WAV with a chunk that claims more than there is: ffmpeg would allocate it."""
    size_of_file = file.seek(0, 2)
    for name, size, _, start in _wav_chunks(file):
        if name != b"data" and start + size > size_of_file + 1:
            raise bad_audio("The file is damaged or cut off in its header", code="truncated_audio")


def _wav_chunks(file: IO[bytes]) -> Iterator[tuple[bytes, int, bytes, int]]:
    """Name, size, first bytes and offset of each chunk; none for a file that is no WAV. Leaves
    the file at its beginning."""
    file.seek(0)
    try:
        header = file.read(12)
        if header[:4] != b"RIFF" or header[8:12] != b"WAVE":
            return
        position = 12
        for _ in range(_MAX_CHUNKS):
            file.seek(position)
            head = file.read(8 + 16)
            if len(head) < 8:
                return
            size = int.from_bytes(head[4:8], "little")
            yield head[:4], size, head[8:], position + 8
            position += 8 + size + size % 2
    finally:
        file.seek(0)


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


def _resampled(resampler: av.AudioResampler, frame: Any) -> Iterator[Samples]:
    """What a frame becomes, or what is left in the resampler for None."""
    try:
        pieces = resampler.resample(frame)
    except (av.error.FFmpegError, ValueError) as error:
        raise bad_audio("The audio's channel layout cannot be mixed down to one channel") from error
    for piece in pieces:
        yield np.ascontiguousarray(piece.to_ndarray()[0], dtype=np.float32)
