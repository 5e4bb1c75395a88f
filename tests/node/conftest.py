"""A home of its own for every test, the fake engine, and no process left behind afterwards."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from yibu.config import ModelConfig
from yibu.engines.base import Cause, LaunchPlan, Verdict
from yibu.hub.types import LocalModel, Progress, ProgressCallback, Source
from yibu.node import processes
from yibu.node.deploy import Deployer
from yibu.node.fleet import Fleet
from yibu.node.launch import Host, LaunchSpec
from yibu.node.ports import Ports
from yibu.node.process import become_subreaper
from yibu.node.state import StateFile, home_id
from yibu.node.timings import Timings
from yibu.paths import Paths
from yibu.planner.types import MemoryNeed, ModelFacts, Placement

FAKE = Path(__file__).parents[1] / "fakes" / "engine.py"

QUICK = Timings(
    ready_poll=0.02,
    first_token=10,
    adopt=5,
    orphan_grace=0.3,
    port_free=5,
    drain=5,
    health_every=0.1,
    health_request=1,
    stall=0.3,
    idle_canary=0.5,
    canary=0.4,
    busy_limit=2,
    backoff_first=0.05,
    backoff_cap=0.2,
    failure_limit=3,
    ready_wait=3,
)


def fake_plan(*switches: str, **changes: Any) -> LaunchPlan:
    """The launch plan of a fake engine with these switches."""
    plan = LaunchPlan(
        engine="fake",
        argv=("{python}", "-u", "-S", str(FAKE), "--port", "{port}", *switches),
        env={},
        capabilities=frozenset({"chat", "completions"}),
        environment="fake",
        key_variable="FAKE_API_KEY",
        start_timeout=10,
        stop_grace=3,
    )
    return dataclasses.replace(plan, **changes)


def fake_spec(*switches: str, **changes: Any) -> LaunchSpec:
    return LaunchSpec("fake", fake_plan(*switches, **changes), Path(sys.executable), None)


@dataclass(frozen=True, slots=True)
class Explained:
    cause: str
    message: str
    hint: str = ""


def explain(_engine: str, log: str, code: int | None) -> Explained:
    if "Address already in use" in log:
        return Explained("port_in_use", "its port is taken by another process")
    if "out of memory" in log:
        return Explained("out_of_memory", "memory did not suffice", "use a smaller model")
    return Explained("unknown", f"exit code {code}")


@dataclass
class FakeEngineKind:
    """An :class:`yibu.engines.base.Engine` whose options are the fake's switches."""

    name: str = "fake"
    causes: tuple[Cause, ...] = ()

    def supports(self, model: ModelConfig, facts: ModelFacts | None) -> Verdict:
        refused = model.options.get("unsupported")
        return Verdict(not refused, str(refused or "it is only a fake"))

    def plan(
        self, model: ModelConfig, facts: ModelFacts | None, placement: Placement
    ) -> LaunchPlan:
        return fake_plan(*model.flags, **model.options.get("plan", {}))


def fake_model(name: str, *switches: str, **changes: Any) -> ModelConfig:
    return ModelConfig(name=name, flags=switches, **changes)


def fake_pull(source: str, progress: ProgressCallback) -> LocalModel:
    progress(Progress("downloading", 1, 2, 1.0))
    return LocalModel(Source("local", source), Path(source), ())


def fake_deployer(**changes: Any) -> Deployer:
    placement = Placement((), 1, None, 1, MemoryNeed(0, 0, 0))
    deployer = Deployer(
        pull=fake_pull,
        read_facts=lambda local: ModelFacts("gguf", "fake", 0),
        choose_engine=lambda config, facts: FakeEngineKind(),  # type: ignore[arg-type, return-value]
        place=lambda config, facts, engine, number: placement,
        ensure_environment=lambda name, note: Path(sys.executable),
        explain=explain,
    )
    return dataclasses.replace(deployer, **changes)


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[Paths]:
    """A home that is checked for left-behind processes when the test is over."""
    home = Paths.from_env({"YIBU_HOME": str(tmp_path / "home")})
    home.make()
    yield home
    prefix = f"{home_id(home.state)}/"
    left = processes.marked(prefix)
    deadline = time.monotonic() + 2  # a process that was just killed may take a moment
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = processes.marked(prefix)
    for identity in left:
        processes.send(identity, processes.signal.SIGKILL)
    assert not left, f"processes were left behind: {left}"


@pytest.fixture
def host(paths: Paths) -> Host:
    become_subreaper()
    return Host(
        paths=paths,
        home_id=home_id(paths.state),
        env=dict(os.environ),
        ports=Ports(),
        timings=QUICK,
        explain=explain,
        gpu_memory=NoGpu(),
    )


@dataclass
class NoGpu:
    """No model in these tests is placed on a GPU, so nothing may be asked of one."""

    asked: list[object] = field(default_factory=list)

    def read(self, gpus: object) -> tuple[tuple[int, ...], frozenset[int]]:
        raise AssertionError("no GPU was placed")


@pytest.fixture
def make_fleet(host: Host, paths: Paths) -> Callable[..., Fleet]:
    def make(**changes: Any) -> Fleet:
        timings = dataclasses.replace(QUICK, **changes.pop("timings", {}))
        deployer = fake_deployer(**changes)
        return Fleet(
            deployer,
            dataclasses.replace(host, timings=timings),
            StateFile(paths.state / "node.json"),
        )

    return make


async def eventually(
    check: Callable[[], Any] | Callable[[], Awaitable[Any]], timeout: float = 10
) -> Any:
    """Poll until ``check()`` gives something true; that value."""
    deadline = time.monotonic() + timeout
    while True:
        value = check()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not true within {timeout} s: {check}"
        await asyncio.sleep(0.02)
