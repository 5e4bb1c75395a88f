"""Decoding of uploads to 16 kHz mono, block by block, through the ffmpeg libraries in PyAV.

What comes in is hostile until it is decoded: containers that name other files or hosts are not
opened, and bytes, seconds, rates and decoding time are bounded.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from itertools import islice
from typing import IO, Any

import av
import av.error
import numpy as np

from yibu.errors import InvalidRequestError
from yibu.messages import tr
from yibu.speech.audio.faults import bad_audio
from yibu.speech.audio.headers import AudioSource, FileView, examine
from yibu.speech.audio.mixing import OPPOSITE, FrameMixer, check_shape
from yibu.speech.audio.timeline import KEPT, RESTARTING, begin_of_others, spaced
from yibu.speech.audio.tracks import choose, described
from yibu.speech.audio.wholeness import breaks_off, next_link
from yibu.speech.settings import EngineLimits
from yibu.speech.stated import RawFormat, Stated
from yibu.speech.types import SAMPLE_RATE, Samples

CONTAINERS = (
    "3g2,3gp,aac,ac3,ac4,adx,aea,aiff,alp,amr,amrnb,amrwb,ape,apm,asf,ast,au,avi,avr,bonk,caf,"
    "dsf,dss,dts,dtshd,dv,eac3,epaf,film_cpk,flac,flv,gxf,hcom,iamf,iff,ilbc,ircam,ivr,kvag,"
    "loas,m4a,matroska,mj2,mlp,mmf,mov,mp3,mp4,mpc,mpc8,mpeg,mpegts,mxf,nistsphere,nsv,nut,ogg,"
    "oma,osq,paf,pvf,qcp,qoa,rka,rm,roq,shn,smjpeg,sox,spdif,swf,tak,truehd,tta,vag,voc,vqf,w64,"
    "wav,wavarc,webm,wsd,wtv,wv,xwma"
)
"""Demuxers that read the bytes they are given and nothing else. Playlists and descriptions (hls,
dash, concat, sdp, image2 …) open files and hosts that they name, capture devices the microphone."""

_STATES_LENGTH = frozenset({"flac", "wv", "tta", "ape", "tak", "mpc", "mpc8", "caf", "dsf", "qoa"})
"""Formats without a structure to check, whose header counts the samples: fewer are a file cut short."""
_KNOWS_LENGTH = _STATES_LENGTH | {"mov", "matroska", "ogg"}
"""Formats whose header, or last page, is believed where it states more than the limit."""

_FEWEST_BYTES_A_SECOND = 1000.0
_DAMAGED_SHARE = 0.1
"""Share of broken packets up to which they are left out of the audio, as players do."""
_SPARE = 0.1
"""Seconds by which decoded audio may be shorter than its header says: an encoder's delay."""
_LATE_STREAMS = 10_000
_PROBED_PACKETS = 16
_LEADING_BYTES = 4096
"""Bytes before an MP3's first audio frame, which may hold a frame with Xing's header."""
_SILENCE_BLOCK = 8 * SAMPLE_RATE


