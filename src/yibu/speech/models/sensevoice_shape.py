"""The dimensions of a SenseVoice network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yibu.errors import UnsupportedError
from yibu.speech.modelconfig import section
from yibu.speech.weights import Weights


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """``encoder_conf`` of a SenseVoice ``config.yaml``, and the checkpoint's outer widths."""

    inputs: int
    """Features a frame."""
    width: int
    heads: int
    blocks: int
    """Layers before ``after_norm``, the first one included."""
    tp_blocks: int
    kernel: int
    left_context: int
    """Frames of the memory block's kernel that lie before the current one."""
    classes: int

    @classmethod
    def read(cls, config: dict[str, Any], weights: Weights, directory: Path) -> EncoderShape:
        """Raises ``UnsupportedError`` for a network that this module does not build."""
        conf = section(config, "encoder_conf", directory)
        expected = {"normalize_before": True, "selfattention_layer_type": "sanm"}
        for key, value in expected.items():
            if conf.get(key, value) != value:
                raise UnsupportedError(
                    f"{directory}: encoder_conf.{key} is {conf[key]!r}, {value!r} expected",
                    hint="set `path: reference` to run this model through FunASR",
                )
        kernel = int(conf.get("kernel_size", 11))
        classes, width = weights["ctc.ctc_lo.weight"].shape
        return cls(
            inputs=weights["embed.weight"].shape[1],
            width=width,
            heads=int(conf["attention_heads"]),
            blocks=int(conf["num_blocks"]),
            tp_blocks=int(conf.get("tp_blocks", 0)),
            kernel=kernel,
            left_context=(kernel - 1) // 2 + max(0, int(conf.get("sanm_shfit", 0))),
            classes=classes,
        )
