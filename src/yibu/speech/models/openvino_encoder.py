"""SenseVoice's network on a CPU through OpenVINO: no PyTorch in its environment."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov

from yibu.errors import VerificationError
from yibu.speech.modelconfig import read_config
from yibu.speech.models.grouping import QUERIES, in_groups, with_queries
from yibu.speech.models.parked import ParkedArrays, aligned
from yibu.speech.models.sensevoice_graph import (
    WeightFormat,
    build_encoder,
    build_head,
)
from yibu.speech.models.sensevoice_shape import EncoderShape
from yibu.speech.types import Features
from yibu.speech.weights import Checkpoint, Weights, read_checkpoint

_HEAD_ROWS = 32
"""Frames scored at a time: 25,055 scores each take 0.1 MiB."""
_KERNELS = 8
"""Kernels that each layer keeps, one for each length of segment that came by: with the default,
5,000, memory grows for days, and a kernel made anew costs next to nothing."""
_SHARED_KERNELS = 16
"""The same of oneDNN's own cache, which all layers share: its default is 1,024."""
_DYNAMIC_GROUP = 128
"""Activations that share a scale where int8 quantises them as it runs: larger groups are a
little faster and less exact."""


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
        weights = checkpoint.tensors
        self._checkpoint = checkpoint
        self.precision = precision
        self.input_size = shape.inputs
        self.classes = shape.classes
        self._width = shape.width
        self._queries = np.array(weights["embed.weight"], dtype=np.float32)
        # oneDNN has no other way to be told, and reads it when the first kernel is made.
        os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = str(_SHARED_KERNELS)
        core = ov.Core()
        settings = cpu_settings(precision, threads)
        form: WeightFormat = "i8" if precision == "int8" else "f32"
        self._parked = ParkedArrays(_quantised_size(weights)) if form == "i8" else None
        self._head = core.compile_model(
            build_head(weights, shape, form, banned, self._parked), "CPU", settings
        ).create_infer_request()
        gc.collect()
        self._encoder = core.compile_model(
            build_encoder(weights, shape, form, self._parked), "CPU", settings
        ).create_infer_request()
        gc.collect()
        self._warm_up()

    def _warm_up(self) -> None:
        """The first inference lays the weights out; what they were made from is free then."""
        self.encode([np.zeros((60, self.input_size), np.float32)], [0], [14])
        self._checkpoint.release()
        if self._parked is not None:
            self._parked.release()

    @classmethod
    def load(
        cls, directory: Path, *, precision: str, threads: int, banned: tuple[int, ...]
    ) -> OpenVinoEncoder:
        """Build from config.yaml and model.pt; raises ``VerificationError`` where they do not
        belong together, ``UnsupportedError`` for another network."""
        checkpoint = read_checkpoint(directory / "model.pt")
        try:
            shape = EncoderShape.read(read_config(directory), checkpoint.tensors, directory)
            return cls(checkpoint, shape, precision=precision, threads=threads, banned=banned)
        except (KeyError, IndexError) as error:
            raise VerificationError(
                f"{directory}/model.pt does not hold the network of config.yaml: {error}",
                hint="download the model again, all files of one revision",
            ) from error

    def encode(
        self,
        features: Sequence[Features],
        languages: Sequence[int],
        styles: Sequence[int],
    ) -> list[npt.NDArray[np.int64]]:
        return in_groups(self._encode, features, languages, styles)

    def _encode(
        self, features: Sequence[Features], languages: Sequence[int], styles: Sequence[int]
    ) -> list[npt.NDArray[np.int64]]:
        frames, mask = with_queries(features, languages, styles, self._queries, self._width)
        lengths = [len(item) + QUERIES for item in features]
        hidden = next(iter(self._encoder.infer([frames, mask], share_inputs=True).values()))
        best = self._best(np.concatenate([h[:n] for h, n in zip(hidden, lengths, strict=True)]))
        return np.split(best, np.cumsum(lengths)[:-1])

    def _best(self, hidden: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """The best class of each row [N]."""
        best = np.empty(len(hidden), np.int64)
        for at in range(0, len(hidden), _HEAD_ROWS):
            rows = hidden[at : at + _HEAD_ROWS]
            scores = next(
                iter(self._head.infer([rows], share_inputs=True, share_outputs=True).values())
            )
            np.argmax(scores, axis=1, out=best[at : at + len(rows)])
        return best


def _quantised_size(weights: Weights) -> int:
    """Bytes of the matrices, which are what is quantised, at one byte an element."""
    return sum(aligned(tensor.size) for tensor in weights.values() if tensor.ndim == 2)


def cpu_settings(precision: str, threads: int) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": _DYNAMIC_GROUP if precision == "int8" else 0,
        # Fused attention kernels keep more than 1 MiB a layer of their own, and are no faster.
        "SNIPPETS_MODE": "DISABLE",
        "CPU_RUNTIME_CACHE_CAPACITY": _KERNELS,
    }
