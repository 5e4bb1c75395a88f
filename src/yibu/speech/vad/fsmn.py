"""FSMN-VAD (``iic/speech_fsmn_vad_zh-cn-16k-common-pytorch`` or ``-onnx``) in numpy, over a live
stream.

The network sees five stacked frames of the filter bank, each 10 ms, and looks only backwards
in its four memory blocks; the newest output therefore needs two frames (20 ms) more than it
describes. A session keeps the memory blocks' last inputs, the endpointer's state and the
samples of the speech that has not ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yibu.errors import UnsupportedError, VerificationError
from yibu.speech.features import (
    FRAME_SHIFT,
    MEL_BINS,
    Normalizer,
    fbank,
    stack_frames,
)
from yibu.speech.modelconfig import read_config, section
from yibu.speech.segments import SegmentCutter, SegmentRule, Span
from yibu.speech.types import Features, Samples, Segment
from yibu.speech.vad.endpoint import Endpointer, EndpointRule, Frames
from yibu.speech.vad.fsmn_onnx import onnx_weights
from yibu.speech.weights import Weights, read_checkpoint

_WIDTH = 5
_SIDE = (_WIDTH - 1) // 2
_BLOCK = 256
"""Frames that go through the network at a time: what they need stays in the cache."""

Array = npt.NDArray[np.float32]


class FsmnNetwork:
    """The weights, shared by all sessions, and the forward pass."""

    def __init__(self, weights: Weights, layers: int, order: int) -> None:
        def matrix(name: str) -> Array:
            return np.ascontiguousarray(weights[f"encoder.{name}.weight"].T, dtype=np.float32)

        def affine(name: str) -> tuple[Array, Array]:
            bias = np.asarray(weights[f"encoder.{name}.bias"], dtype=np.float32)
            return matrix(name), bias

        self._inputs = (affine("in_linear1.linear"), affine("in_linear2.linear"))
        self._blocks = []
        for n in range(layers):
            taps = weights[f"encoder.fsmn.{n}.fsmn_block.conv_left.weight"]
            if taps.shape[2] != order:
                raise ValueError(f"layer {n} has {taps.shape[2]} taps, {order} expected")
            kernel = np.ascontiguousarray(taps[:, 0, :, 0].T, dtype=np.float32)
            self._blocks.append(
                (matrix(f"fsmn.{n}.linear.linear"), kernel, affine(f"fsmn.{n}.affine.linear"))
            )
        self._outputs = (affine("out_linear1.linear"), affine("out_linear2.linear"))

    def memory(self) -> list[Array]:
        """The memory of a new stream: what each block saw last, which is nothing."""
        return [
            np.zeros((len(kernel) - 1, kernel.shape[1]), np.float32)
            for _, kernel, _ in self._blocks
        ]

    def silence(self, stacked: Features, memory: list[Array]) -> Array:
        """p(silence) of each frame [T] from float32 [T, 400]; moves ``memory`` forward."""
        parts = [
            self._silence(stacked[at : at + _BLOCK], memory)
            for at in range(0, len(stacked), _BLOCK)
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    def _silence(self, x: npt.NDArray[Any], memory: list[Array]) -> Array:
        (first, first_bias), (second, second_bias) = self._inputs
        x = (x @ first + first_bias) @ second + second_bias
        np.maximum(x, 0, out=x)
        for n, (project, kernel, (expand, bias)) in enumerate(self._blocks):
            projected: npt.NDArray[Any] = x @ project
            history = np.concatenate((memory[n], projected))
            memory[n] = history[len(projected) :]
            for tap, weight in enumerate(kernel):
                projected += weight * history[tap : tap + len(x)]
            x = projected @ expand + bias
            np.maximum(x, 0, out=x)
        (first, first_bias), (second, second_bias) = self._outputs
        logits = (x @ first + first_bias) @ second + second_bias
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        silence: Array = logits[:, 0] / logits.sum(axis=1)
        return silence


class FsmnVad:
    """A loaded FSMN-VAD: makes a session for each file."""

    name = "fsmn-vad"

    def __init__(
        self,
        network: FsmnNetwork,
        normalizer: Normalizer,
        endpoints: EndpointRule,
        rule: SegmentRule,
        *,
        samples: bool = True,
    ) -> None:
        self._network = network
        self._normalizer = normalizer
        self._endpoints = endpoints
        self._rule = rule
        self._samples = samples

    @classmethod
    def load(
        cls, directory: Path, rule: SegmentRule | None = None, *, samples: bool = True
    ) -> FsmnVad:
        """Load config.yaml, am.mvn and the weights from ``directory``.

        ``samples`` says whether segments carry their samples beside the filter bank.

        The weights are those of the first that is there of model.pt, model.onnx and
        model_quant.onnx. Older ONNX exports call the two others vad.yaml and vad.mvn.

        Raises ``VerificationError`` for missing or damaged files and ``UnsupportedError`` for
        another kind of network.
        """
        rule = rule or SegmentRule()
        config = read_config(directory, _there(directory, "config.yaml", "vad.yaml").name)
        encoder = section(config, "encoder_conf", directory)
        shape = {"input_dim": _WIDTH * MEL_BINS, "rorder": 0, "lstride": 1}
        for key, expected in shape.items():
            if encoder.get(key) != expected:
                raise UnsupportedError(
                    f"{directory}: encoder_conf.{key} is {encoder.get(key)!r}, {expected} expected",
                    hint="use iic/speech_fsmn_vad_zh-cn-16k-common-pytorch",
                )
        network = _network(directory, encoder)
        rules = section(
            config, "vad_post_conf" if "vad_post_conf" in config else "model_conf", directory
        )
        endpoints = replace(endpoint_rule(rules), cap=int(rule.cap * 100))
        mvn = _there(directory, "am.mvn", "vad.mvn")
        normalizer = Normalizer.read(mvn, _WIDTH * MEL_BINS)
        return cls(network, normalizer, endpoints, rule, samples=samples)

    def session(self) -> FsmnSession:
        cutter = SegmentCutter(self._rule, samples=self._samples)
        return FsmnSession(self._network, self._normalizer, self._endpoints, cutter)


def _there(directory: Path, usual: str, *others: str) -> Path:
    """The first of the files that is there; ``usual`` where none is."""
    paths = [directory / name for name in (usual, *others)]
    return next((path for path in paths if path.exists()), paths[0])


def _network(directory: Path, encoder: dict[str, Any]) -> FsmnNetwork:
    path = _there(directory, "model.pt", "model.onnx", "model_quant.onnx")
    try:
        layers, order = int(encoder["fsmn_layers"]), int(encoder["lorder"])
        if path.suffix == ".onnx":
            weights = onnx_weights(path, layers)
        else:
            weights = read_checkpoint(path).tensors
        network = FsmnNetwork(weights, layers, order)
        # Matrices that do not fit each other are found here, not in the first request.
        network.silence(np.zeros((1, _WIDTH * MEL_BINS), np.float32), network.memory())
    except (LookupError, ValueError, TypeError) as error:
        raise VerificationError(
            f"{path} does not hold the network of the config beside it: {error}",
            hint="download the VAD model again",
        ) from error
    return network


def endpoint_rule(model_conf: dict[str, Any]) -> EndpointRule:
    """The window and margins of a VAD's ``model_conf`` (milliseconds); patience is our own."""

    def frames(key: str, default: int) -> int:
        return int(model_conf.get(key, default)) // 10

    return EndpointRule(
        window=frames("window_size_ms", 200),
        to_speech=frames("sil_to_speech_time_thres", 150),
        to_silence=frames("speech_to_sil_time_thres", 150),
        lookback=frames("lookback_time_start_point", 200),
        lookahead=frames("lookahead_time_end_point", 100),
    )


