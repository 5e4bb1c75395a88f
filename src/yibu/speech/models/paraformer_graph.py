"""Paraformer's predictor and decoder as OpenVINO graphs, for one segment at a time.

The networks are FunASR's ``CifPredictorV2`` and ``CifPredictorV3`` (``models/paraformer/`` and
``models/bicif_paraformer/cif_predictor.py``) and ``ParaformerSANMDecoder``
(``models/paraformer/decoder.py``). A segment goes through them alone, because padding would be heard.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from yibu.errors import UnsupportedError
from yibu.speech.checkpoints.config import section
from yibu.speech.models.network import Array, NetworkBuilder
from yibu.speech.models.sanm_shape import left_context

_PREDICTORS = ("CifPredictorV2", "CifPredictorV3")


@dataclass(frozen=True, slots=True)
class PredictorShape:
    """``predictor`` and ``predictor_conf`` of a ``config.yaml``."""

    kind: str
    left: int
    """Frames before the current one that its convolution reads."""
    smooth: float
    noise: float
    tail: float
    """What is added after the last frame, so that a last token may be complete."""
    upsampled: int
    """Parts of a frame in which times are told; 1 where the predictor has no network for them."""
    upsample_smooth: float
    upsample_noise: float
    upsample_convolved: bool
    recurrent: bool

    @classmethod
    def read(cls, config: dict[str, Any], directory: Path) -> PredictorShape:
        """Raises ``UnsupportedError`` for a predictor that is not built here."""
        kind = str(config.get("predictor"))
        conf = section(config, "predictor_conf", directory)
        timed = kind == "CifPredictorV3"
        upsampling = str(conf.get("upsample_type", "cnn")) if timed else "none"
        threshold = float(conf.get("threshold", 1.0))
        if kind not in _PREDICTORS or upsampling == "cnn_attn" or threshold != 1.0:
            raise UnsupportedError(
                "{directory}: predictor {kind}, upsample_type {upsampling}, threshold "
                "{threshold:g}; {predictors} with upsample_type cnn or cnn_blstm and "
                "threshold 1 expected",
                directory=directory,
                kind=kind,
                upsampling=upsampling,
                threshold=threshold,
                predictors=" or ".join(_PREDICTORS),
                hint="Set `path: reference` to run this model through FunASR",
            )
        return cls(
            kind=kind,
            left=int(conf["l_order"]),
            smooth=float(conf.get("smooth_factor", 1.0)),
            noise=float(conf.get("noise_threshold", 0)),
            tail=float(conf.get("tail_threshold", 0.0)),
            upsampled=int(conf.get("upsample_times", 5)) if timed else 1,
            upsample_smooth=float(conf.get("smooth_factor2", 1.0)),
            upsample_noise=float(conf.get("noise_threshold2", 0)),
            upsample_convolved=bool(conf.get("use_cif1_cnn", True)),
            recurrent=upsampling == "cnn_blstm",
        )


def predictor_graph(builder: NetworkBuilder, width: int, shape: PredictorShape) -> ov.Model:
    """Hidden states [1, T, width] → alphas [T]."""
    hidden = ops.parameter([1, -1, width], ov.Type.f32, name="hidden")
    inner = _convolved(builder, hidden, shape)
    alphas = _alphas(builder, inner, "predictor.cif_output", shape.smooth, shape.noise)
    return ov.Model([ops.result(alphas)], [hidden], "paraformer-predictor")


def times_graph(builder: NetworkBuilder, width: int, shape: PredictorShape) -> ov.Model:
    """Hidden states [1, T, width] → alphas [T * upsampled] that tell times."""
    hidden = ops.parameter([1, -1, width], ov.Type.f32, name="hidden")
    inner: ov.Node = hidden
    if shape.upsample_convolved:
        inner = _convolved(builder, hidden, shape)
    # A transposed convolution whose stride is its length is one product a part of the frame.
    kernel = builder.array("predictor.upsample_cnn.weight").transpose(0, 2, 1)
    flat = ops.matmul(inner, ops.constant(kernel.reshape(width, -1)), False, False)
    finer = ops.reshape(flat, builder.ints(1, -1, width), special_zero=False)
    finer = ops.add(finer, builder.array("predictor.upsample_cnn.bias"))
    if shape.recurrent:
        finer = _both_ways(builder, finer, "predictor.blstm", width)
    alphas = _alphas(
        builder, finer, "predictor.cif_output2", shape.upsample_smooth, shape.upsample_noise
    )
    return ov.Model([ops.result(alphas)], [hidden], "paraformer-times")


def _convolved(builder: NetworkBuilder, hidden: ov.Node, shape: PredictorShape) -> ov.Node:
    kernel = builder.array("predictor.cif_conv1d.weight")
    found = ops.convolution(
        ops.transpose(hidden, builder.ints(0, 2, 1)),
        ops.constant(kernel),
        [1],
        [shape.left],
        [kernel.shape[2] - 1 - shape.left],
        [1],
    )
    found = ops.add(
        ops.transpose(found, builder.ints(0, 2, 1)), builder.array("predictor.cif_conv1d.bias")
    )
    return ops.relu(found)


def _alphas(
    builder: NetworkBuilder, inner: ov.Node, name: str, smooth: float, noise: float
) -> ov.Node:
    """relu(smooth · sigmoid(linear) − noise), flat."""
    likely = ops.sigmoid(builder.linear(inner, name))
    scaled = ops.multiply(likely, builder.constant(np.float32(smooth)))
    kept = ops.relu(ops.subtract(scaled, builder.constant(np.float32(noise))))
    return ops.reshape(kept, builder.ints(-1), special_zero=False)


def _both_ways(builder: NetworkBuilder, x: ov.Node, name: str, width: int) -> ov.Node:
    """PyTorch's bidirectional LSTM of one layer: [1, T, width] → [1, T, 2 * width]."""

    def gates(part: str) -> Array:
        # PyTorch's order is input, forget, cell, output; OpenVINO's forget, input, cell, output.
        found = []
        for end in ("", "_reverse"):
            i, f, c, o = np.split(builder.array(f"{name}.{part}_l0{end}"), 4)
            found.append(np.concatenate((f, i, c, o)))
        return np.stack(found)

    bias = gates("bias_ih") + gates("bias_hh")
    zeros = builder.constant(np.zeros((1, 2, width), np.float32))
    length = ops.gather(ops.shape_of(x), builder.ints(1), builder.constant(np.int64(0)))
    states = ops.lstm_sequence(
        x, zeros, zeros, length,
        ops.constant(gates("weight_ih")), ops.constant(gates("weight_hh")), ops.constant(bias),
        width, "bidirectional",
    ).output(0)  # fmt: skip
    joined = ops.transpose(states, builder.ints(0, 2, 1, 3))
    return ops.reshape(joined, builder.ints(1, -1, 2 * width), special_zero=False)


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """A ``ParaformerSANMDecoder`` or ``ContextualParaformerDecoder``, by its ``decoder_conf``."""

    name: str
    """Of its tensors: ``decoder`` or ``seaco_decoder``."""
    width: int
    heads: int
    attending: int
    """Layers that attend to the encoder's frames."""
    others: int
    left: int
    other_left: int
    contextual: bool
    """The last attending layer attends to hotwords too."""

    @classmethod
    def read(
        cls, config: dict[str, Any], directory: Path, *, width: int, name: str = "decoder"
    ) -> DecoderShape:
        """Raises ``UnsupportedError`` for a decoder that is not built here."""
        kind = config.get(name)
        conf = section(config, f"{name}_conf", directory)
        contextual = kind == "ContextualParaformerDecoder"
        known = kind == "ParaformerSANMDecoder" or contextual
        if not (known and conf.get("normalize_before", True)):
            raise UnsupportedError(
                "{directory}: {name} is {kind!r}, ParaformerSANMDecoder with "
                "normalize_before expected",
                directory=directory,
                name=name,
                kind=kind,
                hint="Set `path: reference` to run this model through FunASR",
            )
        attending = int(conf.get("att_layer_num", 6))
        kernel = int(conf.get("kernel_size", 21))
        return cls(
            name=name,
            width=width,
            heads=int(conf.get("attention_heads", 4)),
            attending=attending,
            others=max(0, int(conf.get("num_blocks", 6)) - attending),
            left=left_context(kernel, conf.get("sanm_shfit", 0)),
            other_left=left_context(kernel, 0),
            contextual=contextual,
        )


