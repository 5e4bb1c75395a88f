"""The environment variables that show a program some of a machine's GPUs."""

from __future__ import annotations

GPU_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "ASCEND_RT_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
)
_NO_GPU = frozenset({"", "-1", "none", "void", "NoDevFiles"})


def shown_gpus(value: str) -> tuple[int, ...] | None:
    """The numbers of the GPUs that a value shows; None where it names some by UUID."""
    parts = [part.strip() for part in value.split(",")]
    if parts[0] in _NO_GPU:
        return ()
    if all(part.isdigit() for part in parts):
        return tuple(map(int, parts))
    return None
