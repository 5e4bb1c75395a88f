"""FSMN-VAD's weights from its ONNX export (``iic/speech_fsmn_vad_zh-cn-16k-common-onnx``).

The exporter renames the matrices (``onnx::MatMul_147``), so they are found by their place. The
network is one chain, each product needing the one before: in every order in which the
operators can run, the products stand as in the network, and likewise the additions of a bias
and the convolutions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from yibu.speech.checkpoints.onnx import OnnxGraph, Operator, Tensor, read_onnx
from yibu.speech.checkpoints.pytorch import Weights


def onnx_weights(path: Path, layers: int) -> Weights:
    """The state dictionary that the model.pt of the same network holds, in float32.

    Of ``model_quant.onnx`` these are the rounded weights: they are computed with in float32,
    where ONNX Runtime would round what they are multiplied with too.

    Raises ``VerificationError`` as ``read_onnx`` does, and ``ValueError`` where the graph is
    not this network with ``layers`` memory blocks.
    """
    graph = read_onnx(path)
    matrices = [found for op in graph.operators if (found := _matrix(graph, op)) is not None]
    biases = [found for op in graph.operators if (found := _bias(graph, op)) is not None]
    taps = [graph.tensors[op.inputs[1]] for op in graph.operators if op.type == "Conv"]
    memory = [f"fsmn.{n}" for n in range(layers)]
    outer = ["in_linear1", "in_linear2", *memory, "out_linear1", "out_linear2"]
    with_matrix: list[str] = []
    for name in outer:
        inner = ("linear", "affine") if name in memory else ()
        with_matrix += [f"{name}.{part}" for part in inner] or [name]
    with_bias = [name for name in with_matrix if name.removesuffix(".linear") not in memory]
    weights: Weights = {}
    for kind, names, values in (
        ("linear.weight", with_matrix, [matrix.T for matrix in matrices]),
        ("linear.bias", with_bias, biases),
        ("fsmn_block.conv_left.weight", memory, taps),
    ):
        if len(names) != len(values):
            raise ValueError(f"{len(values)} tensors for {kind}, {len(names)} expected")
        weights |= {
            f"encoder.{name}.{kind}": value for name, value in zip(names, values, strict=True)
        }
    return weights


def _matrix(graph: OnnxGraph, operator: Operator) -> Tensor | None:
    """What ``operator`` multiplies with, [inputs, outputs]; None where it multiplies with none."""
    if operator.type not in ("MatMul", "MatMulInteger"):
        return None
    name = operator.inputs[1]
    matrix = graph.tensors[name]
    if matrix.ndim != 2:
        raise ValueError(f"{name!r} has {matrix.ndim} dimensions, a matrix expected")
    if operator.type == "MatMul":
        return matrix
    # As onnxruntime.quantization names them: one value, or one for each output.
    scale = graph.tensors[name.removesuffix("_quantized") + "_scale"]
    zero = graph.tensors[operator.inputs[3]]
    rounded: Tensor = (matrix.astype(np.float32) - zero.astype(np.float32)) * scale
    return rounded


def _bias(graph: OnnxGraph, operator: Operator) -> Tensor | None:
    if operator.type != "Add":
        return None
    known = [graph.tensors[name] for name in operator.inputs if name in graph.tensors]
    return known[0] if len(known) == 1 and known[0].ndim == 1 else None
