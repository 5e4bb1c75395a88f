"""A client's bytes to 16 kHz mono samples, seamlessly, as they come.

Raw samples (PCM, G.711) are resampled by a resampler that lives as long as the stream. Files that
are still being recorded (Opus in WebM or Ogg, as browsers record) are demuxed and decoded by ffmpeg's
libraries, which ask for bytes themselves: a thread of their own runs until it needs more than there
are, and only while ``feed`` waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import suppress
from functools import cache
from typing import Any, Protocol

import av
import av.error
import numpy as np
import numpy.typing as npt

from yibu.errors import InvalidRequestError
from yibu.messages import tr
from yibu.speech.audio.mixing import FrameMixer
from yibu.speech.audio.tracks import settle_layout
from yibu.speech.types import SAMPLE_RATE, Samples

log = logging.getLogger(__name__)

RATES = range(8_000, 48_001)
LAWS = {"mulaw": "pcm_mulaw", "alaw": "pcm_alaw"}
CONTAINERS = frozenset(
    {"webm", "ogg", "opus", "wav", "flac", "mp3", "aac", "mp4", "m4a", "matroska", "others"}
)

_BARREN_BYTES = 512 * 1024
"""Bytes of a container without a sample (covers and such) before it is refused."""
_PROBE = {"probesize": "4096", "analyzeduration": "0", "ignore_length": "1"}
_DEMUXERS = "aac,flac,matroska,mov,mp3,ogg,wav,webm"

_AT_ONCE = 16 * 1024
"""Bytes of raw samples that are decoded in a fraction of a millisecond."""

_NONE: Samples = np.empty(0, np.float32)


class Intake(Protocol):
    """One stream's decoder. Used by one thread at a time."""

    def feed(self, data: bytes) -> Samples:
        """Take the next bytes, cut anywhere; return what samples they give.

        Raises:
            InvalidRequestError: they are no such audio.
        """
        ...

    def finish(self) -> Samples:
        """No more bytes: return the last samples. The intake is closed."""
        ...

    def close(self) -> None:
        """Free all resources."""
        ...


class RawIntake:
    """Headerless mono samples: 16-bit little-endian, or G.711."""

    def __init__(self, sample_format: str, rate: int) -> None:
        """Raises InvalidRequestError for a rate outside ``RATES``."""
        if rate not in RATES:
            raise InvalidRequestError(
                "The sample rate is {rate} Hz; {start} to {stop} are taken",
                rate=rate,
                start=RATES.start,
                stop=RATES.stop - 1,
                param="rate",
            )
        self._table = _table(LAWS[sample_format]) if sample_format in LAWS else None
        self._rate = rate
        self._resampler = None if rate == SAMPLE_RATE else _resampler()
        self._odd = b""
        """Half of a sample."""

    def feed(self, data: bytes) -> Samples:
        if self._table is not None:
            return self._resampled(self._table[np.frombuffer(data, np.uint8)])
        data = self._odd + data
        self._odd = data[len(data) & ~1 :]
        return self._resampled(np.frombuffer(data, "<i2", len(data) // 2))

    def finish(self) -> Samples:
        if self._resampler is None:
            return _NONE
        return _joined(self._resampler.resample(None))

    def close(self) -> None:
        self._resampler = None

    def _resampled(self, samples: npt.NDArray[np.int16]) -> Samples:
        if not len(samples):
            return _NONE
        if self._rate == SAMPLE_RATE:
            return samples.astype(np.float32) / np.float32(32768)
        assert self._resampler is not None
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples, np.int16)[None], "s16", "mono"
        )
        frame.sample_rate = self._rate
        return _joined(self._resampler.resample(frame))


