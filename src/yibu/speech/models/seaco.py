"""Paraformer with hotwords: FunASR's ``SeacoParaformer`` (``models/seaco_paraformer/model.py``).

A small recurrent network reads each hotword; a second decoder attends to the hotwords from where each
token is, twice: with what the predictor heard, and with what the decoder made of it. Where it says one
of the hotwords' tokens, that is taken; where it says "no hotword", the decoder's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yibu.errors import UnsupportedError
from yibu.speech.checkpoints.config import section
from yibu.speech.models.compiled import Compiler
from yibu.speech.models.hotword_reader import HotwordReader
from yibu.speech.models.network import Array
from yibu.speech.models.paraformer import Hotwords, OpenVinoParaformer, Shapes
from yibu.speech.models.paraformer_graph import DecoderShape, decoder_graph

_ATTENDED = 50
"""Hotwords attended to at once; of more, those that the decoder attends to most."""
_SELECTING_LAYER = 5


class SeacoParaformer(OpenVinoParaformer):
    """See ``Network`` in ``paraformer.py``."""

    takes_hotwords = True

    def _configure(self, config: Mapping[str, Any], shapes: Shapes, directory: Path) -> None:
        conf = section(dict(config), "model_conf", directory)
        kind = conf.get("bias_encoder_type", "lstm")
        if kind != "lstm" or conf.get("bias_encoder_bid"):
            raise UnsupportedError(
                "{directory}: bias_encoder_type is {kind!r}, bias_encoder_bid {direction}; an "
                "lstm in one direction expected",
                directory=directory,
                kind=kind,
                direction=conf.get("bias_encoder_bid"),
                hint="Set `path: reference` to run this model through FunASR",
            )
        self._no_hotword = int(conf.get("NO_BIAS", 8377))
        self._shape = DecoderShape.read(
            dict(config), directory, width=shapes.encoder.width, name="seaco_decoder"
        )

    def _prepare(self, compiler: Compiler) -> None:
        self._read = HotwordReader(compiler.weights, "decoder.embed.0.weight", layers=2)
        self._biased = compiler.compile(
            lambda b: decoder_graph(b, self._shape, watched=_SELECTING_LAYER)
        )
        weight = compiler.weights["hotword_output_layer.weight"]
        self._output = np.array(weight, dtype=np.float32)
        self._output_bias = np.array(compiler.weights["hotword_output_layer.bias"], np.float32)

    def _warm_up(self, inputs: int) -> None:
        super()._warm_up(inputs)
        hidden = np.zeros((8, self._width), np.float32)
        self._best(hidden, hidden, ((3, 4),))

    def _best(self, hidden: Array, embedded: Array, hotwords: Hotwords) -> npt.NDArray[np.int64]:
        states, scores = self.scores(hidden, embedded)
        best: npt.NDArray[np.int64] = scores.argmax(axis=1)
        if not hotwords:
            return best
        vectors = self._selected(self._read(hotwords), states)
        merged = self._biased(vectors[None], embedded[None])[0][0].copy()
        merged += self._biased(vectors[None], states[None])[0][0]
        biased = (merged @ self._output.T + self._output_bias).argmax(axis=1)
        chosen: npt.NDArray[np.int64] = np.where(biased == self._no_hotword, best, biased)
        return chosen

    def _selected(self, vectors: Array, states: Array) -> Array:
        if len(vectors) <= _ATTENDED or self._shape.attending <= _SELECTING_LAYER:
            return vectors
        attended = self._biased(vectors[None], states[None])[1]
        strongest = np.argsort(-attended, kind="stable")[:_ATTENDED]
        return np.ascontiguousarray(vectors[[*strongest, len(vectors) - 1]])
