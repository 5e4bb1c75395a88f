"""Who speaks when, from a vector each 0.75 s: what FunASR's ``models/campplus/cluster_backend.py`` and
``utils.py`` do, without scipy and scikit-learn.

Spectral clustering of the vectors by the angle between them; the number of speakers is where the
eigenvalues of the graph's Laplacian leap; speakers whose mean vectors are close are joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from yibu.speech.types import Recognized, Voice, Word
from yibu.speech.words import behind

SENTENCE_ENDS = frozenset("，。？！、；,.?!;")

FEWEST = 20
"""Vectors (15 s) below which one speaker is assumed, as in FunASR."""
_MOST = 2048
"""Vectors that are clustered; of a longer recording neighbours are averaged. (FunASR goes over to UMAP
and HDBSCAN there.)"""
MOST_SPEAKERS = 15
_PRUNED = 0.022
_LEAST_NEIGHBOURS = 6
SAME = 0.78
"""Cosine from which two speakers are one."""
_SHORTEST = 0.7
"""Seconds; less is given to a neighbour."""
_TRIALS, _ROUNDS = 10, 300

Vectors = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(slots=True)
class Turn:
    """From ``start`` to ``end`` seconds one speaker is heard."""

    start: float
    end: float
    speaker: int


def turns(voices: Sequence[Voice]) -> list[Turn]:
    """Who speaks when; speakers are numbered as they come."""
    if not voices:
        return []
    return smoothed(voices, in_order(clustered(np.stack([voice.vector for voice in voices]))))


def in_order(labels: Labels) -> Labels:
    """``labels`` numbered by their first appearance."""
    _, first, numbers = np.unique(labels, return_index=True, return_inverse=True)
    ordered: Labels = np.argsort(np.argsort(first))[numbers.reshape(-1)]
    return ordered


def speaker_of(start: float, end: float, heard: Sequence[Turn]) -> int:
    """The speaker of what was said from ``start`` to ``end``: FunASR's ``distribute_spk``."""
    speaker, most = 0, 0.0
    for turn in heard:
        overlap = max(min(end, turn.end) - max(start, turn.start), 0.0)
        if overlap > most:
            speaker, most = turn.speaker, overlap
        if overlap > 0 and turn.speaker == speaker:
            most += overlap
    return speaker


def smoothed(voices: Sequence[Voice], speakers: Labels) -> list[Turn]:
    """Neighbouring windows of a speaker joined, overlaps halved, short turns given away."""
    found = _joined(
        Turn(voice.start, voice.end, int(speaker))
        for voice, speaker in zip(voices, speakers, strict=True)
    )
    for before, after in pairwise(found):
        if before.end > after.start + 1e-4:
            before.end = after.start = (after.start + before.end) / 2
    if len(found) < 2:
        return found
    for n, turn in enumerate(found):
        turn.start, turn.end = round(turn.start, 2), round(turn.end, 2)
        if turn.end - turn.start >= _SHORTEST:
            continue
        if n == 0:
            turn.speaker = found[1].speaker
        elif n == len(found) - 1 or (
            turn.start - found[n - 1].end <= found[n + 1].start - turn.end
        ):
            turn.speaker = found[n - 1].speaker
        else:
            turn.speaker = found[n + 1].speaker
    return _joined(found)


def _joined(found: Any) -> list[Turn]:
    joined: list[Turn] = []
    for turn in found:
        last = joined[-1] if joined else None
        if last is None or turn.speaker != last.speaker or turn.start > last.end:
            joined.append(turn)
        else:
            last.end = turn.end
    return joined


