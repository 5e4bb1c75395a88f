"""The console's readings of the node: on demand, and regularly for the history."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from yibu import descriptors
from yibu.config import ModelConfig
from yibu.errors import safe
from yibu.gateway.console.history import RANGES, MetricsHistory, Values
from yibu.gateway.manager import Manager
from yibu.gateway.monitoring.fleet_metrics import fleet_lines
from yibu.gateway.monitoring.metrics import GatewayMetrics
from yibu.gateway.monitoring.readings import (
    Counts,
    GpuReading,
    NodeSnapshot,
    Processor,
    Sampler,
    quantile,
    rates,
    read_counts,
    totals,
)
from yibu.routing import Backend, Route

logger = logging.getLogger(__name__)
_FRESH = 1.5
"""Seconds for which one reading serves all readers."""
_RECENT = 30
_RECENT_SERIES = ("requests_per_second", "output_tokens_per_second", "ttft_p95_seconds")
_MODELS = 64
"""Models whose numbers the history keeps."""


class Observer:
    """Reads the node's numbers. One event loop; blocking work runs in threads."""

    def __init__(
        self, manager: Manager, backend: Backend, metrics: GatewayMetrics, history: MetricsHistory
    ) -> None:
        self._manager = manager
        self._backend = backend
        self._metrics = metrics
        self.history = history
        self._sampler = Sampler()
        self._processor = Processor()
        self._before: Counts | None = None
        self._latest: tuple[float, dict[str, Any]] | None = None
        self._reading = asyncio.Lock()
        self._progress: dict[str, Mapping[str, Any]] = {}

    async def overview(self) -> dict[str, Any]:
        """The node's part of the overview, as docs/console.md describes it."""
        async with self._reading:
            now = time.monotonic()
            if self._latest is None or now - self._latest[0] > _FRESH:
                self._latest = (now, await self._read())
            return self._latest[1]

    async def follow(self) -> None:
        """Keep the progress of downloads, until cancelled."""
        with self._manager.events() as events:
            async for event in events:
                if event["event"] == "progress":
                    self._progress[event["model"]] = event
                elif event["event"] == "state" and event["state"] != "downloading":
                    self._progress.pop(event["model"], None)

    async def keep(self) -> None:
        """Put a point into the history every ten seconds, until cancelled."""
        await asyncio.to_thread(self.history.load, time.time())
        step, told = RANGES["hour"].step, ""
        try:
            while True:
                await asyncio.sleep(step - time.time() % step)
                try:
                    await self.record()
                    told = ""
                except Exception as error:  # a driver that fails must not end the history
                    if repr(error) != told:  # once, however long it lasts
                        told, trace = repr(error), not descriptors.exhausted(error)
                        logger.warning(
                            "points of the metrics are missing: %s", told, exc_info=trace
                        )
        finally:
            self.history.close()

    async def record(self) -> None:
        """Add a point to the history."""
        page = self._page()
        models = [
            (route.model, self._backend.queued(route.model), self._ready(route.model))
            for route in self._backend.routes()[:_MODELS]
        ]
        in_flight = Counter[str]()
        for one in self._backend.replicas():
            in_flight[one.model] += one.in_flight
        await asyncio.to_thread(self._point, page, models, in_flight)

    def _point(
        self, page: str, models: Sequence[tuple[str, int, int]], in_flight: Counter[str]
    ) -> None:
        now, before = read_counts(page), self._before
        self._before = now
        memory = psutil.virtual_memory()
        gpus, busy = self._manager.gpus()
        values: Values = {
            "cpu_percent": self._processor.percent(),
            "memory_used_bytes": float(memory.total - memory.available),
            "in_flight": float(in_flight.total()),
            "queued": float(sum(queued for _, queued, _ in models)),
        }
        for gpu in gpus:
            values[f"gpu{gpu.index}_memory_used_bytes"] = float(gpu.total - gpu.free)
            if (percent := busy.get(gpu.index)) is not None:
                values[f"gpu{gpu.index}_busy_percent"] = percent
        for name, queued, ready in models:
            series = {
                "in_flight": in_flight[name],
                "queued": queued,
                "ready_replicas": ready,
            }
            values |= {f"{name}\0{what}": float(number) for what, number in series.items()}
            if before is not None:
                read = _series(name, before, now)
                values |= {f"{name}\0{what}": number for what, number in read.items()}
        if before is not None:
            passed = max(now.at - before.at, 1e-9)
            requests = sum(now.requests[name] - before.requests[name] for name in now.requests)
            values["requests_per_second"] = requests / passed
        self.history.record(time.time(), values)

    def _ready(self, model: str) -> int:
        return sum(r.model == model and r.state == "ready" for r in self._backend.replicas())

    def _page(self) -> str:
        return self._metrics.render(fleet_lines(self._backend))

    async def _read(self) -> dict[str, Any]:
        status = await self._manager.ask("ps")
        page = self._page()
        snapshot, disks = await asyncio.to_thread(self._look, status, page)
        configs = {config.name: config for config in self._manager.configs()}
        models = [
            self._model(one, configs.get(one["name"]), self._backend.route(one["name"]), snapshot)
            for one in status["models"]
        ]
        sums: dict[str, Any] = totals(snapshot.models)
        return {
            "node": {"pid": status["node"]["pid"], "started": status["node"]["started"]},
            "gateway": {"url": status["gateway"]["url"]},
            "machine": _machine(snapshot, disks),
            "totals": sums,
            "models": models,
        }

    def _look(
        self, status: Mapping[str, Any], page: str
    ) -> tuple[NodeSnapshot, list[dict[str, Any]]]:
        taken = self._sampler.take(status, page, *self._manager.gpus())
        return taken, _disks(self._manager.directories)

    def _model(
        self,
        one: Mapping[str, Any],
        config: ModelConfig | None,
        route: Route | None,
        snapshot: NodeSnapshot,
    ) -> dict[str, Any]:
        name = one["name"]
        read = next(model for model in snapshot.models if model.name == name)
        now = time.time()
        replicas = []
        for replica, shown in zip(read.replicas, one["replicas"], strict=True):
            more = {"phase": shown["phase"], "port": shown["port"]}
            replicas.append({**asdict(replica), **more})
        features = route.abilities.features if route else None
        return {
            **{key: value for key, value in asdict(read).items() if key != "replicas"},
            "names": sorted(route.names) if route else [],
            "source": one["source"],
            "phases": one["phases"],
            "progress": self._progress.get(name),
            "cause": one["cause"] and safe(one["cause"]),
            "hint": one["hint"] and safe(one["hint"]),
            "capabilities": sorted(route.capabilities) if route else [],
            "max_context": route.max_context if route else None,
            "sees": "images" in (features or ()),
            "wanted_replicas": config.replicas if config else len(replicas),
            "autoscale": config.autoscale and asdict(config.autoscale) if config else None,
            "keep": config.keep if config else None,
            "idle_seconds": config.idle if config and config.keep == "idle" else None,
            "file": str(config.file) if config and config.file else None,
            "in_flight": read.sum("in_flight"),
            "restarts": read.sum("restarts"),
            "replicas": replicas,
            "recent": {
                "step": RANGES["hour"].step,
                **{s: self.history.recent(name, s, now, _RECENT) for s in _RECENT_SERIES},
            },
        }


