"""The dimensions of FunASR's SANM encoder, which SenseVoice, Paraformer and CT-Transformer share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yibu.errors import UnsupportedError
from yibu.speech.checkpoints.config import section


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """``encoder_conf`` of a ``config.yaml``, and what the checkpoint says of its ends."""

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
    def read(
        cls, config: dict[str, Any], directory: Path, *, inputs: int, width: int, classes: int
    ) -> EncoderShape:
        """Raises ``UnsupportedError`` for a network that is not built here."""
        conf = section(config, "encoder_conf", directory)
        expected = {"normalize_before": True, "selfattention_layer_type": "sanm"}
        for key, value in expected.items():
            if conf.get(key, value) != value:
                raise UnsupportedError(
                    "{directory}: encoder_conf.{key} is {conf!r}, {value!r} expected",
                    directory=directory,
                    key=key,
                    conf=conf[key],
                    value=value,
                    hint="Set `path: reference` to run this model through FunASR",
                )
        kernel = int(conf.get("kernel_size", 11))
        return cls(
            inputs=inputs,
            width=width,
            heads=int(conf["attention_heads"]),
            blocks=int(conf["num_blocks"]),
            tp_blocks=int(conf.get("tp_blocks", 0)),
            kernel=kernel,
            left_context=left_context(kernel, conf.get("sanm_shfit", 0)),
            classes=classes,
        )


def left_context(kernel: int, shift: int | None) -> int:
    """Inputs of a memory block's kernel before the current one, where ``sanm_shfit`` is ``shift``."""
    middle = (kernel - 1) // 2
    return middle + (middle if shift is None else max(0, int(shift)))
