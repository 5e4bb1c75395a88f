"""SenseVoiceSmall as OpenVINO graphs: FunASR's ``SenseVoiceEncoderSmall`` and its CTC head."""

from __future__ import annotations

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from yibu.speech.models.network import NetworkBuilder
from yibu.speech.models.sanm_shape import EncoderShape

NORM_EPSILON = 1e-5
"""Of SenseVoice's layer norms, which are not FunASR's other models'."""


def encoder_graph(
    builder: NetworkBuilder, shape: EncoderShape, name: str = "sensevoice-encoder"
) -> ov.Model:
    """Features [B, T, inputs] with positions added, and mask [B, T] (1 = frame, 0 = padding)
    → hidden states [B, T, width]."""
    frames = ops.parameter([-1, -1, shape.inputs], ov.Type.f32, name="frames")
    mask = ops.parameter([-1, -1], ov.Type.f32, name="mask")
    hidden = builder.encoder(frames, builder.padding(mask), shape)
    return ov.Model([ops.result(hidden)], [frames, mask], name)


def head_graph(builder: NetworkBuilder, shape: EncoderShape, banned: tuple[int, ...]) -> ov.Model:
    """Hidden states [N, width] → scores [N, classes]; ``banned`` classes never score best."""
    hidden = ops.parameter([-1, shape.width], ov.Type.f32, name="hidden")
    bias = builder.array("ctc.ctc_lo.bias").copy()
    bias[list(banned)] = np.finfo(np.float32).min / 2
    scores = ops.add(builder.product(hidden, "ctc.ctc_lo.weight"), bias)
    return ov.Model([ops.result(scores)], [hidden], "sensevoice-head")
