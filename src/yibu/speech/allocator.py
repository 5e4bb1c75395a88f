"""Settings of the C library's allocator: a server should not keep the memory it has freed."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""glibc's numbers for ``mallopt``."""
_LARGE = 1 << 20
"""Bytes from which an array gets pages of its own, returned when it is freed."""


def keep_little() -> None:
    """Let all threads share one heap, and return what is freed of it and all large arrays.

    Left to itself, glibc keeps a heap for each thread and raises its thresholds to 32 and
    64 MiB with the largest array it has seen. Does nothing with other C libraries.
    """
    if (mallopt := _function("mallopt")) is not None:
        mallopt(_ARENA_MAX, 1)
        mallopt(_MMAP_THRESHOLD, _LARGE)
        mallopt(_TRIM_THRESHOLD, 8 * _LARGE)


def give_back() -> None:
    """Return freed memory to the system: loading a model leaves holes."""
    if (trim := _function("malloc_trim")) is not None:
        trim(0)


def _function(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
