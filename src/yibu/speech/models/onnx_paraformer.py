"""Paraformer in the ONNX layout, as FunASR exports ``Paraformer`` and ``BiCifParaformer``.

Both ``model.onnx`` and ``model_quant.onnx`` run in ONNX Runtime, a segment at a time: the exported
predictor counts tokens over the whole batch, padding included.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from yibu.messages import tr
from yibu.speech.features import MEL_BINS
from yibu.speech.models import cif
from yibu.speech.models.compiled import Array
from yibu.speech.models.onnx_encoder import check_inputs, graph_file, runtime_session
from yibu.speech.models.paraformer import BLANK, END, START, Decoded, Hotwords
from yibu.speech.models.stacked import STACK_WIDTH
from yibu.speech.types import Features

_UPSAMPLED = 3
"""Parts of a frame in the exported graph's times."""


class OnnxParaformer:
    """See ``Network`` in ``paraformer.py``."""

    backend = "onnxruntime"
    takes_hotwords = False

    def __init__(self, path: Path, *, precision: str, threads: int) -> None:
        self.precision = precision
        self._session = runtime_session(path, threads)
        hint = tr(
            "Take the model's PyTorch directory, which holds model.pt, for hotwords or live speech"
        )
        names = (node.name for node in self._session.get_inputs())
        check_inputs(path, names, ("speech", "speech_lengths"), hint)
        # A second of sound: a graph that hears no token has no scores to count.
        probe = np.zeros((16, STACK_WIDTH * MEL_BINS), np.float32)
        self.classes = int(self._run(probe)[0].shape[-1])

    @classmethod
    def load(cls, directory: Path, *, precision: str, threads: int) -> OnnxParaformer:
        """``precision`` is fp32 or int8; raises ``VerificationError`` where its file is missing or
        damaged, ``UnsupportedError`` where it has other inputs."""
        path = graph_file(directory, quantised=precision == "int8")
        return cls(path, precision=precision, threads=threads)

    def decode(
        self,
        features: Sequence[Features],
        hotwords: Sequence[Hotwords],  # noqa: ARG002 - it takes none
        *,
        times: bool,
    ) -> list[Decoded]:
        """See ``Network``. The plain ``Paraformer``'s graph tells no times."""
        return [self._decode(own, times=times) for own in features]

    def _decode(self, features: Features, *, times: bool) -> Decoded:
        scores, counts, *timed = self._run(features)
        best = scores[0, : int(np.ravel(counts)[0])].argmax(axis=1)
        tokens = tuple(int(n) for n in best if n not in (BLANK, START, END))
        part = cif.FRAME_SECONDS / _UPSAMPLED
        nothing = np.empty(0, np.float32)
        if not (times and timed and tokens):
            return Decoded(tokens, nothing, nothing, part)
        return Decoded(tokens, timed[0][0], timed[1][0], part)

    def _run(self, features: Features) -> list[Array]:
        lengths = np.array([len(features)], np.int32)
        found: list[Array] = self._session.run(
            None, {"speech": features[None], "speech_lengths": lengths}
        )
        return found