class Decoder:
    """One upload, decoded forward once. Used by one thread at a time.

    Raises (all methods):
        InvalidRequestError: the file is empty, no audio, damaged, cut short, or over a limit, or the
            request contradicts it.
    """

    def __init__(self, file: IO[bytes], limits: EngineLimits, said: Stated | None = None) -> None:
        self._limits = limits
        said = said or Stated()
        self._packets = self._bad_packets = self._bad_at_end = 0
        self._cpu_seconds = 0.0
        self._read_started = 0.0
        self._broke_off = False
        self._mixer = FrameMixer()
        self.seconds = 0.0
        """Seconds decoded so far."""
        if file.seek(0, 2) == 0:
            raise bad_audio(tr("The file is empty"), code="empty_audio")
        source = examine(file)
        self._file = source.file
        self._container, raw = _open(file, source, said)
        try:
            self._stream = choose(self._container.streams.audio, said.track)
            if not raw:
                said.check(self._stream, self._container.format.name.partition(",")[0])
            self.tracks = [described(stream) for stream in self._container.streams.audio]
            self.track = self._container.streams.audio.index(self._stream)
            self._kinds = set(self._container.format.name.split(","))
            self._cut_off = not raw and (source.cut or self._ends_early(source))
            length = _stated_seconds(self._container, self._stream)
            self.declared = None if raw or source.unstated else length
            """Seconds, if the header states them."""
            self.expected = length or file.seek(0, 2) / _FEWEST_BYTES_A_SECOND
            """Seconds, estimated where the header states none; for planning only."""
            if self._kinds & _KNOWS_LENGTH and (self.declared or 0.0) > limits.audio_seconds:
                raise _too_long(limits)
        except BaseException:  # whatever it is, the container must not stay open
            self._container.close()
            raise
        self._blocks = self._decode()

    @property
    def notes(self) -> list[str]:
        """Notes for the listener on how the file was read."""
        return [OPPOSITE] if self._mixer.opposite else []

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
        """Decode and resample, with silence for what the time stamps leave out."""
        position = 0.0
        written = 0
        for gap, frame in self._spaced():
            for samples in self._mixer.finish() if gap else ():
                written += len(samples)
                yield samples
            position += gap
            while gap and (left := round(position * SAMPLE_RATE) - written) > 0:
                written += min(left, _SILENCE_BLOCK)
                yield np.zeros(min(left, _SILENCE_BLOCK), np.float32)
            position += frame.samples / frame.sample_rate
            for samples in self._mixer.feed(frame):
                written += len(samples)
                yield samples
        yield from self._mixer.finish()

    def _spaced(self) -> Iterator[tuple[float, Any]]:
        frames = (frame for packet in self._demux() for frame in self._frames(packet))
        if not self._kinds & KEPT:
            return ((0.0, frame) for frame in frames)
        container = self._container
        end = None
        if not self._kinds & RESTARTING and container.duration is not None:
            end = ((container.start_time or 0) + container.duration) / av.time_base
        return spaced(frames, begin_of_others(container, self._stream), end)

    def _ends_early(self, source: AudioSource) -> bool:
        """Whether the file's structure goes on behind its end, or the samples of the track do."""
        if source.unstated:
            return False
        index: Any = self._stream.index_entries if "mov" in self._kinds else []
        if len(index) and index[-1].pos + index[-1].size > source.file.size:
            return True
        return breaks_off(source.file.again())

    def _demux(self) -> Iterator[Any]:
        position = 0
        for _ in range(_LATE_STREAMS):
            try:
                for packet in self._container.demux(self._stream):
                    position = max(position, packet.pos or 0)
                    yield packet
            except IndexError:
                continue  # PyAV meets a packet of a stream that the header did not announce
            except (av.error.FFmpegError, OSError, ValueError):
                if self._opened_next(position):
                    position = 0
                    continue
                self._broke_off = True
            return

    def _opened_next(self, position: int) -> bool:
        """Whether another Ogg file begins behind ``position``, and is the one to read from now on. ffmpeg reads
        on only where it has the same codec and channels."""
        start = next_link(self._file, position) if "ogg" in self._kinds else None
        if start is None:
            return False
        self._file = self._file.part(start)
        container = _demuxer(self._file.again())
        if container is None or len(container.streams.audio) <= self.track:
            return False
        self._container.close()
        self._container, self._stream = container, choose(container.streams.audio, self.track)
        return True

    def _frames(self, packet: Any) -> Iterator[Any]:
        self._check_effort()
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, ValueError):
            self._bad_packets += 1
            self._bad_at_end += 1
            frames = []
        else:
            self._bad_at_end *= not packet.size  # the last, empty one says nothing
        if packet.size:
            self._packets += 1
        yield from frames

    def _check_effort(self) -> None:
        spent = self._cpu_seconds + time.thread_time() - self._read_started
        if spent > self._limits.decode_seconds:
            raise bad_audio(
                tr(
                    "The file took more than {decode_seconds:g} s to decode",
                    decode_seconds=self._limits.decode_seconds,
                ),
                code="decode_timeout",
            )

    def _check_complete(self) -> None:
        """At the end: refuse what turned out not to be audio, or to be incomplete."""
        if not self.seconds:
            raise bad_audio(tr("No audio could be decoded from the file"))
        if self._bad_packets > max(2, _DAMAGED_SHARE * self._packets):
            raise bad_audio(
                tr(
                    "The file is damaged: {bad_packets} of its {packets} packets could not "
                    "be decoded",
                    bad_packets=self._bad_packets,
                    packets=self._packets,
                )
            )
        missing = self.expected - self.seconds
        # A packet that could not be decoded is not audio that the file does not have, but the last one is
        # where a file breaks off.
        damaged = (self._bad_packets - self._bad_at_end) * self.seconds
        damaged /= max(1, self._packets - self._bad_packets)
        if self._kinds & _STATES_LENGTH and self.declared and missing > _SPARE + damaged:
            raise bad_audio(
                tr(
                    "The file is cut short: its header says {declared:.1f} s, {seconds:.1f} "
                    "s could be decoded",
                    declared=self.declared,
                    seconds=self.seconds,
                ),
                code="truncated_audio",
            )
        if self._cut_off or (self._broke_off and missing > max(0.5, 0.02 * self.seconds)):
            raise bad_audio(
                tr(
                    "The file is cut short: it breaks off after {seconds:.1f} s of audio",
                    seconds=self.seconds,
                ),
                code="truncated_audio",
            )


