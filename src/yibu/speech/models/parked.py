"""Where weights lie that an engine has copied into its own layout: in a file, not in memory.

OpenVINO computes from copies that it lays out for the processor, and keeps the constants it
made them from. As pages of a file those can be given back, and come from disk again should
they ever be read. The file has no name: nothing can find it half written, no second engine
shares it, it never goes stale, and it ends with the process, however that ends.
"""

from __future__ import annotations

import logging
import math
import mmap
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yibu.messages import tr

log = logging.getLogger(__name__)

ALIGNMENT = 64
"""Bytes. OpenVINO copies constants that begin elsewhere."""
_SPARE = 4
"""The disk has to have so many times the size free: a full disk harms more than it helps."""


class ParkedArrays:
    """Arrays in a file without a name, or in memory where no directory can take it.

    ``capacity`` is how many bytes they take together, each rounded up to ``ALIGNMENT``. The
    first of ``directories`` that can be written and has room is taken.
    """

    def __init__(self, capacity: int, directories: Sequence[Path] | None = None) -> None:
        places = usual_directories() if directories is None else directories
        mapped = _map_file(capacity, places)
        self.in_file = mapped is not None
        self._mapped = mmap.mmap(-1, capacity) if mapped is None else mapped
        self._used = 0

    def array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """A new array, to be filled. Raises ``ValueError`` where the capacity is used up."""
        array = np.frombuffer(self._mapped, dtype, math.prod(shape), self._used).reshape(shape)
        self._used += aligned(array.nbytes)
        return array

    def release(self) -> None:
        """Give the memory of what was written back; it comes from the file when it is read."""
        if self.in_file:  # without one the pages would come back as zeros
            self._mapped.madvise(mmap.MADV_DONTNEED)


def aligned(size: int) -> int:
    """``size`` bytes rounded up to whole units of ``ALIGNMENT``."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def usual_directories() -> tuple[Path, ...]:
    """The engine's environment, which lies in yibu's cache, and the system's directory for large
    temporary files. ``/tmp`` is often memory itself."""
    return (Path(sys.prefix), Path("/var/tmp"))  # noqa: S108 - the file has no name


def _map_file(size: int, directories: Sequence[Path]) -> mmap.mmap | None:
    """``size`` bytes of a file without a name, or None where there is no place for it."""
    reasons = []
    if not (hasattr(os, "posix_fallocate") and hasattr(mmap, "MADV_DONTNEED")):
        reasons, directories = (
            [tr("{platform} cannot reserve a file's blocks", platform=sys.platform)],
            (),
        )
    for directory in directories:
        try:
            free = shutil.disk_usage(directory).free
            if free < _SPARE * size:
                reasons.append(
                    tr("{directory} has {free} MiB free", directory=directory, free=free >> 20)
                )
                continue
            with tempfile.TemporaryFile(dir=directory) as file:
                # Without its blocks, a page written on a full disk would end the process.
                os.posix_fallocate(file.fileno(), 0, size)
                return mmap.mmap(file.fileno(), size)
        except OSError as error:
            reasons.append(str(error))
    log.warning(
        "the engine takes about %d MiB more memory, for want of a place on disk: %s",
        size >> 20,
        "; ".join(reasons) or "no directory is given",
    )
    return None
