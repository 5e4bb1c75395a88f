"""Slices of NVIDIA GPUs (MIG): each is a GPU of its own to CUDA, and so it is to yibu.

A GPU in MIG mode is replaced by its slices. They have no number of their own that CUDA would take, so
the first slice of GPU 0 is 100 here, of GPU 1 200; an engine is shown them by their UUIDs
(NVIDIA's MIG User Guide, "CUDA Device Enumeration").
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

_FIRST = 100


def number(gpu: int, part: int) -> int:
    """What yibu calls a slice: more than any GPU's own index."""
    return _FIRST * (gpu + 1) + part


def gpu_of(index: int) -> int:
    """The GPU that a number means, or the one it is a slice of."""
    return index // _FIRST - 1 if index >= _FIRST else index


def slices(nvml: ModuleType, handle: Any) -> dict[int, Any]:
    """Handles of a GPU's slices by their place; empty for a GPU that is not in MIG mode."""
    try:
        if not nvml.nvmlDeviceGetMigMode(handle)[0]:
            return {}
        most = nvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    except nvml.NVMLError:
        return {}  # most GPUs know no MIG mode at all
    found = {}
    for part in range(most):
        try:
            found[part] = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, part)
        except nvml.NVMLError:
            continue  # places may be free
    return found


def handle(nvml: ModuleType, index: int) -> Any:
    """NVML's handle of a GPU or of a slice.

    Raises:
        NVMLError: There is no such one.
    """
    whole = nvml.nvmlDeviceGetHandleByIndex(gpu_of(index))
    if index < _FIRST:
        return whole
    return nvml.nvmlDeviceGetMigDeviceHandleByIndex(whole, index % _FIRST)


def by_uuid(env: Mapping[str, str], nvml: ModuleType | None = None) -> dict[str, str]:
    """An engine's environment with CUDA_VISIBLE_DEVICES as CUDA takes it: slices by UUID."""
    shown = [entry.strip() for entry in env.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    if not any(entry.isdigit() and int(entry) >= _FIRST for entry in shown):
        return dict(env)
    driver = nvml or importlib.import_module("pynvml")
    driver.nvmlInit()
    try:
        names = [
            _uuid(driver, int(entry)) if entry.isdigit() and int(entry) >= _FIRST else entry
            for entry in shown
        ]
    finally:
        driver.nvmlShutdown()
    return {**env, "CUDA_VISIBLE_DEVICES": ",".join(names)}


def _uuid(nvml: ModuleType, index: int) -> str:
    name = nvml.nvmlDeviceGetUUID(handle(nvml, index))
    return name.decode() if isinstance(name, bytes) else str(name)