def _open(file: IO[bytes], source: AudioSource, said: Stated) -> tuple[Any, bool]:
    """The container, and whether it holds headerless samples."""
    if source.damaged:
        raise bad_audio(
            tr("The audio file is damaged or cut off in its header"), code="truncated_audio"
        )
    container = _demuxer(source.file.again())
    if said.raw is not None and not source.signed and not (container and _is_chain(container)):
        if container is not None:
            container.close()
        check_shape(said.raw.rate, said.raw.channels)
        return _raw_demuxer(FileView(file, 0, file.seek(0, 2)), said.raw), True
    if container is None:
        if said.needs_rate and not source.signed:
            raise InvalidRequestError(
                "Raw PCM has no header: give its sample_rate (and channels, "
                "sample_format where they are not 1 and s16le)",
                param="sample_rate",
            )
        raise bad_audio(
            tr("The file is not audio in a format that can be read, or is cut off in its header")
        )
    return (
        _demuxer(source.file.again()) if said.raw is not None and not source.signed else container
    ), False


def _demuxer(file: FileView, name: str | None = None, **options: str) -> Any | None:
    """The container that ffmpeg takes a file for, or None."""
    file.seek(0)
    try:
        return av.open(
            file,  # without a name: from one PyAV would guess the format
            format=name,
            container_options={
                "format_whitelist": CONTAINERS,
                "protocol_whitelist": "",
                **options,
            },
            metadata_errors="ignore",
            io_open=_refuse_to_open,
        )
    except (av.error.FFmpegError, OSError, ValueError):
        return None


def _raw_demuxer(file: FileView, raw: RawFormat) -> Any:
    container = _demuxer(
        file,
        raw.sample_format,
        format_whitelist=raw.sample_format,
        sample_rate=str(raw.rate),
        ch_layout=f"{raw.channels}C",
    )
    if container is None:
        raise bad_audio(tr("The samples cannot be read in this format"))
    return container


def _is_chain(container: Any) -> bool:
    """Whether a format without a signature (MP3, ADTS, AC-3 …) was recognized, and not made out of
    samples by chance: its frames follow one another from the file's beginning on."""
    packets = [packet for packet in islice(container.demux(), _PROBED_PACKETS) if packet.size]
    ends = [0, *(packet.pos + packet.size for packet in packets)]
    gaps = [packet.pos - end for packet, end in zip(packets, ends, strict=False)]
    return len(packets) > 1 and gaps[0] <= _LEADING_BYTES and not any(gaps[1:])


def _refuse_to_open(url: str, *_: object) -> None:
    raise PermissionError(tr("an upload may not open {url}", url=url))


def _stated_seconds(container: Any, stream: Any) -> float | None:
    if stream.duration is not None and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration is not None:
        return float(container.duration / av.time_base)
    return None


def _too_long(limits: EngineLimits) -> InvalidRequestError:
    return bad_audio(
        tr(
            "The audio is longer than {audio_seconds:.0f} s, the limit of this server",
            audio_seconds=limits.audio_seconds,
        ),
        code="audio_too_long",
    )
