"""Free memory of the visible cards, read before CUDA is loaded.

Engines whose share of memory is a fraction of what is free when they start get it in bytes from the
plan; the fraction is made here, because only then is it known what is free.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

_MOST = 0.95
"""A fraction above leaves the allocator no room."""
_LEAST = 0.01


def free_bytes(env: Mapping[str, str] = os.environ) -> int:
    """Bytes free on the visible card with the least.

    CUDA_VISIBLE_DEVICES has nvidia-smi's numbers, by the bus, as the plan writes them.
    """
    import pynvml

    pynvml.nvmlInit()
    try:
        named = env.get("CUDA_VISIBLE_DEVICES")
        numbers = (
            [int(word) for word in named.split(",")]
            if named
            else range(pynvml.nvmlDeviceGetCount())
        )
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in numbers]
        return min(int(pynvml.nvmlDeviceGetMemoryInfo(handle).free) for handle in handles)
    finally:
        pynvml.nvmlShutdown()


def fraction(wanted: int, free: int) -> str:
    """``wanted`` bytes as a fraction of the free ones, as a flag's value."""
    return f"{min(_MOST, max(_LEAST, wanted / max(free, 1))):.4f}"
