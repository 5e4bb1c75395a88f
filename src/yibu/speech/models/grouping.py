"""Which segments go through the network together, and their layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from yibu.speech.types import Features

Classes = npt.NDArray[np.int64]
Item = TypeVar("Item")
Result = TypeVar("Result")

QUERIES = 4
"""Inputs before the first frame: language, event, emotion, text norm."""
_EVENT_QUERY, _EMOTION_QUERY = 1, 2
_GROUP_FRAMES = 256
"""Frames in the network at a time: enough for full speed. An item may have more by itself: 30 s
of audio are 500."""
_ALONE = 128
"""Frames from which on an item alone reaches full speed, so that padding would only cost."""
_PADDING = 16
"""Shorter items are padded by at most a sixteenth of their length."""


def in_groups(
    compute: Callable[[list[Item]], Sequence[Result]],
    items: Sequence[Item],
    length: Callable[[Item], int] = len,  # type: ignore[assignment]
    *,
    alone: bool = False,
) -> list[Result]:
    """Call ``compute`` on items of one padded ``length`` at a time; results in order.

    With ``alone`` each item goes by itself, for networks that look at the whole batch.
    """
    results: dict[int, Result] = {}
    for group in [[n] for n in range(len(items))] if alone else groups([*map(length, items)]):
        results |= zip(group, compute([items[n] for n in group]), strict=True)
    return [results[n] for n in range(len(items))]


def padded_length(frames: int) -> int:
    """What an item of ``frames`` output frames is padded to: a function of its own length.

    The engine's results are the same to the last bit for every number of items in a batch,
    but not for every width: sums over padding are grouped otherwise. So an item always has
    the same width, and its text cannot depend on its neighbours.
    """
    step = max(1, frames // _PADDING) if frames <= _ALONE else 1
    return -(-frames // step) * step


def groups(lengths: Sequence[int]) -> list[list[int]]:
    """Which items [n] go through the network together: those of one padded length."""
    members: dict[int, list[int]] = {}
    for n, length in enumerate(lengths):
        members.setdefault(padded_length(length), []).append(n)
    found = []
    for width, items in sorted(members.items()):
        size = max(1, _GROUP_FRAMES // width)
        found += [items[at : at + size] for at in range(0, len(items), size)]
    return found


def with_queries(
    features: Sequence[Features],
    languages: Sequence[int],
    styles: Sequence[int],
    queries: npt.NDArray[np.float32],
) -> list[Features]:
    """Each item's frames with SenseVoice's four queries before them; ``queries`` are the rows of
    the query embedding."""
    return [
        np.concatenate(
            (queries[[language, _EVENT_QUERY, _EMOTION_QUERY, style]], own), dtype=np.float32
        )
        for own, language, style in zip(features, languages, styles, strict=True)
    ]


def encoder_input(
    features: Sequence[Features], width: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """A SANM encoder's input [B, T, inputs], scaled and with positions, and its mask [B, T]; the
    encoder is ``width`` wide."""
    lengths = np.array([len(item) for item in features])
    frames = np.zeros(
        (len(features), padded_length(int(lengths.max())), features[0].shape[1]), np.float32
    )
    for row, own in zip(frames, features, strict=True):
        row[: len(own)] = own
    frames *= np.float32(width**0.5)
    frames += positions(frames.shape[1], frames.shape[2])
    mask = (np.arange(frames.shape[1]) < lengths[:, None]).astype(np.float32)
    return frames, mask


def positions(frames: int, width: int, *, start: int = 0) -> npt.NDArray[np.float32]:
    """Sinusoidal positions from ``start`` + 1, sines before cosines: FunASR's encoding. [frames, width]"""
    half = width // 2
    step = np.log(np.float32(10000)) / np.float32(half - 1)
    rates = np.exp(np.arange(half, dtype=np.float32) * -step)
    angles = np.arange(start + 1, start + frames + 1, dtype=np.float32)[:, None] * rates
    return np.concatenate((np.sin(angles), np.cos(angles)), axis=1)
