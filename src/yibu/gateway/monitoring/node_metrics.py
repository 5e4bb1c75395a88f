"""The node's own metrics: memory by replica, GPUs, starts by cause."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from yibu.planner.ledger import Reservation
from yibu.planner.types import Gpu
from yibu.prometheus import family
from yibu.routing import Backend

Model = Mapping[str, Any]
"""A model as ``yibu ps --json`` has it."""


@dataclass(slots=True)
class NodeMetrics:
    """Asks the node for its numbers when the page is requested."""

    status: Callable[[], Awaitable[Sequence[Model]]]
    """What ``yibu ps --json`` shows."""
    reserved: Callable[[], Awaitable[Sequence[Reservation]]]
    """The replicas' reservations."""
    gpus: Callable[[], Sequence[Gpu]]
    """Blocking; called in a thread."""
    _starts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By model and cause."""

    async def lines(self) -> list[str]:
        """Lines of the exposition, without their ends."""
        models, reserved, gpus = await asyncio.gather(
            self.status(), self.reserved(), asyncio.to_thread(self.gpus)
        )
        return [*self._start_lines(), *memory_lines(models, reserved, gpus), *gpu_lines(gpus)]

    async def watch(self, events: AsyncIterable[Mapping[str, Any]], backend: Backend) -> None:
        """Count the starts in the node's events, until cancelled."""
        async for event in events:
            if event["event"] == "state" and event["state"] == "ready" and event["replica"]:
                self._started(event["model"], event["replica"], backend)

    def _started(self, model: str, replica: str, backend: Backend) -> None:
        found = (one for one in backend.replicas() if one.replica == replica)
        for status in found:
            self._starts[(model, status.start_cause)] += 1

    def _start_lines(self) -> list[str]:
        text = "Starts of engines that became ready, by what they followed"
        rows = sorted(self._starts.items())
        return family("model_starts_total", text, "counter", ("model", "cause"), rows)


def memory_lines(
    models: Sequence[Model], reserved: Sequence[Reservation], gpus: Sequence[Gpu]
) -> list[str]:
    """Reserved and used bytes of each replica, of main memory (``device="cpu"``) and of GPUs."""
    labels = ("model", "replica", "device")
    owners = {one["id"]: model["name"] for model in models for one in model["replicas"]}
    kept, used = [], []
    for reservation in reserved:
        model = owners.get(reservation.replica)
        if model is None:  # it left between the two questions
            continue
        host = reservation.host if reservation.gpus else reservation.memory
        devices = {"cpu": host, **{str(gpu): reservation.memory for gpu in reservation.gpus}}
        kept += [((model, reservation.replica, name), number) for name, number in devices.items()]
    pids = {reservation.replica: reservation.pids for reservation in reserved}
    for model in models:
        for one in model["replicas"]:
            devices = {"cpu": one["rss_bytes"] or 0}
            for gpu in gpus:
                own = pids.get(one["id"], ())
                held = [process.memory or 0 for process in gpu.processes if process.pid in own]
                if held:
                    devices[str(gpu.index)] = sum(held)
            used += [((model["name"], one["id"], name), value) for name, value in devices.items()]
    placed = "Memory that a replica was placed with"
    holds = "Memory that a replica's processes hold"
    return [
        *family("replica_memory_reserved_bytes", placed, "gauge", labels, kept),
        *family("replica_memory_used_bytes", holds, "gauge", labels, used),
    ]


def gpu_lines(gpus: Sequence[Gpu]) -> list[str]:
    """The GPUs themselves, whoever uses them."""
    labels = ("gpu", "name")
    total = [((str(gpu.index), gpu.name), gpu.total) for gpu in gpus]
    used = [((str(gpu.index), gpu.name), gpu.total - gpu.free) for gpu in gpus]
    return [
        *family("gpu_memory_bytes", "Memory of the GPU", "gauge", labels, total),
        *family("gpu_memory_used_bytes", "Memory of the GPU that is in use", "gauge", labels, used),
    ]
