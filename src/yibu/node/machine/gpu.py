"""Waiting until the driver has given a dead engine's GPU memory back.

A process's memory on a GPU outlives the process by up to seconds; an engine that starts into that
window measures too little free memory and fails, or plans too small a cache.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Sequence
from types import ModuleType
from typing import Protocol

from yibu.node.machine import mig

_log = logging.getLogger(__name__)
_POLL = 0.25
_SETTLED = 3
"""Equal readings in a row after which memory counts as given back."""


class GpuMemory(Protocol):
    """A blocking reader of GPU memory; called in a thread."""

    def read(self, gpus: Sequence[int]) -> tuple[tuple[int, ...], frozenset[int]]:
        """Free bytes of each GPU (empty: not known), and the pids that hold memory on them."""
        ...


class Nvml:
    """Reads NVML. Without an NVIDIA driver nothing is waited for."""

    def read(self, gpus: Sequence[int]) -> tuple[tuple[int, ...], frozenset[int]]:
        import pynvml

        try:
            pynvml.nvmlInit()
            try:
                return _read(pynvml, gpus)
            finally:
                pynvml.nvmlShutdown()
        except pynvml.NVMLError as error:
            _log.warning("NVML: %s; GPU memory is not waited for", error)
            return (), frozenset()


def _read(pynvml: ModuleType, gpus: Sequence[int]) -> tuple[tuple[int, ...], frozenset[int]]:
    handles = [mig.handle(pynvml, index) for index in gpus]
    free = tuple(int(pynvml.nvmlDeviceGetMemoryInfo(handle).free) for handle in handles)
    running = [pynvml.nvmlDeviceGetComputeRunningProcesses(handle) for handle in handles]
    return free, frozenset(int(process.pid) for each in running for process in each)


async def wait_released(
    memory: GpuMemory, gpus: Sequence[int], pids: Collection[int], timeout: float
) -> bool:
    """Wait until none of ``pids`` holds memory on ``gpus`` and free memory has stopped rising.

    Both are asked because inside a container NVML gives the host's pids, or none. Returns False
    when ``timeout`` seconds did not suffice.
    """
    if not gpus:
        return True
    deadline = time.monotonic() + timeout
    free, holders = await asyncio.to_thread(memory.read, gpus)
    same = 0
    while free and (same < _SETTLED or holders & set(pids)):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_POLL)
        before = free
        free, holders = await asyncio.to_thread(memory.read, gpus)
        risen = any(now > then for now, then in zip(free, before, strict=False))
        same = 0 if risen else same + 1
    return True
