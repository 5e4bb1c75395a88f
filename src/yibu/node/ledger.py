"""Who was promised which memory, so that models that come up at once do not count on the same.

Placing is one after the other. What was placed stays reserved for as long as its engine lives: what
it holds of it is measured, and what it has not touched yet is not free either. Of a GPU it is reserved
until the engine is ready, which has then taken all.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from yibu.config import ModelConfig
from yibu.config.names import replica_id
from yibu.errors import DoesNotFitError
from yibu.node import processes
from yibu.node.process import EngineProcess
from yibu.planner.ledger import Beside, Coming, Promise, promised_host, promised_memory
from yibu.planner.types import ModelFacts, Placement

_log = logging.getLogger(__name__)

_FORESIGHT = 20.0
"""Seconds; a hub that takes longer to say how large a model is holds nobody else up."""

Attempt = Callable[[int, Beside], Awaitable[Placement]]
"""Places the replica of that number beside what is promised and coming; raises DoesNotFitError."""


class Ledger:
    """Of one node; used from its event loop's thread."""

    def __init__(self, foresight: float = _FORESIGHT) -> None:
        """``foresight``: seconds that placing waits at most for what others will need."""
        self._foresight = foresight
        self._placing = asyncio.Lock()
        self._coming: dict[str, Coming] = {}
        self._known: dict[str, asyncio.Event] = {}
        self._promises: dict[str, Promise] = {}
        self._held: dict[str, Promise] = {}
        self._processes: dict[str, EngineProcess | None] = {}
        self._settled = asyncio.Event()

    def announce(self, config: ModelConfig) -> None:
        """The model comes up and wants a place; until it has one, others leave it some room."""
        self._coming[config.name] = Coming(config)
        self._known[config.name] = asyncio.Event()

    def foresee(self, model: str, facts: ModelFacts | None) -> None:
        """What is known of an announced model's files by now; None: nothing, nor will be soon."""
        if (coming := self._coming.get(model)) is not None:
            self._coming[model] = dataclasses.replace(coming, facts=facts)
            self._known[model].set()

    def withdraw(self, model: str) -> None:
        """It has its place, or wants none any more."""
        self._coming.pop(model, None)
        if (known := self._known.pop(model, None)) is not None:
            known.set()

    def promise(self, replica: str, gpus: tuple[int, ...], memory: int, host: int = 0) -> None:
        """Reserve it; again for the same replica changes nothing but the figures."""
        self._held.pop(replica, None)
        if memory:
            self._promises[replica] = Promise(replica, gpus, memory, host=host)

    def runs(self, replica: str, process: EngineProcess | None) -> None:
        """The replica's process, whose part of the promise is measured already."""
        self._processes[replica] = process

    def ready(self, replica: str) -> None:
        """It has started: nobody waits for it any more, and what it was planned stays its own."""
        promise = self._promises.pop(replica, None)
        if promise is not None:
            if not promise.gpus:
                self._held[replica] = promise
            elif promise.host:  # its GPUs' part is taken by now
                held = dataclasses.replace(promise, gpus=(), memory=promise.host, host=0)
                self._held[replica] = held
            self._tell()

    def settle(self, replica: str) -> None:
        """The replica is gone."""
        self._processes.pop(replica, None)
        held = self._held.pop(replica, None)
        if self._promises.pop(replica, None) is not None or held is not None:
            self._tell()

    async def reserved(self) -> list[Promise]:
        """What living engines were planned, with what they hold of it."""
        return await self._measure([*self._promises.values(), *self._held.values()])

    def _tell(self) -> None:
        self._settled.set()
        self._settled = asyncio.Event()

    async def place(
        self, model: str, replicas: int, attempt: Attempt, waits: Callable[[list[str]], None]
    ) -> list[Placement]:
        """Place a model's replicas and promise them their memory.

        Where they do not fit beside what is promised to others on GPUs, but would without, it waits
        until one of the others is ready, for a plan has reserves that an engine may not use.
        ``waits`` is called then, with the replicas that are waited for.

        Raises:
            DoesNotFitError: they do not fit, whatever is promised.
        """
        names = [replica_id(model, number) for number in range(replicas)]
        await self._foreseen(model)
        while True:
            async with self._placing:
                others = await self._measure(_without(names, self._promises))
                held = await self._measure(_without(names, self._held))
                coming = tuple(c for name, c in self._coming.items() if name != model)
                beside = Beside(tuple(others), tuple(held), coming)
                placements = await self._attempt(names, attempt, beside)
                if placements is not None:
                    self.withdraw(model)
                    return placements
                settled = self._settled
            waits([promise.replica for promise in others if promise.gpus])
            await settled.wait()

    async def _attempt(
        self, names: Sequence[str], attempt: Attempt, beside: Beside
    ) -> list[Placement] | None:
        """None when there is something to wait for."""
        try:
            placements = await _all(names, attempt, beside)
        except DoesNotFitError:
            # Main memory stays with an engine that is ready; of a GPU it may have taken less.
            lasting = tuple(promise for promise in beside.promises if not promise.gpus)
            if len(lasting) == len(beside.promises):
                raise
            # No use in waiting for what would not help.
            await _all(names, attempt, dataclasses.replace(beside, promises=lasting))
            return None
        for name, placement in zip(names, placements, strict=True):
            self.promise(name, placement.gpus, promised_memory(placement), promised_host(placement))
        return placements

    async def _foreseen(self, model: str) -> None:
        """Wait until it is known what the models need that come up too: the headers of files that
        are downloaded come first, and say it."""
        known = [event.wait() for name, event in self._known.items() if name != model]
        if known:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._foresight):
                    await asyncio.gather(*known)

    async def _measure(self, promises: Sequence[Promise]) -> list[Promise]:
        """With what their processes hold by now."""
        if not promises:
            return []
        table = await asyncio.to_thread(processes.snapshot)
        return [await asyncio.to_thread(self._measured, promise, table) for promise in promises]

    def _measured(self, promise: Promise, table: Mapping[int, processes.ProcessInfo]) -> Promise:
        process = self._processes.get(promise.replica)
        if process is None:
            return promise
        pids = frozenset(identity.pid for identity in processes.family(process.identity, table))
        resident = sum(processes.held_bytes(table[pid]) for pid in pids)
        return dataclasses.replace(promise, pids=pids, resident=resident)


def _without(names: Sequence[str], promises: Mapping[str, Promise]) -> list[Promise]:
    return [promise for name, promise in promises.items() if name not in names]


async def _all(names: Sequence[str], attempt: Attempt, beside: Beside) -> list[Placement]:
    """Each replica beside the others and the replicas before it."""
    taken, placements = beside.promises, []
    for number, name in enumerate(names):
        placement = await attempt(number, dataclasses.replace(beside, promises=taken))
        placements.append(placement)
        taken = (
            *taken,
            Promise(
                name, placement.gpus, promised_memory(placement), host=promised_host(placement)
            ),
        )
    return placements
