"""The readings of ``yibu top`` and the console: node, metrics and machine, and the rates between two."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil

from yibu.gateway.monitoring.exposition import read_samples
from yibu.planner import types as planner

_TTFT = 0.95


@dataclass(frozen=True, slots=True)
class ReplicaReading:
    """One replica; rates are those since the reading before."""

    id: str
    state: str
    pid: int | None
    in_flight: int
    memory_bytes: int
    cpu_percent: float
    """Of one processor; all of two are 200."""
    gpus: tuple[int, ...]
    gpu_memory_bytes: int
    restarts: int


@dataclass(frozen=True, slots=True)
class ModelReading:
    name: str
    engine: str
    state: str
    phase: str | None
    cause: str | None
    hint: str | None
    replicas: tuple[ReplicaReading, ...]
    queued: int
    """Requests that wait for a replica."""
    requests_per_second: float
    errors_per_second: float
    output_tokens_per_second: float
    prompt_tokens_per_second: float
    ttft_p95_seconds: float | None
    """Until the first byte of the answer; None where no request has come."""

    def sum(self, name: str) -> float:
        total: float = sum(getattr(replica, name) for replica in self.replicas)
        return total


@dataclass(frozen=True, slots=True)
class GpuReading:
    index: int
    name: str
    memory_bytes: int
    used_bytes: int
    busy_percent: float | None


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """All readings of one moment."""

    url: str
    node_pid: int
    node_seconds: float
    """Seconds since the node started."""
    cpus: int
    cpu_percent: float
    """Of the whole machine."""
    memory_bytes: int
    memory_used_bytes: int
    gpus: tuple[GpuReading, ...]
    models: tuple[ModelReading, ...]

    def json(self) -> dict[str, Any]:
        return {"version": 1, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Counts:
    """The counters of the metrics page that are needed, by model."""

    at: float
    requests: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    tokens: Counter[tuple[str, str]] = field(default_factory=Counter)
    first: defaultdict[str, Counter[float]] = field(default_factory=lambda: defaultdict(Counter))
    """Requests by the upper bound of their time to the first byte."""
    whole: defaultdict[str, Counter[float]] = field(default_factory=lambda: defaultdict(Counter))
    """The same to the last byte."""
    in_flight: dict[str, int] = field(default_factory=dict)
    """By replica."""


class Processor:
    """Measures how busy the processors are between two calls."""

    def __init__(self) -> None:
        self._before = self._now()

    def percent(self) -> float:
        """Per cent since the last call, of all processors together."""
        (busy, total), before = self._now(), self._before
        self._before = busy, total
        passed = total - before[1]
        return 100 * min(1.0, max(0.0, busy - before[0]) / passed) if passed > 0 else 0.0

    @staticmethod
    def _now() -> tuple[float, float]:
        times = psutil.cpu_times()
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        return total - times.idle - getattr(times, "iowait", 0.0), total


class Sampler:
    """``take`` one reading after another."""

    def __init__(self) -> None:
        self._before: Counts | None = None
        self._processor = Processor()
        self._cpu: dict[int, tuple[float, float]] = {}
        """Time and processor seconds of the last look, by an engine's pid."""

    def take(
        self,
        status: Mapping[str, Any],
        page: str,
        gpus: Sequence[planner.Gpu],
        busy: Mapping[int, float],
    ) -> NodeSnapshot:
        """Everything now; rates are zero at the first call. Blocking: it looks at processes.

        Args:
            status: What ``yibu ps --json`` shows.
            page: The gateway's metrics.
            busy: Per cent, by GPU.
        """
        counts = read_counts(page)
        memory = psutil.virtual_memory()
        held = Counter[int]()
        for gpu in gpus:
            for process in gpu.processes:
                held[process.pid] += process.memory or 0
        before, self._before = self._before or counts, counts
        models = tuple(self._model(one, before, counts, held) for one in status["models"])
        return NodeSnapshot(
            url=status["gateway"]["url"],
            node_pid=status["node"]["pid"],
            node_seconds=max(0.0, time.time() - status["node"]["started"]),
            cpus=psutil.cpu_count() or 1,
            cpu_percent=self._processor.percent(),
            memory_bytes=memory.total,
            memory_used_bytes=memory.total - memory.available,
            gpus=tuple(
                GpuReading(
                    gpu.index, gpu.name, gpu.total, gpu.total - gpu.free, busy.get(gpu.index)
                )
                for gpu in gpus
            ),
            models=models,
        )

    def _model(
        self, model: Mapping[str, Any], before: Counts, now: Counts, held: Mapping[int, int]
    ) -> ModelReading:
        name = model["name"]
        return ModelReading(
            name=name,
            engine=model["engine"] or "",
            state=model["state"],
            phase=model["phase"],
            cause=model["cause"],
            hint=model["hint"],
            replicas=tuple(self._replica(one, now, held) for one in model["replicas"]),
            queued=model["queued"],
            ttft_p95_seconds=quantile(now.first[name], before.first[name], _TTFT),
            **rates(name, before, now),
        )

    def _replica(
        self, replica: Mapping[str, Any], now: Counts, held: Mapping[int, int]
    ) -> ReplicaReading:
        pids = _tree(replica["pid"])
        return ReplicaReading(
            id=replica["id"],
            state=replica["state"],
            pid=replica["pid"],
            in_flight=now.in_flight.get(replica["id"], 0),
            memory_bytes=replica["rss_bytes"] or 0,
            cpu_percent=sum(self._cpu_of(process) for process in pids),
            gpus=tuple(replica["gpus"]),
            gpu_memory_bytes=sum(held.get(process.pid, 0) for process in pids),
            restarts=replica["restarts"],
        )

    def _cpu_of(self, process: psutil.Process) -> float:
        try:
            times = process.cpu_times()
        except psutil.Error:
            self._cpu.pop(process.pid, None)
            return 0.0
        now, used = time.monotonic(), times.user + times.system
        then, before = self._cpu.get(process.pid, (now, used))
        self._cpu[process.pid] = (now, used)
        return max(0.0, used - before) / (now - then) * 100 if now > then else 0.0


