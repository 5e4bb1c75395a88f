"""SenseVoice's network in PyTorch, for CUDA.

The same network as ``openvino_encoder.py`` builds, over the same checkpoint. Matrix products
are in bf16 (or fp32), layer norms in fp32, the scores in fp32.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from yibu.errors import EngineStartError
from yibu.messages import tr
from yibu.speech.checkpoints.config import of_one_model
from yibu.speech.checkpoints.pytorch import read_checkpoint
from yibu.speech.models.grouping import Classes, encoder_input, in_groups, with_queries
from yibu.speech.models.sanm_shape import EncoderShape
from yibu.speech.models.sensevoice import sensevoice_shape
from yibu.speech.types import Features

try:
    import torch
    import torch.nn.functional as F  # noqa: N812 - as PyTorch itself writes it
except ImportError as error:
    raise EngineStartError(
        "the device cuda needs PyTorch, and it cannot be imported: {error}",
        error=error,
        hint="Use the environment speech-torch, or set `device: cpu`",
        cause="missing_package",
    ) from error

_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
_EPSILON = 1e-5


class TorchEncoder:
    """See ``Encoder`` in ``sensevoice.py``."""

    backend = "torch"

    def __init__(
        self,
        weights: dict[str, torch.Tensor],
        shape: EncoderShape,
        *,
        precision: str,
        device: str,
        banned: tuple[int, ...],
    ) -> None:
        self.precision = precision
        self.input_size = shape.inputs
        self.classes = shape.classes
        self._shape = shape
        self._device = torch.device(device)
        self._queries = weights["embed.weight"].float().numpy()
        weights["ctc.ctc_lo.bias"][list(banned)] = torch.finfo(torch.float32).min / 2
        dtype = _PRECISIONS[precision]
        self._weights = {
            name: tensor.to(self._device, torch.float32 if "norm" in name else dtype)
            for name, tensor in weights.items()
        }
        # In bf16 the ban would round to minus infinity, and a score to no number.
        self._head_bias = weights["ctc.ctc_lo.bias"].to(self._device, torch.float32)

    @classmethod
    def load(
        cls, directory: Path, *, precision: str, device: str, threads: int, banned: tuple[int, ...]
    ) -> TorchEncoder:
        """Raises ``EngineStartError`` where PyTorch sees no such device."""
        torch.set_num_threads(threads)
        if device.startswith("cuda"):
            _check_cuda(device)
            if precision == "fp32":
                # cuDNN would else round a convolution's inputs to TF32's 11 bits.
                torch.backends.cudnn.allow_tf32 = False
        arrays = read_checkpoint(directory / "model.pt").tensors
        with of_one_model(directory):
            shape = sensevoice_shape(directory, arrays)
            weights = {
                name: torch.from_numpy(np.array(array, dtype=np.float32))
                for name, array in arrays.items()
            }
            return cls(weights, shape, precision=precision, device=device, banned=banned)

    def encode(
        self, features: Sequence[Features], languages: Sequence[int], styles: Sequence[int]
    ) -> list[Classes]:
        whole = with_queries(features, languages, styles, self._queries)
        return in_groups(self._encode, whole)

    @torch.inference_mode()  # type: ignore[untyped-decorator]  # where torch is not installed
    def _encode(self, features: Sequence[Features]) -> list[Classes]:
        frames, mask = encoder_input(features, self._shape.width)
        x = torch.from_numpy(frames).to(self._device, _PRECISIONS[self.precision])
        keep = torch.from_numpy(mask).to(self._device).bool()
        x = self._layer(x, "encoder.encoders0.0", keep, residual=False)
        for n in range(self._shape.blocks - 1):
            x = self._layer(x, f"encoder.encoders.{n}", keep)
        x = self._norm(x, "encoder.after_norm")
        for n in range(self._shape.tp_blocks):
            x = self._layer(x, f"encoder.tp_encoders.{n}", keep)
        x = self._norm(x, "encoder.tp_norm")
        scores = F.linear(x, self._weights["ctc.ctc_lo.weight"]).float() + self._head_bias
        best = scores.argmax(dim=-1).cpu().numpy()
        return [row[: len(own)] for row, own in zip(best, features, strict=True)]

    def _layer(
        self, x: torch.Tensor, name: str, keep: torch.Tensor, *, residual: bool = True
    ) -> torch.Tensor:
        attended = self._attention(self._norm(x, f"{name}.norm1"), f"{name}.self_attn", keep)
        if residual:
            attended = x + attended
        inner = F.relu(
            self._linear(self._norm(attended, f"{name}.norm2"), f"{name}.feed_forward.w_1")
        )
        return attended + self._linear(inner, f"{name}.feed_forward.w_2")

    def _attention(self, x: torch.Tensor, name: str, keep: torch.Tensor) -> torch.Tensor:
        shape = self._shape
        query, key, value = self._linear(x, f"{name}.linear_q_k_v").chunk(3, dim=-1)

        def heads(part: torch.Tensor) -> torch.Tensor:
            return part.view(*part.shape[:2], shape.heads, -1).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(
            heads(query), heads(key), heads(value), attn_mask=keep[:, None, None, :]
        )
        column = keep[:, :, None].to(x.dtype)
        value = value * column
        padded = F.pad(
            value.transpose(1, 2), (shape.left_context, shape.kernel - 1 - shape.left_context)
        )
        kernel = self._weights[f"{name}.fsmn_block.weight"]
        memory = F.conv1d(padded, kernel, groups=shape.width).transpose(1, 2) + value
        mixed = self._linear(mixed.transpose(1, 2).flatten(2), f"{name}.linear_out")
        return mixed + memory * column

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        normal = F.layer_norm(x.float(), (x.shape[-1],), weight, bias, _EPSILON)
        return normal.to(x.dtype)


def usual_precision(device: str) -> str:
    """``bf16`` where ``device`` computes in it (Ampere and later), else ``fp32``.

    Raises ``EngineStartError`` where PyTorch sees no such device.
    """
    _check_cuda(device)
    return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"


def _check_cuda(device: str) -> None:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    number = int(device.partition(":")[2] or 0)
    if number >= count:
        seen = (
            tr("{count} CUDA devices, counted from 0", count=count)
            if count
            else tr("no CUDA device")
        )
        raise EngineStartError(
            "device {device}: PyTorch {version} sees {seen}",
            device=device,
            version=torch.__version__,
            seen=seen,
            hint="Check nvidia-smi and the driver, or set `device: cpu`",
            cause="no_cuda",
        )
