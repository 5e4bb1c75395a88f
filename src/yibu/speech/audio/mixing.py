"""Resampling and mixing of frames to 16 kHz mono."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt

from yibu.messages import tr
from yibu.speech.audio.faults import bad_audio
from yibu.speech.types import SAMPLE_RATE, Samples

OPPOSITE = tr(
    "The two channels are opposite in phase and would cancel each other out; the louder one "
    "was used"
)

_RATES = range(2_000, 768_001)
_CHANNELS = range(1, 65)
_WINDOW = SAMPLE_RATE // 2
"""Samples over which two channels are compared."""
_CANCELLED, _MIXED = 0.25, 0.5
"""Power of the mean of two channels over that which unrelated ones have: below the first they cancel each
other out, above the second they no longer do."""
_TOGETHER = 16_384
"""Samples resampled at once."""
_AUDIBLE = 1e-9
"""Power below which nothing is compared (-90 dB)."""


class FrameMixer:
    """Resamples frames of any formats. A resampler takes one format; a chained stream may change it."""

    def __init__(self, *, at_once: bool = False) -> None:
        """``at_once``: samples are not held back, as a file's are to compute and to compare many."""
        self.opposite = False
        """Whether the channels were of opposite phase anywhere."""
        self._at_once = at_once
        self._mono: Mono | None = None
        self._format: tuple[object, ...] | None = None

    def feed(self, frame: Any) -> Iterator[Samples]:
        """Raises InvalidRequestError for a rate or channels that are not read."""
        found = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._mono is None or found != self._format:
            yield from self.finish()
            check_shape(frame.sample_rate, frame.layout.nb_channels)
            self._mono, self._format = Mono(frame.layout.nb_channels, at_once=self._at_once), found
        frame.pts = None  # the resampler knows nothing of time
        yield from self._mono.feed(frame)

    def finish(self) -> Iterator[Samples]:
        """The remaining samples; later frames begin anew."""
        mono, self._mono = self._mono, None
        if mono is not None:
            yield from mono.feed(None)
            self.opposite = self.opposite or mono.opposite


def check_shape(rate: int, channels: int) -> None:
    if rate not in _RATES:
        raise bad_audio(
            tr(
                "The audio's sample rate is {rate} Hz; {start} to {stop} is read",
                rate=rate,
                start=_RATES.start,
                stop=_RATES.stop - 1,
            )
        )
    if channels not in _CHANNELS:
        raise bad_audio(
            tr(
                "The audio has {channels} channels; 1 to {stop} are read",
                channels=channels,
                stop=_CHANNELS.stop - 1,
            )
        )


class Mono:
    """Resamples, and takes the mean of the channels, or of two that are opposite the louder one."""

    def __init__(self, channels: int, *, at_once: bool) -> None:
        self._stereo = _Stereo(at_once=at_once) if channels == 2 else None
        # Without it what is mixed is not divided: two equal channels are 1.4 times as loud as one.
        options = {"rematrix_maxval": "1.0"} if channels > 2 else None
        layout = "stereo" if channels == 2 else "mono"
        self._resampler = av.AudioResampler("flt", layout, SAMPLE_RATE, options=options)
        self._fed = False
        self._frames = av.AudioFifo() if channels <= 8 and not at_once else None

    @property
    def opposite(self) -> bool:
        """Whether the channels were of opposite phase anywhere."""
        return self._stereo is not None and self._stereo.opposite

    def feed(self, frame: Any) -> Iterator[Samples]:
        """The samples of the frames so far; None returns the remaining ones."""
        for frames in self._together(frame):
            try:
                pieces = self._resample(frames)
            except (av.error.FFmpegError, ValueError) as error:
                raise bad_audio(tr("The audio's channels cannot be mixed down to one")) from error
            for piece in pieces:
                # Not a plane a channel: PyAV crashes where there are more than eight.
                channels = piece.layout.nb_channels
                samples = np.asarray(piece.to_ndarray()[0], np.float32).reshape(-1, channels)
                if channels == 2 and self._stereo is not None:
                    yield from self._stereo.feed(samples.T)
                else:
                    yield samples[:, 0] if channels == 1 else samples.mean(axis=1)
        if frame is None and self._stereo is not None:
            yield from self._stereo.finish()

    def _together(self, frame: Any) -> Iterator[Any]:
        """Many frames joined into one, because each call costs more than the computing."""
        if self._frames is None:
            yield frame
            return
        if frame is not None:
            self._frames.write(frame)
        if self._frames.samples >= _TOGETHER or (frame is None and self._frames.samples):
            yield self._frames.read(0, partial=True)
        if frame is None:
            yield None

    def _resample(self, frame: Any) -> Any:
        try:
            return self._resampler.resample(frame)
        except (av.error.FFmpegError, ValueError):
            if self._fed or frame is None:
                raise
        finally:
            self._fed = True
        # libswresample mixes the layouts that have a name; of other channels the mean is taken.
        self._resampler = av.AudioResampler("flt", frame.layout, SAMPLE_RATE)
        return self._resampler.resample(frame)


class _Stereo:
    """Two channels, compared window by window, so that the result does not depend on the frames. With
    ``at_once`` a window says how the next one is mixed."""

    def __init__(self, *, at_once: bool) -> None:
        self.opposite = False
        self._at_once = at_once
        self._cancel = False
        self._power = np.zeros(2)
        self._pieces: list[npt.NDArray[np.float32]] = []
        self._held = 0

    def feed(self, samples: npt.NDArray[np.float32]) -> Iterator[Samples]:
        if self._at_once:
            yield self._mixed(samples)
        self._pieces.append(samples)
        self._held += samples.shape[1]
        if self._held < _WINDOW:
            return
        held = np.concatenate(self._pieces, axis=1)
        whole = self._held // _WINDOW * _WINDOW
        for start in range(0, whole, _WINDOW):
            yield from self._compared(held[:, start : start + _WINDOW])
        self._pieces = [held[:, whole:]]
        self._held -= whole

    def finish(self) -> Iterator[Samples]:
        if self._held:
            yield from self._compared(np.concatenate(self._pieces, axis=1))
        self._pieces, self._held = [], 0

    def _compared(self, window: npt.NDArray[np.float32]) -> Iterator[Samples]:
        power = np.einsum("cn,cn->c", window, window) / window.shape[1]
        if power.sum() > _AUDIBLE:
            mean = (window[0] + window[1]) * np.float32(0.5)
            share = float(mean @ mean) / mean.size / (power.sum() / 4)
            self._cancel = share < (_MIXED if self._cancel else _CANCELLED)
        if self._cancel:
            self.opposite = True
            self._power += power
        if not self._at_once:
            yield self._mixed(window)

    def _mixed(self, samples: npt.NDArray[np.float32]) -> Samples:
        if self._cancel:
            return np.ascontiguousarray(samples[int(self._power[1] > self._power[0])])
        mean: Samples = (samples[0] + samples[1]) * np.float32(0.5)
        return mean
