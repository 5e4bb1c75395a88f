"""Vectors of hotwords, as FunASR's ``SeacoParaformer`` and ``ContextualParaformer`` read them."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from yibu.speech.checkpoints.pytorch import Weights
from yibu.speech.models.network import Array
from yibu.speech.models.paraformer import START, Hotwords

_KEPT = 16
"""Cached lists of hotwords."""


class HotwordReader:
    """PyTorch's ``LSTM`` over the embeddings of a hotword's tokens: its last state."""

    def __init__(self, weights: Weights, embedding: str, *, layers: int) -> None:
        """``embedding`` is the name of the tokens' tensor."""
        self._embedding = np.array(weights[embedding], dtype=np.float32)
        self._layers = [
            tuple(
                np.array(weights[f"bias_encoder.{part}_l{n}"], dtype=np.float32)
                for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            for n in range(layers)
        ]
        self._lock = threading.Lock()
        self._vectors: OrderedDict[Hotwords, Array] = OrderedDict()

    def __call__(self, hotwords: Hotwords) -> Array:
        """A vector for each hotword, and last the one for none of them: [N + 1, width]."""
        with self._lock:
            if hotwords not in self._vectors:
                self._vectors[hotwords] = self._computed((*hotwords, (START,)))
                while len(self._vectors) > _KEPT:
                    self._vectors.popitem(last=False)
            self._vectors.move_to_end(hotwords)
            return self._vectors[hotwords]

    def _computed(self, words: Hotwords) -> Array:
        lengths = np.array([len(word) for word in words])
        numbers = np.zeros((len(words), int(lengths.max())), np.int64)
        for row, word in zip(numbers, words, strict=True):
            row[: len(word)] = word
        x = self._embedding[numbers]
        for layer in self._layers:
            x = _recurrent(x, *layer)
        found: Array = x[np.arange(len(words)), lengths - 1]
        return found


def _recurrent(x: Array, by_input: Array, by_state: Array, *biases: Array) -> Array:
    """One layer over [N, T, width]. Gates in PyTorch's order: input, forget, cell, output."""
    state = cell = np.zeros((len(x), by_state.shape[1]), np.float32)
    found = []
    driven = x @ by_input.T + biases[0] + biases[1]
    for t in range(x.shape[1]):
        enters, stays, new, leaves = np.split(driven[:, t] + state @ by_state.T, 4, axis=1)
        cell = _sigmoid(stays) * cell + _sigmoid(enters) * np.tanh(new)
        state = _sigmoid(leaves) * np.tanh(cell)
        found.append(state)
    return np.stack(found, axis=1)


def _sigmoid(x: Array) -> Array:
    found: Array = np.float32(1) / (np.float32(1) + np.exp(-x))
    return found
