"""SenseVoiceSmall as an OpenVINO graph, built straight from the checkpoint's tensors.

The network is FunASR's ``SenseVoiceEncoderSmall``: layers of self-attention with a memory
block (a depth-wise convolution over the values, as long as ``kernel_size``) and a feed-forward
part; the first layer changes the width and has no residual around its attention. Padding is
masked exactly: keys with -1e9 before the softmax, whose exponential is 0, and the memory
block's inputs and outputs with 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops

from yibu.speech.models.parked import ParkedArrays
from yibu.speech.models.sensevoice_shape import EncoderShape
from yibu.speech.weights import Weights

WeightFormat = Literal["f32", "f16", "i8"]

Array = npt.NDArray[np.float32]
_EPSILON = 1e-5
_MASKED = np.float32(-1e9)


def build_encoder(
    weights: Weights,
    shape: EncoderShape,
    weight_format: WeightFormat,
    parked: ParkedArrays | None = None,
) -> ov.Model:
    """Features [B, T, inputs] with positions added, and mask [B, T] (1 = frame, 0 = padding)
    → hidden states [B, T, width]. Weights of ``i8`` lie in ``parked``, where it is given."""
    return _Builder(weights, shape, weight_format, parked).encoder()


def build_head(
    weights: Weights,
    shape: EncoderShape,
    weight_format: WeightFormat,
    banned: tuple[int, ...],
    parked: ParkedArrays | None = None,
) -> ov.Model:
    """Hidden states [N, width] → scores [N, classes]; ``banned`` classes never score best."""
    return _Builder(weights, shape, weight_format, parked).head(banned)


class _Builder:
    def __init__(
        self,
        weights: Mapping[str, Array],
        shape: EncoderShape,
        form: WeightFormat,
        parked: ParkedArrays | None,
    ):
        self._weights = weights
        self._shape = shape
        self._form = form
        self._parked = parked
        self._small: dict[tuple[str, ...], ov.Node] = {}

    def encoder(self) -> ov.Model:
        shape = self._shape
        frames = ops.parameter([-1, -1, shape.inputs], ov.Type.f32, name="frames")
        mask = ops.parameter([-1, -1], ov.Type.f32, name="mask")
        column = ops.unsqueeze(mask, self._ints(2))
        penalty = ops.multiply(
            ops.subtract(self._constant(np.float32(1)), mask), self._constant(_MASKED)
        )
        penalty = ops.unsqueeze(penalty, self._ints(1, 2))
        x = self._layer(frames, "encoder.encoders0.0", column, penalty, residual=False)
        for n in range(shape.blocks - 1):
            x = self._layer(x, f"encoder.encoders.{n}", column, penalty)
        x = self._norm(x, "encoder.after_norm")
        for n in range(shape.tp_blocks):
            x = self._layer(x, f"encoder.tp_encoders.{n}", column, penalty)
        x = self._norm(x, "encoder.tp_norm")
        return ov.Model([ops.result(x)], [frames, mask], "sensevoice-encoder")

    def head(self, banned: tuple[int, ...]) -> ov.Model:
        hidden = ops.parameter([-1, self._shape.width], ov.Type.f32, name="hidden")
        bias = self._array("ctc.ctc_lo.bias").copy()
        bias[list(banned)] = np.finfo(np.float32).min / 2
        scores = ops.add(self._product(hidden, "ctc.ctc_lo.weight"), bias)
        return ov.Model([ops.result(scores)], [hidden], "sensevoice-head")

    def _layer(
        self, x: ov.Node, name: str, column: ov.Node, penalty: ov.Node, *, residual: bool = True
    ) -> ov.Node:
        attended = self._attention(
            self._norm(x, f"{name}.norm1"), f"{name}.self_attn", column, penalty
        )
        if residual:
            attended = ops.add(x, attended)
        inner = self._linear(self._norm(attended, f"{name}.norm2"), f"{name}.feed_forward.w_1")
        # OpenVINO joins a rectifier to the product before it, and for f32 that takes a kernel whose
        # layout of the weights depends on the number of rows: it would keep two copies.
        positive = (
            ops.maximum(inner, self._constant(np.float32(0)))
            if self._form == "f32"
            else ops.relu(inner)
        )
        return ops.add(attended, self._linear(positive, f"{name}.feed_forward.w_2"))

    def _attention(self, x: ov.Node, name: str, column: ov.Node, penalty: ov.Node) -> ov.Node:
        shape = self._shape
        size = shape.width // shape.heads
        joined = self._linear(x, f"{name}.linear_q_k_v")
        query, key, value = ops.split(joined, self._constant(np.int64(2)), 3).outputs()
        memory = self._memory(ops.multiply(value, column), f"{name}.fsmn_block.weight", column)

        def heads(part: ov.Output) -> ov.Node:
            split = ops.reshape(part, self._ints(0, 0, shape.heads, size), special_zero=True)
            return ops.transpose(split, self._ints(0, 2, 1, 3))

        scaled = ops.multiply(heads(query), self._constant(np.float32(size**-0.5)))
        scores = ops.add(ops.matmul(scaled, heads(key), False, True), penalty)
        mixed = ops.matmul(ops.softmax(scores, -1), heads(value), False, False)
        mixed = ops.reshape(
            ops.transpose(mixed, self._ints(0, 2, 1, 3)),
            self._ints(0, 0, shape.width),
            special_zero=True,
        )
        return ops.add(self._linear(mixed, f"{name}.linear_out"), memory)

    def _memory(self, value: ov.Node, name: str, column: ov.Node) -> ov.Node:
        shape = self._shape
        kernel = self._array(name)[:, :, None, :]
        convolved = ops.group_convolution(
            ops.transpose(value, self._ints(0, 2, 1)),
            ops.constant(kernel),
            [1],
            [shape.left_context],
            [shape.kernel - 1 - shape.left_context],
            [1],
        )
        return ops.multiply(ops.add(ops.transpose(convolved, self._ints(0, 2, 1)), value), column)

    def _norm(self, x: ov.Node, name: str) -> ov.Node:
        normal = ops.mvn(x, self._ints(-1), True, _EPSILON, "inside_sqrt")
        scaled = ops.multiply(normal, self._array(f"{name}.weight"))
        return ops.add(scaled, self._array(f"{name}.bias"))

    def _linear(self, x: ov.Node, name: str) -> ov.Node:
        return ops.add(self._product(x, f"{name}.weight"), self._array(f"{name}.bias"))

    def _product(self, x: ov.Node, name: str) -> ov.Node:
        """``x`` times the transpose of the weight matrix ``name`` [out, in]."""
        matrix = self._array(name)
        if self._form == "f32":
            # The constant shares the mapped file's pages: they can be given back once the
            # engine has laid its own copy out.
            weight = ops.constant(matrix, shared_memory=True)
        elif self._form == "f16":
            weight = ops.convert(ops.constant(matrix.astype(np.float16)), "f32")
        else:
            scale = np.maximum(np.abs(matrix).max(axis=1, keepdims=True), 1e-12) / np.float32(127)
            weight = ops.multiply(ops.convert(self._rounded(matrix / scale), "f32"), scale)
        return ops.matmul(x, weight, False, True)

    def _rounded(self, matrix: Array) -> ov.Node:
        whole = np.rint(matrix, out=matrix)
        if self._parked is None:
            return ops.constant(whole.astype(np.int8))
        place = self._parked.array(whole.shape, np.int8)
        place[:] = whole
        return ops.constant(place, shared_memory=True)

    def _ints(self, *values: int) -> ov.Node:
        return self._constant(np.array(values, dtype=np.int64))

    def _constant(self, value: npt.ArrayLike) -> ov.Node:
        """One node for each value, however often it is used."""
        array = np.asarray(value)
        key = (array.dtype.str, str(array.tolist()))
        if key not in self._small:
            self._small[key] = ops.constant(array)
        return self._small[key]

    def _array(self, name: str) -> Array:
        return np.ascontiguousarray(self._weights[name], dtype=np.float32)
