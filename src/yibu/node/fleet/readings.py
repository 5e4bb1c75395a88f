"""Measuring the machine's memory for the scheduler, and what engines hold of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from yibu import descriptors
from yibu.node.launch.process import EngineProcess
from yibu.node.machine import processes
from yibu.node.scheduler import Holding, Reading
from yibu.planner.types import Machine

_log = logging.getLogger(__name__)
_TRIES = 5


async def patiently(read: Callable[[], Reading]) -> Reading:
    """A reading; of a machine without memory where it cannot be had: nothing fits then, which is said
    of each model. ``read`` is called in a thread."""
    for _ in range(_TRIES):
        try:
            return await asyncio.to_thread(descriptors.patiently, read)
        except Exception:  # noqa: BLE001 - a driver that fails once must not end the placing
            _log.exception("the machine's memory was not read")
            await asyncio.sleep(1)
    return Reading(Machine("", 1, 1, 0, 0))


def holdings(engines: Mapping[str, EngineProcess]) -> dict[str, Holding]:
    """What the processes of each engine hold. Blocking."""
    table = processes.snapshot()
    found = {}
    for name, process in engines.items():
        family = processes.family(process.identity, table)
        pids = frozenset(identity.pid for identity in family)
        found[name] = Holding(pids, sum(processes.held_bytes(table[pid]) for pid in pids))
    return found
