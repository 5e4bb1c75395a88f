"""Who was promised which memory, so that models that come up at once do not count on the same.

Placing is one after the other. What was placed stays reserved until its engine is ready; from
then on the machine's own figures tell what it takes.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from yibu.config import ModelConfig
from yibu.errors import DoesNotFitError
from yibu.node import processes
from yibu.node.names import replica_id
from yibu.node.process import EngineProcess
from yibu.planner.ledger import Beside, Promise, promised_memory
from yibu.planner.types import Placement

_log = logging.getLogger(__name__)

Attempt = Callable[[int, Beside], Awaitable[Placement]]
"""Places the replica of that number beside what is promised and coming; raises DoesNotFitError."""


class Ledger:
    """Of one node; used from its event loop's thread."""

    def __init__(self) -> None:
        self._placing = asyncio.Lock()
        self._coming: dict[str, ModelConfig] = {}
        self._promises: dict[str, Promise] = {}
        self._processes: dict[str, EngineProcess | None] = {}
        self._settled = asyncio.Event()

    def announce(self, config: ModelConfig) -> None:
        """The model comes up and wants a place; until it has one, others leave it some room."""
        self._coming[config.name] = config

    def withdraw(self, model: str) -> None:
        """It has its place, or wants none any more."""
        self._coming.pop(model, None)

    def promise(self, replica: str, gpus: tuple[int, ...], memory: int) -> None:
        """Reserve it; again for the same replica changes nothing but the figures."""
        if memory:
            self._promises[replica] = Promise(replica, gpus, memory)

    def runs(self, replica: str, process: EngineProcess | None) -> None:
        """The replica's process, whose part of the promise is measured already."""
        self._processes[replica] = process

    def settle(self, replica: str) -> None:
        """The replica is ready or gone: what it takes is measured from now on."""
        self._processes.pop(replica, None)
        if self._promises.pop(replica, None) is not None:
            self._settled.set()
            self._settled = asyncio.Event()

    async def place(
        self, model: str, replicas: int, attempt: Attempt, waits: Callable[[list[str]], None]
    ) -> list[Placement]:
        """Place a model's replicas and promise them their memory.

        Where they do not fit beside what is promised to others, but would without, it waits
        until one of the others is ready, for a plan has reserves that an engine may not use.
        ``waits`` is called then, with the replicas that are waited for.

        Raises:
            DoesNotFitError: they do not fit, whatever is promised.
        """
        names = [replica_id(model, number) for number in range(replicas)]
        while True:
            async with self._placing:
                others = await self._open(names)
                coming = tuple(c for name, c in self._coming.items() if name != model)
                placements = await self._attempt(names, attempt, Beside(tuple(others), coming))
                if placements is not None:
                    self.withdraw(model)
                    return placements
                settled = self._settled
            waits([promise.replica for promise in others])
            await settled.wait()

    async def _attempt(
        self, names: Sequence[str], attempt: Attempt, beside: Beside
    ) -> list[Placement] | None:
        """None when there is something to wait for."""
        try:
            placements = await _all(names, attempt, beside)
        except DoesNotFitError:
            if not beside.promises:
                raise
            # No use in waiting for what would not help.
            await _all(names, attempt, dataclasses.replace(beside, promises=()))
            return None
        for name, placement in zip(names, placements, strict=True):
            self.promise(name, placement.gpus, promised_memory(placement))
        return placements

    async def _open(self, own: Sequence[str]) -> list[Promise]:
        """What is promised to others, and what they hold of it by now."""
        if not self._promises.keys() - set(own):
            return []
        table = await asyncio.to_thread(processes.snapshot)
        return [
            self._measured(promise, table)
            for name, promise in self._promises.items()
            if name not in own
        ]

    def _measured(self, promise: Promise, table: Mapping[int, processes.ProcessInfo]) -> Promise:
        process = self._processes.get(promise.replica)
        if process is None:
            return promise
        pids = frozenset(identity.pid for identity in processes.family(process.identity, table))
        resident = sum(table[pid].rss_bytes for pid in pids)
        return dataclasses.replace(promise, pids=pids, resident=resident)


async def _all(names: Sequence[str], attempt: Attempt, beside: Beside) -> list[Placement]:
    """Each replica beside the others and the replicas before it."""
    taken, placements = beside.promises, []
    for number, name in enumerate(names):
        placement = await attempt(number, dataclasses.replace(beside, promises=taken))
        placements.append(placement)
        taken = (*taken, Promise(name, placement.gpus, promised_memory(placement)))
    return placements
