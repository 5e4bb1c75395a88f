"""Speaker vectors: FunASR's ``CAMPPlus`` (``models/campplus/``) as an OpenVINO graph.

"CAM++: A Fast and Efficient Network for Speaker Verification Using Context-Aware Masking"
(arXiv:2303.00332): convolutions over time and frequency, then densely connected layers over time,
each with a mask made of the mean over all of the sound and over each 100 frames of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops

from yibu.speech.checkpoints.config import check_class, of_one_model, read_config
from yibu.speech.checkpoints.pytorch import read_checkpoint
from yibu.speech.features import MEL_BINS, fbank
from yibu.speech.models.compiled import Array, Graph, cpu_settings
from yibu.speech.types import SAMPLE_RATE, Features, Samples, Segment, Voice

WINDOW_SECONDS, SHIFT_SECONDS = 1.5, 0.75
_WINDOW, _SHIFT = int(WINDOW_SECONDS * SAMPLE_RATE), int(SHIFT_SECONDS * SAMPLE_RATE)
_AT_ONCE = 16
"""Windows in the network at a time."""
_SEGMENT = 100
_EPSILON = 1e-5
_BLOCKS = ((12, 1), (24, 2), (16, 2))
"""Layers and dilation of each block, as FunASR's class has them."""


class SpeakerNetwork:
    """A loaded model; called from one thread at a time."""

    def __init__(self, weights: Mapping[str, npt.NDArray[np.float32]], *, threads: int) -> None:
        self._graph = Graph(_Builder(weights).model(), cpu_settings("fp32", threads))
        self.size = self.vectors([np.zeros(_WINDOW, np.float32)]).shape[1]

    @classmethod
    def load(cls, directory: Path, *, threads: int) -> SpeakerNetwork:
        """Raises ``VerificationError`` for missing or damaged files, ``UnsupportedError`` for a
        directory of another model."""
        published = "iic/speech_campplus_sv_zh-cn_16k-common"
        check_class(read_config(directory), directory, "CAMPPlus", published)
        tensors = read_checkpoint(directory / _weights_file(directory)).tensors
        with of_one_model(directory):
            return cls(tensors, threads=threads)

    def vectors(self, sounds: Sequence[Samples]) -> Array:
        """A vector for each sound, all of one length: [N, size]."""
        features = np.stack([_features(sound) for sound in sounds])
        return self._graph(features)[0].copy()

    def voices(self, segment: Segment) -> tuple[Voice, ...]:
        """A vector each 0.75 s, of the 1.5 s from there on."""
        spans = list(windows(len(segment.samples)))
        found: list[Voice] = []
        for at in range(0, len(spans), _AT_ONCE):
            part = spans[at : at + _AT_ONCE]
            sounds = [_padded(segment.samples[start:end]) for start, end in part]
            found += [
                Voice(
                    segment.start + start / SAMPLE_RATE, segment.start + end / SAMPLE_RATE, vector
                )
                for (start, end), vector in zip(part, self.vectors(sounds), strict=True)
            ]
        return tuple(found)


def _weights_file(directory: Path) -> str:
    """The checkpoint's name: ``init_param`` of FunASR's configuration.json, or ``model.pt``."""
    if not (directory / "configuration.json").exists():
        return "model.pt"
    # JSON is YAML too, and the reader says what is wrong with a file.
    metas = read_config(directory, "configuration.json").get("file_path_metas")
    named = metas.get("init_param") if isinstance(metas, dict) else None
    return Path(str(named or "model.pt")).name


def windows(samples: int) -> Iterator[tuple[int, int]]:
    """Begin and end of each window in a segment, as FunASR's ``sv_chunk`` cuts: the last one ends
    where the segment does."""
    reached = 0
    for start in range(0, samples, _SHIFT):
        end = min(start + _WINDOW, samples)
        if end <= reached:
            return
        reached = end
        yield max(0, end - _WINDOW), end


def _padded(sound: Samples) -> Samples:
    return np.pad(sound, (0, _WINDOW - len(sound)))


def _features(sound: Samples) -> Features:
    features = fbank(sound, window="povey", scale=1.0)
    centred: Features = features - features.mean(axis=0, keepdims=True)
    return centred


