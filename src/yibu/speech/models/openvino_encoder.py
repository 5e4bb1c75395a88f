"""SenseVoice's network on a CPU through OpenVINO, FunASR's ``SenseVoiceEncoderSmall`` and its CTC head: no
PyTorch in its environment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops

from yibu.speech.checkpoints.config import of_one_model
from yibu.speech.checkpoints.pytorch import Checkpoint, read_checkpoint
from yibu.speech.models.compiled import Compiler
from yibu.speech.models.grouping import encoder_input, in_groups, with_queries
from yibu.speech.models.network import NetworkBuilder, encoder_graph
from yibu.speech.models.sanm_shape import EncoderShape
from yibu.speech.models.sensevoice import sensevoice_shape
from yibu.speech.types import Features

_HEAD_ROWS = 32
"""Frames scored at a time: 25,055 scores each take 0.1 MiB."""
_NORM_EPSILON = 1e-5
"""Of SenseVoice's layer norms, which are not FunASR's other models'."""


class OpenVinoEncoder:
    """See ``Encoder`` in ``sensevoice.py``."""

    backend = "openvino"

    def __init__(
        self,
        checkpoint: Checkpoint,
        shape: EncoderShape,
        *,
        precision: str,
        threads: int,
        banned: tuple[int, ...],
    ) -> None:
        self.precision = precision
        self.input_size = shape.inputs
        self.classes = shape.classes
        self._width = shape.width
        self._queries = np.array(checkpoint.tensors["embed.weight"], dtype=np.float32)
        compiler = Compiler(checkpoint, precision=precision, threads=threads, epsilon=_NORM_EPSILON)
        self._parked = compiler.parked
        self._head = compiler.compile(lambda builder: _head_graph(builder, shape, banned))
        self._encoder = compiler.compile(
            lambda builder: encoder_graph(builder, shape, "sensevoice-encoder")
        )
        self.encode([np.zeros((60, self.input_size), np.float32)], [0], [14])
        compiler.release()

    @classmethod
    def load(
        cls, directory: Path, *, precision: str, threads: int, banned: tuple[int, ...]
    ) -> OpenVinoEncoder:
        """Build from config.yaml and model.pt; raises ``VerificationError`` where they do not
        belong together, ``UnsupportedError`` for another network."""
        checkpoint = read_checkpoint(directory / "model.pt")
        with of_one_model(directory):
            shape = sensevoice_shape(directory, checkpoint.tensors)
            return cls(checkpoint, shape, precision=precision, threads=threads, banned=banned)

    def encode(
        self, features: Sequence[Features], languages: Sequence[int], styles: Sequence[int]
    ) -> list[npt.NDArray[np.int64]]:
        whole = with_queries(features, languages, styles, self._queries)
        return in_groups(self._encode, whole)

    def _encode(self, features: Sequence[Features]) -> list[npt.NDArray[np.int64]]:
        (hidden,) = self._encoder(*encoder_input(features, self._width))
        lengths = [len(item) for item in features]
        best = self._best(np.concatenate([h[:n] for h, n in zip(hidden, lengths, strict=True)]))
        return np.split(best, np.cumsum(lengths)[:-1])

    def _best(self, hidden: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """The best class of each row [N]."""
        best = np.empty(len(hidden), np.int64)
        for at in range(0, len(hidden), _HEAD_ROWS):
            rows = hidden[at : at + _HEAD_ROWS]
            np.argmax(self._head(rows)[0], axis=1, out=best[at : at + len(rows)])
        return best


def _head_graph(builder: NetworkBuilder, shape: EncoderShape, banned: tuple[int, ...]) -> ov.Model:
    """Hidden states [N, width] → scores [N, classes]; ``banned`` classes never score best."""
    hidden = ops.parameter([-1, shape.width], ov.Type.f32, name="hidden")
    bias = builder.array("ctc.ctc_lo.bias").copy()
    bias[list(banned)] = np.finfo(np.float32).min / 2
    scores = ops.add(builder.product(hidden, "ctc.ctc_lo.weight"), bias)
    return ov.Model([ops.result(scores)], [hidden], "sensevoice-head")