class FsmnSession:
    """Segments one file; see ``SegmenterSession``."""

    def __init__(
        self,
        network: FsmnNetwork,
        normalizer: Normalizer,
        endpoints: EndpointRule,
        cutter: SegmentCutter,
    ) -> None:
        self._network = network
        self._normalizer = normalizer
        self._memory = network.memory()
        self._endpointer = Endpointer(endpoints)
        self._cutter = cutter
        self._tail: Samples = np.empty(0, np.float32)
        """Samples that belong to frames which are not whole yet."""
        self._context: Features = np.empty((0, MEL_BINS), np.float32)
        """The last frames, which the next ones are stacked with."""

    def feed(self, samples: Samples) -> list[Segment]:
        """Take the next samples (any number) and return the segments that are finished."""
        samples = np.asarray(samples, dtype=np.float32)
        joined = np.concatenate((self._tail, samples))
        features = fbank(joined)
        self._tail = joined[len(features) * FRAME_SHIFT :].copy()
        self._cutter.append(samples, features)
        return list(self._detect(features, last=False))

    def finish(self) -> list[Segment]:
        """No more samples: return what is left."""
        segments = list(self._detect(np.empty((0, MEL_BINS), np.float32), last=True))
        for frames in self._endpointer.finish():
            segments += self._cutter.speech(_span(frames))
        return segments + self._cutter.finish()

    def _detect(self, features: Features, *, last: bool) -> Iterator[Segment]:
        if len(features) and not len(self._context):
            features = np.concatenate((np.repeat(features[:1], _SIDE, axis=0), features))
        window = np.concatenate((self._context, features))
        if last and len(window):
            window = np.concatenate((window, np.repeat(window[-1:], _SIDE, axis=0)))
        self._context = window[-2 * _SIDE :].copy()
        if len(window) <= 2 * _SIDE:
            return
        stacked = stack_frames(window, _WIDTH, 1)[_SIDE:-_SIDE]
        silence = self._network.silence(self._normalizer(stacked), self._memory)
        for at in range(0, len(silence), _BLOCK):
            for frames in self._endpointer.feed(silence[at : at + _BLOCK]):
                yield from self._cutter.speech(_span(frames))
        yield from self._cutter.advance(self._endpointer.earliest * FRAME_SHIFT)


def _span(frames: Frames) -> Span:
    """The samples of whole frames, so that nothing beyond the file's last frame is asked for."""
    return Span(frames.start * FRAME_SHIFT, frames.end * FRAME_SHIFT)