class ContainerIntake:
    """A file that arrives bit by bit."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._decoding = True
        """Whether it is the decoder's turn: it runs until it needs bytes that have not come."""
        self._bytes = bytearray()
        self._barren = 0
        self._ended = False
        """Whether no more bytes come."""
        self._over = False
        """Whether the decoder has finished or failed; its thread may run a moment longer."""
        self._samples: list[Samples] = []
        self._fault: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="live-container", daemon=True)
        self._thread.start()

    def feed(self, data: bytes) -> Samples:
        with self._turn:
            self._bytes += data
        samples = self._let_decode()
        self._barren = 0 if len(samples) else self._barren + len(data)
        if self._barren > _BARREN_BYTES:
            raise _no_audio(tr("no sample is in {barren} bytes", barren=self._barren))
        return samples

    def finish(self) -> Samples:
        with self._turn:
            self._ended = True
        samples = self._let_decode()
        self._thread.join()
        return samples

    def close(self) -> None:
        with self._turn:
            self._ended = True
            self._bytes.clear()
            self._decoding = True
            self._turn.notify_all()

    def _let_decode(self) -> Samples:
        with self._turn:
            self._decoding = True
            self._turn.notify_all()
            self._turn.wait_for(lambda: not self._decoding or self._over)
            samples, self._samples = self._samples, []
            if self._fault is not None:
                raise _no_audio(str(self._fault)) from self._fault
        return np.concatenate(samples) if samples else _NONE

    # On the decoder's thread ----------------------------------------------------------------

    def read(self, size: int) -> bytes:
        """Called by ffmpeg for more bytes."""
        with self._turn:
            while not self._bytes and not self._ended:
                self._decoding = False
                self._turn.notify_all()
                self._turn.wait_for(lambda: self._decoding)
            data = bytes(self._bytes[:size])
            del self._bytes[:size]
            return data

    def _run(self) -> None:
        try:
            for samples in self._decode():
                with self._turn:
                    self._samples.append(samples)
        except Exception as error:  # hostile bytes: the client gets an error, the log the rest
            log.exception("decoding a live stream failed")
            self._fault = error
        with self._turn:
            self._over = True
            self._turn.notify_all()

    def _decode(self) -> Iterator[Samples]:
        options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "", **_PROBE}
        with av.open(self, options=options) as container:
            if not container.streams.audio:
                raise ValueError("no audio is in it")
            stream = container.streams.audio[0]
            settle_layout(stream)
            mixer = FrameMixer(at_once=True)
            for packet in container.demux(stream):
                with suppress(av.error.InvalidDataError):  # a damaged packet is left out
                    for frame in packet.decode():
                        yield from mixer.feed(frame)
            yield from mixer.finish()


def open_intake(sample_format: str, rate: int) -> Intake:
    """``sample_format`` is ``s16le``, one of ``LAWS`` or one of ``CONTAINERS``.

    Raises:
        InvalidRequestError: it is none of them, or the rate is not taken.
    """
    if sample_format in CONTAINERS:
        return ContainerIntake()
    return RawIntake(sample_format, rate)


async def decoded(intake: Intake, data: bytes | None, pool: Executor) -> Samples:
    """What ``intake`` makes of the next bytes, or at its end of None. Computed on ``pool`` unless it takes
    less than handing it over."""
    if data is None:
        return await asyncio.get_running_loop().run_in_executor(pool, intake.finish)
    if isinstance(intake, RawIntake) and len(data) <= _AT_ONCE:
        return intake.feed(data)
    return await asyncio.get_running_loop().run_in_executor(pool, intake.feed, data)


def _resampler() -> Any:
    return av.AudioResampler("flt", "mono", SAMPLE_RATE)


def _joined(frames: Any) -> Samples:
    pieces = [np.ascontiguousarray(frame.to_ndarray()[0], np.float32) for frame in frames]
    return np.concatenate(pieces) if pieces else _NONE


@cache
def _table(codec: str) -> npt.NDArray[np.int16]:
    """The samples of a G.711 code's 256 bytes, by ffmpeg's decoder."""
    decoder: Any = av.CodecContext.create(codec, "r")
    decoder.sample_rate = 8_000
    decoder.layout = "mono"
    frames = decoder.decode(av.Packet(bytes(range(256))))
    table: npt.NDArray[np.int16] = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    return table


def _no_audio(why: str) -> InvalidRequestError:
    return InvalidRequestError(
        "The audio cannot be decoded: {why}", why=why, param="audio", code="invalid_audio"
    )
