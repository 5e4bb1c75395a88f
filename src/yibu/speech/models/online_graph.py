"""Paraformer for live speech as OpenVINO graphs: each layer also sees what it kept of earlier chunks.

FunASR's ``SANMEncoderChunkOpt.forward_chunk`` (``models/scama/encoder.py``) and
``ParaformerSANMDecoder.forward_chunk``. What all layers keep is one array, so that a graph has one more
input and one more output, however many layers it has.
"""

from __future__ import annotations

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from yibu.speech.models.network import NetworkBuilder
from yibu.speech.models.paraformer_graph import DecoderShape, feed_forward
from yibu.speech.models.sanm_shape import EncoderShape


def chunk_encoder(builder: NetworkBuilder, shape: EncoderShape) -> ov.Model:
    """Frames [1, T, inputs] and kept keys and values [layers, K, 2 * width] → hidden states
    [1, T, width], and the keys and values of these frames [layers, T, 2 * width]."""
    frames = ops.parameter([1, -1, shape.inputs], ov.Type.f32, name="frames")
    kept = ops.parameter([shape.blocks, -1, 2 * shape.width], ov.Type.f32, name="kept")
    x: ov.Node = frames
    made: list[ov.Node] = []
    earlier = ops.split(kept, builder.constant(np.int64(0)), shape.blocks).outputs()
    for n in range(shape.blocks):
        name = f"encoder.encoders.{n - 1}" if n else "encoder.encoders0.0"
        joined = builder.linear(builder.norm(x, f"{name}.norm1"), f"{name}.self_attn.linear_q_k_v")
        query, key, value = ops.split(joined, builder.constant(np.int64(2)), 3).outputs()
        made.append(ops.concat([key, value], 2))
        memory = builder.memory(value, f"{name}.self_attn.fsmn_block.weight", shape.left_context)
        mixed = _attended(builder, query, made[-1], earlier[n], shape.heads, shape.width)
        attended = ops.add(builder.linear(mixed, f"{name}.self_attn.linear_out"), memory)
        if shape.inputs == shape.width or n:
            attended = ops.add(x, attended)
        inner = builder.linear(builder.norm(attended, f"{name}.norm2"), f"{name}.feed_forward.w_1")
        outer = builder.linear(builder.positive(inner), f"{name}.feed_forward.w_2")
        x = ops.add(attended, outer)
    results = [builder.norm(x, "encoder.after_norm"), ops.concat(made, 0)]
    return ov.Model([ops.result(node) for node in results], [frames, kept], "online-encoder")


def chunk_decoder(builder: NetworkBuilder, shape: DecoderShape) -> ov.Model:
    """Hidden states [1, T, width], tokens [1, N, width], kept keys and values of earlier hidden states
    [attending, K, 2 * width] and kept inputs of the memory blocks [layers, left, width] → scores
    [1, N, classes], the keys and values of these states, and the memory blocks' new inputs."""
    layers = shape.attending + shape.others
    memory = ops.parameter([1, -1, shape.width], ov.Type.f32, name="memory")
    tokens = ops.parameter([1, -1, shape.width], ov.Type.f32, name="tokens")
    kept = ops.parameter([shape.attending, -1, 2 * shape.width], ov.Type.f32, name="kept")
    inputs = ops.parameter([layers, shape.left, shape.width], ov.Type.f32, name="inputs")
    axis = builder.constant(np.int64(0))
    earlier = ops.split(kept, axis, shape.attending).outputs()
    before = ops.split(inputs, axis, layers).outputs()
    x: ov.Node = tokens
    made: list[ov.Node] = []
    fresh: list[ov.Node] = []
    for n in range(layers):
        attends = n < shape.attending
        part = f"decoders.{n}" if attends else f"decoders2.{n - shape.attending}"
        name = f"{shape.name}.{part}"
        inner = builder.norm(feed_forward(builder, x, name), f"{name}.norm2")
        fresh.append(inner)
        x = ops.add(
            x, _remembered(builder, inner, before[n], f"{name}.self_attn.fsmn_block.weight")
        )
        if not attends:
            continue
        query = builder.linear(builder.norm(x, f"{name}.norm3"), f"{name}.src_attn.linear_q")
        made.append(builder.linear(memory, f"{name}.src_attn.linear_k_v"))
        mixed = _attended(builder, query.output(0), made[-1], earlier[n], shape.heads, shape.width)
        x = ops.add(x, builder.linear(mixed, f"{name}.src_attn.linear_out"))
    x = builder.norm(
        feed_forward(builder, x, f"{shape.name}.decoders3.0"), f"{shape.name}.after_norm"
    )
    scores = builder.linear(x, f"{shape.name}.output_layer")
    results = [scores, ops.concat(made, 0), ops.concat(fresh, 0)]
    return ov.Model(
        [ops.result(node) for node in results], [memory, tokens, kept, inputs], "online-decoder"
    )


def _attended(
    builder: NetworkBuilder,
    query: ov.Output,
    made: ov.Node,
    earlier: ov.Output,
    heads: int,
    width: int,
) -> ov.Node:
    both = ops.concat([earlier, made.output(0)], 1)
    key, value = ops.split(both, builder.constant(np.int64(2)), 2).outputs()
    return builder.attention(query, key, value, heads, width)


def _remembered(builder: NetworkBuilder, inner: ov.Node, before: ov.Output, name: str) -> ov.Node:
    """``inner`` and its depth-wise convolution, all of whose other inputs are earlier ones."""
    kernel = builder.array(name)[:, :, None, :]
    whole = ops.concat([before, inner.output(0)], 1)
    convolved = ops.group_convolution(
        ops.transpose(whole, builder.ints(0, 2, 1)), ops.constant(kernel), [1], [0], [0], [1]
    )
    return ops.add(ops.transpose(convolved, builder.ints(0, 2, 1)), inner)
