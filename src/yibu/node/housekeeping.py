"""The node's periodic work: rotating logs and reaping orphans."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from yibu.config.names import generation_of
from yibu.node.logs import LogRotation, rotate_if_large
from yibu.node.machine.orphans import OrphanReaper
from yibu.paths import log_name

_GENERATIONS = 3
"""Configurations of a model whose logs are kept."""
_log = logging.getLogger(__name__)
_ORPHANS_EVERY = 5.0
"""Seconds between two looks for orphans that died unnoticed."""


async def rotate_logs(files: Callable[[], Iterable[Path]], rotation: LogRotation) -> None:
    """Bound the live log files, for ever. They are looked at often, because a flood fills a disk
    in seconds."""
    while True:
        await asyncio.sleep(rotation.every)
        for path in files():
            try:
                if rotation.due(path):  # a thread for each look would cost more than the look
                    await asyncio.to_thread(rotate_if_large, path, rotation)
            except OSError as error:  # no descriptors, a broken disk: the next round may do better
                _log.warning("the log %s was not looked at: %s", path, error)


async def reap_orphans(engines: Callable[[], Sequence[int]]) -> None:
    """Take the exit status of orphans, for ever; ``engines`` are pids whose owners read it."""
    reaper = OrphanReaper()
    while True:
        await asyncio.sleep(_ORPHANS_EVERY)
        try:
            await asyncio.to_thread(reaper.look, engines())
        except OSError as error:
            _log.warning("orphans were not looked for once: %s", error)


def remove_old_logs(directory: Path, model: str, generation: int) -> None:
    """Remove the logs of a model's configurations before the last few. Blocking."""
    for path in directory.glob("*.log*"):
        number = generation_of(log_name(path), model)
        if number is not None and number <= generation - _GENERATIONS:
            path.unlink(missing_ok=True)