def clustered(vectors: Vectors) -> Labels:
    """A speaker's number for each vector [N, size]."""
    count = len(vectors)
    if count < FEWEST:
        return np.zeros(count, np.int64)
    share = -(-count // _MOST)
    starts = np.arange(0, count, share)
    sums = np.add.reduceat(vectors, starts)
    sizes = np.diff(np.append(starts, count))[:, None]
    means: Vectors = (sums / sizes).astype(np.float32)
    labels = np.repeat(_spectral(means), share)[:count]
    return _merged(labels, vectors)


def _spectral(vectors: Vectors) -> Labels:
    normal = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    near = normal @ normal.T
    count = len(near)
    share = max(_PRUNED, _LEAST_NEIGHBOURS / count)
    far = np.argsort(near, axis=1)[:, : int((1 - share) * count)]
    np.put_along_axis(near, far, 0, axis=1)
    near = 0.5 * (near + near.T)
    np.fill_diagonal(near, 0)
    laplacian = np.diag(np.abs(near).sum(axis=1)) - near
    values, eigenvectors = np.linalg.eigh(laplacian)
    speakers = int(np.argmax(np.diff(values[: MOST_SPEAKERS + 1]))) + 1
    return _k_means(eigenvectors[:, :speakers], speakers)


def _k_means(points: Vectors, count: int) -> Labels:
    """The best of several trials of Lloyd's algorithm from k-means++'s beginnings."""
    best: tuple[float, Labels] | None = None
    for trial in range(_TRIALS if count > 1 else 1):
        centres = _beginnings(points, count, np.random.default_rng(trial))
        labels = np.zeros(len(points), np.int64)
        for round_ in range(_ROUNDS):
            distances = _distances(points, centres)
            nearest = distances.argmin(axis=1)
            if round_ and (nearest == labels).all():
                break
            labels = nearest
            for n in range(count):
                if (labels == n).any():
                    centres[n] = points[labels == n].mean(axis=0)
        spread = float(_distances(points, centres).min(axis=1).sum())
        if best is None or spread < best[0]:
            best = (spread, labels)
    assert best is not None
    return best[1]


def _beginnings(points: Vectors, count: int, rng: np.random.Generator) -> Vectors:
    chosen = [points[int(rng.integers(len(points)))]]
    while len(chosen) < count:
        weights = _distances(points, np.stack(chosen)).min(axis=1)
        total = float(weights.sum())
        shares = weights / total if total > 0 else None
        chosen.append(points[int(rng.choice(len(points), p=shares))])
    return np.stack(chosen).copy()


def _distances(points: Vectors, centres: Vectors) -> Vectors:
    """Squared, [points, centres]; in double precision, so that shares of them sum to 1."""
    gaps = points[:, None, :].astype(np.float64) - centres[None]
    found: Vectors = np.square(gaps).sum(axis=2)
    return found


def _merged(labels: Labels, vectors: Vectors) -> Labels:
    """Speakers whose mean vectors point the same way made one, the closest first."""
    labels = np.unique(labels, return_inverse=True)[1].reshape(-1)
    while (count := int(labels.max()) + 1) > 1:
        means = np.stack([vectors[labels == n].mean(axis=0) for n in range(count)])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        near = np.triu(means @ means.T, 1)
        first, second = np.unravel_index(int(near.argmax()), near.shape)
        if near[first, second] < SAME:
            break
        labels[labels == second] = first
        labels[labels > second] -= 1
    return labels


def by_speaker(results: Sequence[Recognized], heard: Sequence[Turn]) -> list[Recognized]:
    """``results`` with their speakers, cut at a mark where the speaker changes."""
    found: list[Recognized] = []
    for result in results:
        sentences = _sentences(result)
        speakers = [speaker_of(part.start, part.end, heard) for part in sentences]
        found += _divided_by_speaker(replace(result, voices=()), sentences, speakers)
    return found


@dataclass(frozen=True, slots=True)
class _Sentence:
    start: float
    end: float
    words: tuple[Word, ...]


def _sentences(result: Recognized) -> list[_Sentence]:
    """The words up to each mark; the whole segment where it has no words with times."""
    found: list[_Sentence] = []
    current: list[Word] = []
    for word in result.words:
        current.append(word)
        if word.text[-1:] in SENTENCE_ENDS:
            found.append(_Sentence(current[0].start, word.end, tuple(current)))
            current = []
    if current:
        found.append(_Sentence(current[0].start, current[-1].end, tuple(current)))
    return found or [_Sentence(result.start, result.end, ())]


def _divided_by_speaker(
    result: Recognized, sentences: Sequence[_Sentence], speakers: Sequence[int]
) -> list[Recognized]:
    if len(set(speakers)) == 1:
        return [replace(result, speaker=name_of(speakers[0]))]
    parts: list[tuple[int, list[Word]]] = []
    for sentence, speaker in zip(sentences, speakers, strict=True):
        if not parts or parts[-1][0] != speaker:
            parts.append((speaker, []))
        parts[-1][1].extend(sentence.words)
    found: list[Recognized] = []
    at = 0
    for n, (speaker, words) in enumerate(parts):
        end = behind(result.text, at, words) if n + 1 < len(parts) else len(result.text)
        text, at = result.text[at:end].strip(), end
        found.append(
            replace(
                result, text=text, words=tuple(words), start=words[0].start, end=words[-1].end,
                speaker=name_of(speaker), raw=text, tokens=result.tokens if n == 0 else (),
            )
        )  # fmt: skip
    return found


def name_of(speaker: int) -> str:
    """A, B, …, Z, AA, AB, …"""
    letter = chr(ord("A") + speaker % 26)
    return letter if speaker < 26 else name_of(speaker // 26 - 1) + letter


def number_of(name: str) -> int:
    """The speaker's number, from 0."""
    number = 0
    for letter in name:
        number = 26 * number + ord(letter) - ord("A") + 1
    return number - 1
