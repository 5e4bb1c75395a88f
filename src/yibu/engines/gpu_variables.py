"""Environment variables that restrict a program to some of a machine's GPUs."""

from __future__ import annotations

from collections.abc import Sequence

GPU_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "ASCEND_RT_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
)
_NO_GPU = frozenset({"", "-1", "none", "void", "NoDevFiles"})


def shown_gpus(value: str) -> tuple[int, ...] | None:
    """The GPUs in a variable's value; None where it names some by UUID."""
    parts = [part.strip() for part in value.split(",")]
    if parts[0] in _NO_GPU:
        return ()
    if all(part.isdigit() for part in parts):
        return tuple(map(int, parts))
    return None


def visible_gpus(gpus: Sequence[int]) -> dict[str, str]:
    """The variables that show an engine these GPUs alone, by nvidia-smi's numbers.

    CUDA would else number them by speed, and the numbers of a placement follow the bus. Each maker's
    runtime reads its own variable and no other's.
    """
    numbers = ",".join(map(str, gpus))
    return {
        "CUDA_VISIBLE_DEVICES": numbers,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "HIP_VISIBLE_DEVICES": numbers,
        "ASCEND_RT_VISIBLE_DEVICES": numbers,
    }
