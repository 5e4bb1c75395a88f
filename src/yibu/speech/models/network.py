"""FunASR's building blocks as OpenVINO graphs, built straight from a checkpoint's tensors.

``SANMEncoder`` (FunASR's ``models/sanm/encoder.py`` and ``models/sense_voice/model.py``) is a stack
of layers of self-attention with a memory block (a depth-wise convolution over the values, as long
as ``kernel_size``) and a feed-forward part; where a layer changes the width, its attention has no
residual. Padding is masked exactly: keys with -1e9 before the softmax, whose exponential is 0, and
the memory block's inputs and outputs with 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops

from yibu.speech.models.parked import ParkedArrays
from yibu.speech.models.sanm_shape import EncoderShape

WeightFormat = Literal["f32", "f16", "i8"]

Array = npt.NDArray[np.float32]
_MASKED = np.float32(-1e9)


@dataclass(frozen=True, slots=True)
class Padding:
    """Which frames [B, T] are none: as a column [B, T, 1] of ones and zeros, and as what is added
    to attention scores [B, 1, 1, T]."""

    column: ov.Node
    penalty: ov.Node


class NetworkBuilder:
    """Layers over the tensors of one checkpoint. Weights of ``i8`` lie in ``parked``, where given."""

    def __init__(
        self,
        weights: Mapping[str, Array],
        form: WeightFormat,
        parked: ParkedArrays | None = None,
        *,
        epsilon: float = 1e-12,
    ) -> None:
        """``epsilon`` is that of the layer norms: 1e-12 in FunASR, but for SenseVoice."""
        self._weights = weights
        self._form = form
        self._parked = parked
        self._epsilon = epsilon
        self._small: dict[tuple[str, ...], ov.Node] = {}

    def encoder(self, frames: ov.Node, padding: Padding | None, shape: EncoderShape) -> ov.Node:
        """The layers ``encoder.*``: [B, T, inputs] → [B, T, width]."""
        x = self.sanm_layer(frames, "encoder.encoders0.0", shape, padding)
        for n in range(shape.blocks - 1):
            x = self.sanm_layer(x, f"encoder.encoders.{n}", shape, padding)
        x = self.norm(x, "encoder.after_norm")
        for n in range(shape.tp_blocks):
            x = self.sanm_layer(x, f"encoder.tp_encoders.{n}", shape, padding)
        return self.norm(x, "encoder.tp_norm") if "encoder.tp_norm.weight" in self._weights else x

    def padding(self, mask: ov.Node) -> Padding:
        """``mask`` [B, T] is 1 for a frame and 0 for padding."""
        missing = ops.subtract(self.constant(np.float32(1)), mask)
        penalty = ops.multiply(missing, self.constant(_MASKED))
        return Padding(ops.unsqueeze(mask, self.ints(2)), ops.unsqueeze(penalty, self.ints(1, 2)))

    def sanm_layer(
        self, x: ov.Node, name: str, shape: EncoderShape, padding: Padding | None
    ) -> ov.Node:
        attended = self._self_attention(
            self.norm(x, f"{name}.norm1"), f"{name}.self_attn", shape, padding
        )
        if self.array(f"{name}.norm1.weight").shape == (shape.width,):
            attended = ops.add(x, attended)
        inner = self.linear(self.norm(attended, f"{name}.norm2"), f"{name}.feed_forward.w_1")
        return ops.add(attended, self.linear(self.positive(inner), f"{name}.feed_forward.w_2"))

    def _self_attention(
        self, x: ov.Node, name: str, shape: EncoderShape, padding: Padding | None
    ) -> ov.Node:
        joined = self.linear(x, f"{name}.linear_q_k_v")
        query, key, value = ops.split(joined, self.constant(np.int64(2)), 3).outputs()
        kept = value if padding is None else ops.multiply(value, padding.column)
        memory = self.memory(kept, f"{name}.fsmn_block.weight", shape.left_context)
        if padding is not None:
            memory = ops.multiply(memory, padding.column)
        mixed = self.attention(query, key, value, shape.heads, shape.width, padding)
        return ops.add(self.linear(mixed, f"{name}.linear_out"), memory)

    def attention(
        self,
        query: ov.Output,
        key: ov.Output,
        value: ov.Output,
        heads: int,
        width: int,
        padding: Padding | None = None,
    ) -> ov.Node:
        """Scaled dot-product attention of [B, Q, width] over [B, K, width]: [B, Q, width]."""
        mixed = ops.matmul(
            self.attention_shares(query, key, heads, width, padding),
            self._heads(value, heads, width),
            False,
            False,
        )
        mixed = ops.transpose(mixed, self.ints(0, 2, 1, 3))
        return ops.reshape(mixed, self.ints(0, 0, width), special_zero=True)

    def attention_shares(
        self, query: ov.Output, key: ov.Output, heads: int, width: int, padding: Padding | None
    ) -> ov.Node:
        """How much each query attends to each key: [B, heads, Q, K], rows of sum 1."""
        scale = self.constant(np.float32((width // heads) ** -0.5))
        scaled = ops.multiply(self._heads(query, heads, width), scale)
        scores = ops.matmul(scaled, self._heads(key, heads, width), False, True)
        if padding is not None:
            scores = ops.add(scores, padding.penalty)
        return ops.softmax(scores, -1)

    def _heads(self, part: ov.Output, heads: int, width: int) -> ov.Node:
        split = ops.reshape(part, self.ints(0, 0, heads, width // heads), special_zero=True)
        return ops.transpose(split, self.ints(0, 2, 1, 3))

    def memory(self, value: ov.Node | ov.Output, name: str, left: int) -> ov.Node:
        """``value`` [B, T, width] and its depth-wise convolution, of which ``left`` inputs lie
        before the current frame."""
        kernel = self.array(name)[:, :, None, :]
        convolved = ops.group_convolution(
            ops.transpose(value, self.ints(0, 2, 1)),
            ops.constant(kernel),
            [1],
            [left],
            [kernel.shape[-1] - 1 - left],
            [1],
        )
        return ops.add(ops.transpose(convolved, self.ints(0, 2, 1)), value)

    def positive(self, x: ov.Node) -> ov.Node:
        """max(x, 0)."""
        # OpenVINO joins a rectifier to the product before it, and for f32 that takes a kernel whose
        # layout of the weights depends on the number of rows: it would keep two copies.
        if self._form == "f32":
            return ops.maximum(x, self.constant(np.float32(0)))
        return ops.relu(x)

    def norm(self, x: ov.Node, name: str) -> ov.Node:
        normal = ops.mvn(x, self.ints(-1), True, self._epsilon, "inside_sqrt")
        return ops.add(
            ops.multiply(normal, self.array(f"{name}.weight")), self.array(f"{name}.bias")
        )

    def linear(self, x: ov.Node, name: str) -> ov.Node:
        return ops.add(self.product(x, f"{name}.weight"), self.array(f"{name}.bias"))

    def product(self, x: ov.Node, name: str) -> ov.Node:
        """``x`` times the transpose of the weight matrix ``name`` [out, in]."""
        matrix = self.array(name)
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

    def ints(self, *values: int) -> ov.Node:
        return self.constant(np.array(values, dtype=np.int64))

    def constant(self, value: npt.ArrayLike) -> ov.Node:
        """One node for each value, however often it is used."""
        array = np.asarray(value)
        key = (array.dtype.str, str(array.tolist()))
        if key not in self._small:
            self._small[key] = ops.constant(array)
        return self._small[key]

    def array(self, name: str) -> Array:
        """A tensor of the checkpoint, in fp32."""
        return np.ascontiguousarray(self._weights[name], dtype=np.float32)


def encoder_graph(builder: NetworkBuilder, shape: EncoderShape, name: str) -> ov.Model:
    """Features [B, T, inputs] with positions added, and mask [B, T] (1 = frame, 0 = padding)
    → hidden states [B, T, width]."""
    frames = ops.parameter([-1, -1, shape.inputs], ov.Type.f32, name="frames")
    mask = ops.parameter([-1, -1], ov.Type.f32, name="mask")
    hidden = builder.encoder(frames, builder.padding(mask), shape)
    return ov.Model([ops.result(hidden)], [frames, mask], name)
