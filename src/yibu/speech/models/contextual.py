"""FunASR's ``ContextualParaformer`` (``models/contextual_paraformer/``): the last layer of its decoder
attends to vectors of the hotwords beside the sound."""

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


class ContextualParaformer(OpenVinoParaformer):
    """See ``Network`` in ``paraformer.py``."""

    takes_hotwords = True

    def _configure(self, config: Mapping[str, Any], shapes: Shapes, directory: Path) -> None:
        conf = section(dict(config), "model_conf", directory)
        kind = conf.get("bias_encoder_type", "lstm")
        if kind != "lstm" or not shapes.decoder.contextual:
            raise UnsupportedError(
                "{directory}: bias_encoder_type is {kind!r}, decoder {decoder!r}; an lstm and "
                "ContextualParaformerDecoder expected",
                directory=directory,
                kind=kind,
                decoder=config.get("decoder"),
                hint="Set `path: reference` to run this model through FunASR",
            )
        own = conf.get("use_decoder_embedding")
        self._embedding = "decoder.embed.0.weight" if own else "bias_embed.weight"

    def _prepare(self, compiler: Compiler) -> None:
        self._read = HotwordReader(compiler.weights, self._embedding, layers=1)

    def _best(self, hidden: Array, embedded: Array, hotwords: Hotwords) -> npt.NDArray[np.int64]:
        _, scores = self._decoder(hidden[None], embedded[None], self._read(hotwords)[None])
        best: npt.NDArray[np.int64] = scores[0].argmax(axis=1)
        return best