def read_counts(page: str) -> Counts:
    """The counters of a metrics page."""
    found = Counts(time.monotonic())
    for name, labels, value in read_samples(page):
        model = labels.get("model", "-")
        if name == "yibu_requests_total":
            found.requests[model] += int(value)
            if labels["status"] >= "500" or labels["status"] == "429":
                found.errors[model] += int(value)
        elif name == "yibu_tokens_total":
            found.tokens[(model, labels["direction"])] += int(value)
        elif name == "yibu_first_byte_seconds_bucket":
            found.first[model][float(labels["le"])] += int(value)
        elif name == "yibu_request_seconds_bucket":
            found.whole[model][float(labels["le"])] += int(value)
        elif name == "yibu_replica_requests_in_flight":
            found.in_flight[labels["replica"]] = int(value)
    return found


def rates(model: str, before: Counts, now: Counts) -> dict[str, float]:
    """A model's rates a second between two readings."""
    passed = max(now.at - before.at, 1e-9)
    output, prompt = (model, "completion"), (model, "prompt")
    return {
        "requests_per_second": (now.requests[model] - before.requests[model]) / passed,
        "errors_per_second": (now.errors[model] - before.errors[model]) / passed,
        "output_tokens_per_second": (now.tokens[output] - before.tokens[output]) / passed,
        "prompt_tokens_per_second": (now.tokens[prompt] - before.tokens[prompt]) / passed,
    }


def quantile(now: Mapping[float, int], before: Mapping[float, int], part: float) -> float | None:
    """Of the requests between two readings; of all where there were none. As Prometheus reckons it:
    a bucket's requests are spread evenly."""
    counts = {bound: number - before.get(bound, 0) for bound, number in now.items()}
    total = counts.get(float("inf"), 0)
    if total <= 0:
        counts, total = dict(now), now.get(float("inf"), 0)
    wanted, lower, below = part * total, 0.0, 0
    if total <= 0:
        return None
    for bound, number in sorted(counts.items()):
        if number >= wanted:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (wanted - below) / max(number - below, 1)
        lower, below = bound, number
    return lower


def _tree(pid: int | None) -> list[psutil.Process]:
    if pid is None:
        return []
    try:
        main = psutil.Process(pid)
        return [main, *main.children(recursive=True)]
    except psutil.Error:
        return []


def totals(models: Iterable[ModelReading]) -> dict[str, float]:
    """The sums over all models."""
    found = list(models)
    names = ("requests_per_second", "errors_per_second", "output_tokens_per_second",
             "prompt_tokens_per_second")  # fmt: skip
    return {
        "in_flight": sum(model.sum("in_flight") for model in found),
        "queued": sum(model.queued for model in found),
        **{name: sum(getattr(model, name) for model in found) for name in names},
    }
