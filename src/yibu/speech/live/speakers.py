"""Speakers in a live session: each finished utterance gets its speakers at once, and keeps them.

Fewer than 15 s of speech are too few to cluster: an utterance is its nearest speaker's, or a new one's where
none is near. From then on everything that is kept is clustered again with each utterance, as a recording
is, and each cluster gets the number that most of it had before. So a speaker's number stays; a
mistake of the first seconds is not repeated; two speakers that turn out to be one go on under one number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from yibu.speech.models.speakers import (
    FEWEST,
    MOST_SPEAKERS,
    SAME,
    Labels,
    Vectors,
    by_speaker,
    clustered,
    smoothed,
)
from yibu.speech.types import Recognized

_KEPT = 256
"""Vectors at most: beyond, each two of a speaker's are averaged. Clustering them takes some 10 ms."""
_NEAR = 0.4
"""Cosine between an utterance and a speaker below which somebody else speaks, while there is too little to
cluster. CAM++'s verification threshold is 0.31 for whole recordings; short utterances vary more."""


class LiveSpeakers:
    """The speakers of one session. Its memory does not grow with the session; called by one thread at a
    time."""

    def __init__(self) -> None:
        self._vectors: Vectors | None = None
        self._numbers: Labels = np.empty(0, np.int64)
        """Speaker number of each kept vector."""
        self._centres: list[Vectors] = []
        """The mean vector of each speaker, as of its last utterance."""

    def told(self, results: Sequence[Recognized]) -> list[Recognized]:
        """``results`` of one utterance with their speakers, cut where the speaker changes."""
        voices = [voice for result in results for voice in result.voices]
        if not voices:
            return list(results)
        numbers = self._heard(np.stack([voice.vector for voice in voices]))
        return by_speaker(results, smoothed(voices, numbers))

    def _heard(self, new: Vectors) -> Labels:
        """The speaker's number of each new vector."""
        vectors = new if self._vectors is None else np.concatenate((self._vectors, new))
        if len(vectors) < FEWEST:
            number = self._nearest(new.mean(axis=0), _NEAR, range(len(self._centres)))
            numbers = np.append(self._numbers, np.full(len(new), number))
        else:
            numbers = self._numbered(clustered(vectors), vectors)
        for number in np.unique(numbers):
            self._centres[number] = vectors[numbers == number].mean(axis=0)
        self._vectors, self._numbers = (
            _halved(vectors, numbers)
            if len(vectors) > _KEPT
            else (
                vectors,
                numbers,
            )
        )
        found: Labels = numbers[-len(new) :]
        return found

    def _numbered(self, clusters: Labels, vectors: Vectors) -> Labels:
        """Each cluster takes the number that most of its vectors have, the largest share first; one of
        which nothing is left takes that of a known voice, or a new one."""
        shares = np.zeros((int(clusters.max()) + 1, len(self._centres)), np.int64)
        np.add.at(shares, (clusters[: len(self._numbers)], self._numbers), 1)
        numbers: dict[int, int] = {}
        while shares.any():
            cluster, number = np.unravel_index(int(shares.argmax()), shares.shape)
            numbers[int(cluster)] = int(number)
            shares[cluster, :] = 0
            shares[:, number] = 0
        for cluster in clusters:  # in the order in which they are heard
            if cluster not in numbers:
                free = [n for n in range(len(self._centres)) if n not in numbers.values()]
                mean = vectors[clusters == cluster].mean(axis=0)
                numbers[int(cluster)] = self._nearest(mean, SAME, free)
        return np.array([numbers[int(cluster)] for cluster in clusters])

    def _nearest(self, vector: Vectors, least: float, among: Sequence[int]) -> int:
        """The speaker whose voice is nearest, or a new one where none is near enough."""
        near = {number: _cosine(vector, self._centres[number]) for number in among}
        best = max(near, key=lambda number: near[number], default=None)
        if best is not None and (near[best] >= least or len(self._centres) >= MOST_SPEAKERS):
            return best
        self._centres.append(vector)
        return len(self._centres) - 1


def _cosine(one: Vectors, other: Vectors) -> float:
    return float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-12))


def _halved(vectors: Vectors, numbers: Labels) -> tuple[Vectors, Labels]:
    """Each two consecutive vectors of a speaker averaged."""
    kept, owners = [], []
    for number in np.unique(numbers):
        own = vectors[numbers == number]
        starts = np.arange(0, len(own), 2)
        counts = np.diff(np.append(starts, len(own)))[:, None]
        kept.append((np.add.reduceat(own, starts) / counts).astype(np.float32))
        owners.append(np.full(len(starts), number))
    return np.concatenate(kept), np.concatenate(owners)
