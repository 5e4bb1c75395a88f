"""Where sound begins in a stretch of audio, by its energy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from yibu.speech.types import SAMPLE_RATE, Samples

_HOP = SAMPLE_RATE // 100
_LOUD, _OVER_NOISE = 0.05, 3.0
"""A frame of 10 ms sounds with this share of a loud one's amplitude, and so much over the noise."""
_SHORTEST = 0.05
"""Seconds that are left of a word."""


class Onsets:
    """Which hundredths of a second of some samples are not quiet."""

    def __init__(self, samples: Samples) -> None:
        whole = samples[: len(samples) // _HOP * _HOP].reshape(-1, _HOP)
        level = np.sqrt(np.einsum("fn,fn->f", whole, whole) / _HOP)
        quiet, loud = np.percentile(level, (10, 95)) if len(level) else (0.0, 0.0)
        self._sounds: npt.NDArray[np.intp] = np.flatnonzero(
            level > max(_LOUD * loud, min(_OVER_NOISE * quiet, loud / 2))
        )

    def after(self, start: float, end: float) -> float:
        """When the first sound from ``start`` on begins, in seconds: no later than just before
        ``end``, and ``start`` where nothing sounds."""
        index = np.searchsorted(self._sounds, int(start * 100))
        if index == len(self._sounds):
            return start
        found = float(self._sounds[index]) / 100
        return max(start, min(found, end - _SHORTEST))
