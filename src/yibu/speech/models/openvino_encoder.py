"""SenseVoice's network on a CPU through OpenVINO: no PyTorch in its environment."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov

from yibu.errors import VerificationError
from yibu.speech.modelconfig import read_config
from yibu.speech.models.sensevoice_graph import (
    EncoderShape,
    WeightFormat,
    build_encoder,
    build_head,
)
from yibu.speech.types import Features
from yibu.speech.weights import Checkpoint, read_checkpoint

EVENT_QUERY, EMOTION_QUERY = 1, 2
_HEAD_ROWS = 256
"""Frames scored at a time: 25,055 scores each would otherwise outgrow the weights."""
_GROUP_FRAMES = 512
"""Frames in the network at a time: enough for full speed, and 30 s of audio have as many."""
_ALONE = 128
"""Frames from which on an item alone reaches full speed, so that padding would only cost."""
_PADDING = 16
"""Shorter items are padded by at most a sixteenth of their length."""
_DYNAMIC_GROUP = 512
"""Activations that share a scale where int8 quantises them as it runs."""


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
        core = ov.Core()
        settings = _settings(precision, threads)
        form: WeightFormat = "i8" if precision == "int8" else "f32"
        self._head = core.compile_model(
            build_head(weights, shape, form, banned), "CPU", settings
        ).create_infer_request()
        gc.collect()
        self._encoder = core.compile_model(
            build_encoder(weights, shape, form), "CPU", settings
        ).create_infer_request()
        gc.collect()
        self._warm_up()

    def _warm_up(self) -> None:
        """The first inference lays the weights out; the checkpoint's pages are free then."""
        self.encode([np.zeros((60, self.input_size), np.float32)], [0], [14])
        self._checkpoint.release()

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
        results: dict[int, npt.NDArray[np.int64]] = {}
        for group in groups([len(f) + 4 for f in features]):
            best = self._encode(
                [features[n] for n in group],
                [languages[n] for n in group],
                [styles[n] for n in group],
            )
            results |= zip(group, best, strict=True)
        return [results[n] for n in range(len(features))]

    def _encode(
        self, features: Sequence[Features], languages: Sequence[int], styles: Sequence[int]
    ) -> list[npt.NDArray[np.int64]]:
        frames, lengths = self._padded(features, languages, styles)
        mask = (np.arange(frames.shape[1]) < lengths[:, None]).astype(np.float32)
        hidden = next(iter(self._encoder.infer([frames, mask], share_inputs=True).values()))
        best = self._best(np.concatenate([h[:n] for h, n in zip(hidden, lengths, strict=True)]))
        return np.split(best, np.cumsum(lengths)[:-1])

    def _padded(
        self, features: Sequence[Features], languages: Sequence[int], styles: Sequence[int]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """The four queries and the frames, scaled, with positions; shape [B, T, inputs]."""
        lengths = np.array([len(f) + 4 for f in features])
        frames = np.zeros(
            (len(features), padded_length(lengths.max()), self.input_size), np.float32
        )
        rows = zip(frames, features, languages, styles, strict=True)
        for row, own, language, style in rows:
            row[:4] = self._queries[[language, EVENT_QUERY, EMOTION_QUERY, style]]
            row[4 : 4 + len(own)] = own
        frames *= np.float32(self._width**0.5)
        frames += positions(frames.shape[1], self.input_size)
        return frames, lengths

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


def positions(frames: int, width: int) -> npt.NDArray[np.float32]:
    """Sinusoidal positions from 1, sines before cosines: FunASR's encoding. [frames, width]"""
    half = width // 2
    step = np.log(np.float32(10000)) / np.float32(half - 1)
    rates = np.exp(np.arange(half, dtype=np.float32) * -step)
    angles = np.arange(1, frames + 1, dtype=np.float32)[:, None] * rates
    return np.concatenate((np.sin(angles), np.cos(angles)), axis=1)


def _settings(precision: str, threads: int) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": _DYNAMIC_GROUP if precision == "int8" else 0,
    }