class _Builder:
    def __init__(self, weights: Mapping[str, npt.NDArray[np.float32]]) -> None:
        self._weights = weights

    def model(self) -> ov.Model:
        """Features [B, T, 80] → vectors [B, size]."""
        features = ops.parameter([-1, -1, MEL_BINS], ov.Type.f32, name="features")
        x = ops.unsqueeze(ops.transpose(features, _ints(0, 2, 1)), _ints(1))
        x = ops.relu(self._normal(self._planes(x, "head.conv1", 1), "head.bn1"))
        for layer in ("layer1", "layer2"):
            for n in range(2):
                x = self._residual(x, f"head.{layer}.{n}", 2 if n == 0 else 1)
        x = ops.relu(self._normal(self._planes(x, "head.conv2", 2), "head.bn2"))
        channels = int(self._weights["xvector.tdnn.linear.weight"].shape[1])
        x = ops.reshape(x, _ints(0, channels, -1), special_zero=True)
        x = self._active(self._line(x, "xvector.tdnn.linear", stride=2), "xvector.tdnn.nonlinear")
        for number, (layers, dilation) in enumerate(_BLOCKS, 1):
            for n in range(1, layers + 1):
                name = f"xvector.block{number}.tdnnd{n}"
                x = ops.concat([x, self._dense(x, name, dilation)], 1)
            x = self._active(x, f"xvector.transit{number}.nonlinear")
            x = self._line(x, f"xvector.transit{number}.linear")
        x = self._active(x, "xvector.out_nonlinear")
        x = ops.unsqueeze(_statistics(x), _ints(2))
        x = self._normal(self._line(x, "xvector.dense.linear"), "xvector.dense.nonlinear.batchnorm")
        return ov.Model([ops.result(ops.squeeze(x, _ints(2)))], [features], "campplus")

    def _residual(self, x: ov.Node, name: str, stride: int) -> ov.Node:
        inner = ops.relu(self._normal(self._planes(x, f"{name}.conv1", stride), f"{name}.bn1"))
        inner = self._normal(self._planes(inner, f"{name}.conv2", 1), f"{name}.bn2")
        if f"{name}.shortcut.0.weight" in self._weights:
            x = self._normal(self._planes(x, f"{name}.shortcut.0", stride), f"{name}.shortcut.1")
        return ops.relu(ops.add(inner, x))

    def _dense(self, x: ov.Node, name: str, dilation: int) -> ov.Node:
        x = self._line(self._active(x, f"{name}.nonlinear1"), f"{name}.linear1")
        x = self._active(x, f"{name}.nonlinear2")
        local = self._line(x, f"{name}.cam_layer.linear_local", dilation=dilation)
        context = ops.add(ops.reduce_mean(x, _ints(2), True), _by_segments(x))
        context = ops.relu(self._line(context, f"{name}.cam_layer.linear1"))
        return ops.multiply(local, ops.sigmoid(self._line(context, f"{name}.cam_layer.linear2")))

    def _planes(self, x: ov.Node, name: str, stride: int) -> ov.Node:
        """A convolution over frequency and time, with ``stride`` in frequency."""
        kernel = self._array(f"{name}.weight")
        pads = [size // 2 for size in kernel.shape[2:]]
        return ops.convolution(x, ops.constant(kernel), [stride, 1], pads, pads, [1, 1])

    def _line(self, x: ov.Node, name: str, *, stride: int = 1, dilation: int = 1) -> ov.Node:
        """A convolution over time that keeps the length, but for its stride."""
        kernel = self._array(f"{name}.weight")
        pad = [(kernel.shape[2] - 1) // 2 * dilation]
        x = ops.convolution(x, ops.constant(kernel), [stride], pad, pad, [dilation])
        if f"{name}.bias" in self._weights:
            x = ops.add(x, self._array(f"{name}.bias")[None, :, None])
        return x

    def _active(self, x: ov.Node, name: str) -> ov.Node:
        return ops.relu(self._normal(x, f"{name}.batchnorm"))

    def _normal(self, x: ov.Node, name: str) -> ov.Node:
        """Batch normalisation by what was counted in training."""
        scale = 1 / np.sqrt(self._array(f"{name}.running_var") + np.float32(_EPSILON))
        if f"{name}.weight" in self._weights:
            scale = scale * self._array(f"{name}.weight")
        shift = -self._array(f"{name}.running_mean") * scale
        if f"{name}.bias" in self._weights:
            shift = shift + self._array(f"{name}.bias")
        axes = (1, -1) + (1,) * (len(x.get_output_partial_shape(0)) - 2)
        return ops.add(ops.multiply(x, scale.reshape(axes)), shift.reshape(axes))

    def _array(self, name: str) -> Array:
        return np.ascontiguousarray(self._weights[name], dtype=np.float32)


def _statistics(x: ov.Node) -> ov.Node:
    """Mean and standard deviation over time: [B, C, T] → [B, 2 C]."""
    mean = ops.reduce_mean(x, _ints(2), True)
    squares = ops.reduce_sum(ops.power(ops.subtract(x, mean), np.float32(2)), _ints(2), False)
    count = ops.convert(ops.gather(ops.shape_of(x), _ints(2), np.int64(0)), "f32")
    deviation = ops.sqrt(ops.divide(squares, ops.subtract(count, np.float32(1))))
    return ops.concat([ops.squeeze(mean, _ints(2)), deviation], 1)


def _by_segments(x: ov.Node) -> ov.Node:
    """At each frame the mean over the 100 frames that it belongs to."""
    means = ops.avg_pool(
        x, [_SEGMENT], [0], [_SEGMENT - 1], [_SEGMENT], exclude_pad=True, rounding_type="floor"
    )
    frames = ops.squeeze(ops.gather(ops.shape_of(x), _ints(2), np.int64(0)), _ints(0))
    numbers = ops.range(np.int64(0), frames, np.int64(1), "i64")
    return ops.gather(means, ops.divide(numbers, np.int64(_SEGMENT)), np.int64(2))


def _ints(*values: int) -> ov.Node:
    return ops.constant(np.array(values, dtype=np.int64))