def _series(name: str, before: Counts, now: Counts) -> Values:
    values = rates(name, before, now)
    for kind, late, early in (
        ("ttft_{}_seconds", now.first[name], before.first[name]),
        ("seconds_{}", now.whole[name], before.whole[name]),
    ):
        if late.get(float("inf"), 0) <= early.get(float("inf"), 0):
            continue  # no request came: there is nothing to tell
        for part, label in ((0.5, "p50"), (0.95, "p95")):
            if (value := quantile(late, early, part)) is not None:
                values[kind.format(label)] = value
    return values


def _machine(snapshot: NodeSnapshot, disks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "cpus": snapshot.cpus,
        "cpu_percent": snapshot.cpu_percent,
        "memory_bytes": snapshot.memory_bytes,
        "memory_used_bytes": snapshot.memory_used_bytes,
        "memory": [
            {"model": model.name, "bytes": held}
            for model in snapshot.models
            if (held := model.sum("memory_bytes"))
        ],
        "gpus": [_gpu(gpu, snapshot) for gpu in snapshot.gpus],
        "disks": list(disks),
    }


def _gpu(gpu: GpuReading, snapshot: NodeSnapshot) -> dict[str, Any]:
    """A GPU, and the replicas that use its memory. A replica on several GPUs counts equally on each."""
    models: list[dict[str, Any]] = []
    for model in snapshot.models:
        held = sum(
            replica.gpu_memory_bytes // max(len(replica.gpus), 1)
            for replica in model.replicas
            if gpu.index in replica.gpus
        )
        if held:
            models.append({"model": model.name, "bytes": held})
    other = max(0, gpu.used_bytes - sum(one["bytes"] for one in models))
    return {**asdict(gpu), "models": models, "other_bytes": other}


def _disks(directories: Mapping[str, Path]) -> list[dict[str, Any]]:
    """One for each file system that holds something."""
    found: dict[int, dict[str, Any]] = {}
    for holds, directory in directories.items():
        there = next(path for path in (directory, *directory.parents) if path.exists())
        device = there.stat().st_dev
        if device not in found:
            disk = shutil.disk_usage(there)
            sizes = {"bytes": disk.total, "free_bytes": disk.free}
            found[device] = {"path": str(directory), "holds": [], **sizes}
        found[device]["holds"].append(holds)
    return list(found.values())
