"""Continuous integrate-and-fire, by which Paraformer finds its tokens in the frames, and their times.

Each frame adds its weight alpha; whenever the sum passes 1 a token is complete, and what is above 1
counts for the next ("CIF: Continuous Integrate-and-Fire for End-to-End Speech Recognition",
arXiv:1905.11235). FunASR's ``models/paraformer/cif_predictor.py`` and
``models/bicif_paraformer/cif_predictor.py`` sum in two ways, which round differently; both are here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

_FIRED = 1.0 - 1e-4
"""What a sum must reach where only times are wanted, as in FunASR."""
_SHIFT = -1.5
_EDGE_FRAMES = 5
_LONGEST_TOKEN = 12
"""Frames. These three are ``force_time_shift``, ``START_END_THRESHOLD`` and ``MAX_TOKEN_DURATION`` of
FunASR's ``ts_prediction_lfr6_standard``."""
FRAME_SECONDS = 0.06


@dataclass(frozen=True, slots=True)
class Fired:
    """Where tokens end: the numbers of their last frames, and what of each frame's alpha is the next
    token's."""

    frames: npt.NDArray[np.int64]
    rests: Array


def fire_at_once(alphas: Array) -> Fired:
    """By the running sum of all alphas in double precision (``CifPredictorV2``)."""
    sums = np.cumsum(alphas, dtype=np.float64).astype(np.float32)
    whole = np.floor(sums)
    frames = np.flatnonzero(np.diff(whole, prepend=np.float32(0)) > 0)
    return Fired(frames, (sums - whole)[frames])


def fire_step_by_step(alphas: Array) -> Fired:
    """By adding one alpha at a time in single precision (``CifPredictorV3``)."""
    frames, rests = [], []
    one, total = np.float32(1), np.float32(0)
    for n, alpha in enumerate(alphas):
        total += alpha
        if total >= one:
            total -= one
            frames.append(n)
            rests.append(total)
    return Fired(np.array(frames, np.int64), np.array(rests, np.float32))


def embeddings(hidden: Array, alphas: Array, fired: Fired) -> Array:
    """The frames of each token, weighted: [T, width] → [tokens, width]."""
    shares = np.zeros((len(fired.frames), len(alphas)), np.float32)
    start, carried = 0, np.float32(0)
    for row, end, rest in zip(shares, fired.frames, fired.rests, strict=True):
        row[start : end + 1] = alphas[start : end + 1]
        if start:
            row[start - 1] = carried
        row[end] -= rest
        start, carried = end + 1, rest
    found: Array = shares @ hidden[: len(alphas)]
    return found


def peaks(alphas: Array) -> Array:
    """The running sum at each frame, from which 1 is taken once it has passed it."""
    found = np.empty_like(alphas)
    total = np.float32(0)
    threshold = np.float32(_FIRED)
    for n, alpha in enumerate(alphas):
        total += alpha
        found[n] = total
        if total >= threshold:
            total -= threshold
    return found


def token_times(
    alphas: Array, sums: Array, tokens: int, frame_seconds: float
) -> list[tuple[float, float]]:
    """Begin and end of each of ``tokens`` tokens, in seconds, by ``alphas`` and their ``peaks``.

    FunASR's ``ts_prediction_lfr6_standard``: a token lasts from its peak to the next one's, but at most
    12 frames. Where there is not one peak more than tokens, the alphas are scaled until there is.
    """
    if not tokens or not len(alphas):
        return []
    fired = np.flatnonzero(sums >= np.float32(_FIRED)) + _SHIFT
    if len(fired) != tokens + 1:
        scaled = alphas / (alphas.sum() / np.float32(tokens + 1))
        sums = peaks(scaled)
        fired = np.flatnonzero(sums >= np.float32(_FIRED)) + _SHIFT
    count = len(sums)
    times = [
        (begin * frame_seconds, min(end, begin + _LONGEST_TOKEN) * frame_seconds)
        for begin, end in pairwise(fired)
    ][:tokens]
    if not times:
        return []
    # A silence after the last token takes half of the frames that are left.
    last = count if count - fired[-1] <= _EDGE_FRAMES else (count + fired[-1]) * 0.5
    if fired[-1] - fired[-2] <= _LONGEST_TOKEN:
        times[-1] = (times[-1][0], last * frame_seconds)
    return times


def milliseconds(times: Sequence[tuple[float, float]]) -> list[tuple[int, int]]:
    """Times in whole milliseconds, as FunASR cuts them."""
    return [(int(begin * 1000), int(end * 1000)) for begin, end in times]
