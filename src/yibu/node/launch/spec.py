"""What is needed to start one engine on this host, and what is known of a running one."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from yibu.engines.base import Endpoint, LaunchPlan
from yibu.engines.causes import Explanation
from yibu.engines.logs import PhaseMark
from yibu.node import logs
from yibu.node.handover.ownership import Ownership
from yibu.node.launch import probe
from yibu.node.launch.process import EngineProcess
from yibu.node.machine import oom, ports
from yibu.node.machine.gpu import GpuMemory
from yibu.node.scheduler.starts import Start
from yibu.node.timings import Timings
from yibu.paths import Paths
from yibu.routing import NO_DETAILS, ModelDetails


class Explain(Protocol):
    """Reads an engine's log for a cause: ``yibu.engines.causes.explain``, given its causes."""

    def __call__(
        self, engine: str, log_text: str, *, exit_code: int | None, oom_killed: bool
    ) -> Explanation:
        """``engine`` is its name, ``exit_code`` None while it ran or when it is not known;
        ``oom_killed``: the kernel's killer struck since the engine was started."""
        ...


StartSlot = Callable[[Start, Callable[[], None]], AbstractAsyncContextManager[None]]
"""A context in which an engine may start; the function is called if it has to wait first."""


@asynccontextmanager
async def at_once(_start: Start, _waits: Callable[[], None]) -> AsyncIterator[None]:
    """The start slot of a replica that shares its GPUs with nobody."""
    yield


@dataclass(frozen=True, slots=True)
class Host:
    """What every replica on this machine uses."""

    paths: Paths
    home_id: str
    """Distinguishes this home's markers from those of other nodes on the machine."""
    env: Mapping[str, str] = field(repr=False)
    ports: ports.Ports
    timings: Timings
    explain: Explain
    gpu_memory: GpuMemory
    phase_marks: Callable[[str], Sequence[PhaseMark]] = lambda _engine: ()
    """How an engine's log tells the phases of its start, by the engine's name."""
    start_slot: StartSlot = at_once
    ownership: Ownership = field(default_factory=Ownership)


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """What a replica runs, placed on this host: enough to start it again without its source."""

    model: str
    plan: LaunchPlan
    python: Path | None
    model_path: Path | None
    extra: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    gpus: tuple[int, ...] = ()
    directory: Path | None = None
    """The engine's working directory."""
    max_context: int | None = None
    details: ModelDetails = NO_DETAILS
    memory: int = 0
    """Bytes planned: of each of its GPUs, or of main memory in all."""
    host_memory: int = 0
    """Bytes of main memory planned beside those of its GPUs."""


@dataclass(frozen=True, slots=True)
class Life:
    """What was noted when an engine was started or adopted, to explain its end."""

    log: Path
    offset: int
    """Offset in the replica's log where it begins."""
    oom_kills: int
    began: float
    """Start time in monotonic seconds."""

    @classmethod
    def begin(cls, host: Host, replica: str) -> Life:
        log = host.paths.model_log(replica)
        return cls(log, logs.size(log), oom.kills(), time.monotonic())


@dataclass(frozen=True, slots=True)
class Running:
    """An engine that has produced a token (or cannot generate any)."""

    process: EngineProcess
    endpoint: Endpoint
    canary: probe.TokenRequest | None
    """The request that it answered; None for an engine that has nothing to generate."""
    life: Life