def decoder_graph(
    builder: NetworkBuilder,
    shape: DecoderShape,
    *,
    output: str | None = None,
    watched: int | None = None,
) -> ov.Model:
    """Hidden states [1, T, width], token embeddings [1, N, width] and, where it is contextual, vectors
    of hotwords [1, M, width] → states [1, N, width].

    Further outputs: the scores [1, N, classes] that the layer ``output`` makes of them, and how much
    the tokens attend to each of T in the layer ``watched``, summed over heads and tokens [T].
    """
    memory = ops.parameter([1, -1, shape.width], ov.Type.f32, name="memory")
    tokens = ops.parameter([1, -1, shape.width], ov.Type.f32, name="tokens")
    inputs = [memory, tokens]
    x: ov.Node = tokens
    seen: list[ov.Node] = []
    for n in range(shape.attending - shape.contextual):
        name = f"{shape.name}.decoders.{n}"
        x = _token_layer(builder, x, name, shape.left)
        mixed, shares = _attended(builder, shape, x, memory, name, watched=n == watched)
        seen += shares
        x = ops.add(x, mixed)
    if shape.contextual:
        hotwords = ops.parameter([1, -1, shape.width], ov.Type.f32, name="hotwords")
        inputs.append(hotwords)
        name = f"{shape.name}.last_decoder"
        x = _token_layer(builder, x, name, shape.left)
        mixed, _ = _attended(builder, shape, x, memory, name)
        biased, _ = _attended(builder, shape, x, hotwords, f"{shape.name}.bias_decoder")
        kernel = builder.array(f"{shape.name}.bias_output.weight")[:, :, 0]
        joined = ops.concat([mixed, biased], 2)
        x = ops.add(x, ops.matmul(joined, ops.constant(np.ascontiguousarray(kernel)), False, True))
    for n in range(shape.others):
        x = _token_layer(builder, x, f"{shape.name}.decoders2.{n}", shape.other_left)
    x = feed_forward(builder, x, f"{shape.name}.decoders3.0")
    states = builder.norm(x, f"{shape.name}.after_norm")
    scores = [] if output is None else [builder.linear(states, output)]
    results = [ops.result(node) for node in (states, *scores, *seen)]
    return ov.Model(results, inputs, shape.name)


