"""Log-mel filter bank, frame stacking and mean/variance normalisation, as Kaldi and FunASR
compute them, in numpy.

The arguments are those of FunASR's ``WavFrontend``: samples scaled by 32768, frames of 25 ms
each 10 ms (only whole frames, Kaldi's ``snip_edges``), DC removed, pre-emphasis 0.97, Hamming
window, power spectrum, 80 mel bins from 20 Hz to 8 kHz, natural logarithm. Dither is 0: the
same samples always give the same features. One filter bank serves the VAD and the model.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from yibu.errors import VerificationError
from yibu.messages import joined, tr
from yibu.speech.types import SAMPLE_RATE, Features, Samples

FRAME_LENGTH = 400
"""Samples in a frame (25 ms)."""
FRAME_SHIFT = 160
"""Samples from a frame to the next (10 ms)."""
MEL_BINS = 80

_FFT_SIZE = 512
_PRE_EMPHASIS = 0.97
_LOWEST_HZ = 20.0
_LOG_FLOOR = np.float32(np.finfo(np.float32).eps)
_BLOCK = 256
"""Frames computed at a time: what they need, 2 MB, stays in the cache."""


def frame_count(samples: int) -> int:
    """The number of whole frames in ``samples`` samples."""
    return 0 if samples < FRAME_LENGTH else 1 + (samples - FRAME_LENGTH) // FRAME_SHIFT


def fbank(
    samples: Samples, *, window: Literal["hamming", "povey"] = "hamming", scale: float = 32768.0
) -> Features:
    """Log-mel filter bank of ``samples`` [n] in [-1, 1]: float32 [frame_count(n), 80].

    ``window`` and ``scale`` are those of ``WavFrontend``; CAM++ takes Kaldi's own instead.
    """
    frames = frame_count(len(samples))
    out = np.empty((frames, MEL_BINS), dtype=np.float32)
    if frames == 0:
        return out
    shape, mel = _tables(window)
    every = np.lib.stride_tricks.sliding_window_view(samples, FRAME_LENGTH)[::FRAME_SHIFT]
    for start in range(0, frames, _BLOCK):
        block = every[start : start + _BLOCK] * np.float32(scale)
        block -= block.mean(axis=1, keepdims=True)
        emphasised = np.zeros((len(block), _FFT_SIZE), dtype=np.float32)
        emphasised[:, 1:FRAME_LENGTH] = block[:, 1:] - np.float32(_PRE_EMPHASIS) * block[:, :-1]
        emphasised[:, 0] = block[:, 0] * np.float32(1 - _PRE_EMPHASIS)
        emphasised[:, :FRAME_LENGTH] *= shape
        spectrum = np.fft.rfft(emphasised, axis=1)[:, : _FFT_SIZE // 2]
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        energies = power @ mel
        np.log(np.maximum(energies, _LOG_FLOOR), out=out[start : start + len(block)])
    return out


@cache
def _tables(window: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The window [400], and Kaldi's triangular mel weights [256, 80]."""
    wave = np.cos(2 * np.pi * np.arange(FRAME_LENGTH) / (FRAME_LENGTH - 1))
    shape = 0.54 - 0.46 * wave if window == "hamming" else (0.5 - 0.5 * wave) ** 0.85

    def mel_scale(hertz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return 1127.0 * np.log1p(hertz / 700.0)

    lowest, highest = mel_scale(np.array([_LOWEST_HZ, SAMPLE_RATE / 2], dtype=np.float64))
    edges = lowest + np.arange(MEL_BINS + 2) * ((highest - lowest) / (MEL_BINS + 1))
    hertz = np.arange(_FFT_SIZE // 2, dtype=np.float64) * (SAMPLE_RATE / _FFT_SIZE)
    bins = mel_scale(hertz)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    weights = np.clip(np.minimum(rising, falling), 0.0, None)
    return shape.astype(np.float32), weights.astype(np.float32)


def stack_frames(features: Features, width: int, step: int) -> Features:
    """Low-frame-rate stacking: ``width`` neighbouring frames side by side, every ``step``.

    float32 [T, 80] → [ceil(T / step), width * 80]. The first frame stands in for those before
    it and the last for those after, as in FunASR's ``apply_lfr``.
    """
    frames = len(features)
    centres = np.arange(-(-frames // step)) * step
    index = centres[:, None] + np.arange(width) - (width - 1) // 2
    stacked: Features = features[np.clip(index, 0, max(frames - 1, 0))]
    return stacked.reshape(len(centres), width * MEL_BINS)


class Normalizer:
    """Adds a shift and multiplies by a scale, per feature: the contents of an ``am.mvn``."""

    def __init__(self, shift: npt.NDArray[np.float32], scale: npt.NDArray[np.float32]) -> None:
        self.shift = shift
        self.scale = scale

    @property
    def size(self) -> int:
        """Features in a frame."""
        return len(self.shift)

    def __call__(self, features: Features) -> Features:
        """float32 [T, size] → the same shape."""
        return (features + self.shift) * self.scale

    @classmethod
    def read(cls, path: Path, size: int) -> Normalizer:
        """Read Kaldi's text ``am.mvn`` with ``size`` features a frame.

        Raises ``VerificationError`` where it is missing or holds something else.
        """
        rows: dict[str, npt.NDArray[np.float32]] = {}
        try:
            words = path.read_text("utf-8").split()
            for tag in ("<AddShift>", "<Rescale>"):
                first = words.index("[", words.index(tag)) + 1
                rows[tag] = np.array(words[first : words.index("]", first)], dtype=np.float32)
        except (OSError, ValueError) as error:
            raise VerificationError(
                "{path}: not a readable am.mvn: {error}",
                path=path,
                error=error,
                hint="Download the model again; the file is small and belongs to the model",
            ) from error
        if any(len(row) != size for row in rows.values()):
            found = joined(
                ", ",
                (
                    tr("{tag} has {row_count} values", tag=tag, row_count=len(row))
                    for tag, row in rows.items()
                ),
            )
            raise VerificationError(
                "{path}: {found}; {size} expected",
                path=path,
                found=found,
                size=size,
                hint="This am.mvn belongs to another model: take the one next to model.pt",
            )
        return cls(rows["<AddShift>"], rows["<Rescale>"])