def _attended(
    builder: NetworkBuilder,
    shape: DecoderShape,
    x: ov.Node,
    memory: ov.Node,
    name: str,
    *,
    watched: bool = False,
) -> tuple[ov.Node, list[ov.Node]]:
    """What the tokens ``x`` take from ``memory``; where ``watched``, from which of it [T]."""
    query = builder.linear(builder.norm(x, f"{name}.norm3"), f"{name}.src_attn.linear_q")
    joined = builder.linear(memory, f"{name}.src_attn.linear_k_v")
    key, value = ops.split(joined, builder.constant(np.int64(2)), 2).outputs()
    seen = []
    if watched:
        shares = builder.attention_shares(query.output(0), key, shape.heads, shape.width, None)
        seen.append(ops.reduce_sum(shares, builder.ints(0, 1, 2), False))
    mixed = builder.attention(query.output(0), key, value, shape.heads, shape.width)
    return builder.linear(mixed, f"{name}.src_attn.linear_out"), seen


def feed_forward(builder: NetworkBuilder, x: ov.Node, name: str) -> ov.Node:
    """The decoder's feed-forward part, with a norm within it and without a residual."""
    inner = builder.linear(builder.norm(x, f"{name}.norm1"), f"{name}.feed_forward.w_1")
    normal = builder.norm(builder.positive(inner), f"{name}.feed_forward.norm")
    return builder.product(normal, f"{name}.feed_forward.w_2.weight")


def _token_layer(builder: NetworkBuilder, x: ov.Node, name: str, left: int) -> ov.Node:
    inner = builder.norm(feed_forward(builder, x, name), f"{name}.norm2")
    return ops.add(x, builder.memory(inner, f"{name}.self_attn.fsmn_block.weight", left))
