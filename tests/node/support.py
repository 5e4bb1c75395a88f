"""Fake engines and what deploys them, for tests and for the node that tests run as a process."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yibu.config import ModelConfig
from yibu.engines.base import LaunchPlan
from yibu.engines.logs import Cause, PhaseMark
from yibu.hub.types import LocalModel, Progress, ProgressCallback, Source
from yibu.node.fleet.deploy import Deployer
from yibu.node.launch.spec import LaunchSpec
from yibu.node.timings import Timings
from yibu.planner.ledger import Beside
from yibu.planner.request import Request
from yibu.planner.types import Machine, MemoryNeed, ModelFacts, ModelPlan, Placement
from yibu.resolve import Prepared, Resolved

FAKE_PHASES = (
    PhaseMark("load", re.compile("fake: loading")),
    PhaseMark("compile", re.compile("fake: compiling")),
)
FAKE = Path(__file__).parents[1] / "fakes" / "engine.py"

# Polls are quick, and what bounds a healthy engine is generous, for a machine that is busy: a test
# of a time-out sets its own.
QUICK = Timings(
    ready_poll=0.02,
    first_token=60,
    adopt=60,
    unready_grace=0.5,
    orphan_grace=0.3,
    port_free=60,
    drain=60,
    health_every=0.1,
    health_request=60,
    stall=1000,
    idle_canary=1000,
    backoff_first=0.05,
    backoff_cap=0.2,
    failure_limit=3,
    ready_wait=30,
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
        start_timeout=60,
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


def explain(engine: str, log_text: str, *, exit_code: int | None, oom_killed: bool) -> Explained:
    if oom_killed:
        return Explained("oom_killed", "the kernel ran out of memory")
    if "Address already in use" in log_text:
        return Explained("port_in_use", "its port is taken by another process")
    if "out of memory" in log_text:
        return Explained("out_of_memory", "memory did not suffice", "use a smaller model")
    return Explained("unknown", f"exit code {exit_code}")


@dataclass
class FakeEngineKind:
    """An :class:`yibu.engines.base.Engine` whose options are the fake's switches."""

    name: str = "fake"
    causes: tuple[Cause, ...] = ()
    phases: tuple[PhaseMark, ...] = ()

    def plan(
        self, model: ModelConfig, facts: ModelFacts | None, placement: Placement
    ) -> LaunchPlan:
        return fake_plan(*model.flags, **model.options.get("plan", {}))


def fake_model(name: str, *switches: str, **changes: Any) -> ModelConfig:
    return ModelConfig(name=name, flags=switches, **changes)


def fake_pull(source: str, progress: ProgressCallback) -> LocalModel:
    progress(Progress("downloading", 1, 2, 1.0))
    return LocalModel(Source("local", source), Path(source), ())


def fake_prepare(config: ModelConfig, facts: ModelFacts | None) -> Prepared:
    return Prepared(config, facts, FakeEngineKind(), Request(config.name, "unmanaged"))  # type: ignore[arg-type]


def placing(
    choose: Callable[[ModelConfig, ModelFacts | None, int, Beside], Placement],
) -> Callable[[Prepared, int, Machine, Beside], Resolved]:
    """A deployer's ``place`` that puts each replica where ``choose`` says."""

    def place(prepared: Prepared, number: int, machine: Machine, beside: Beside) -> Resolved:
        placement = choose(prepared.model, prepared.facts, number, beside)
        launch = prepared.engine.plan(prepared.model, prepared.facts, placement)
        verdict = ModelPlan(prepared.model.name, "fits", placement, ())
        return Resolved(prepared, verdict, placement, launch)

    return place


def fake_deployer(**changes: Any) -> Deployer:
    placement = Placement((), 1, None, 1, MemoryNeed(0, 0, 0))
    deployer = Deployer(
        pull=fake_pull,
        read_facts=lambda local: ModelFacts("gguf", "fake", 0),
        foresee=lambda source: None,
        require=lambda config, facts: None,
        prepare=fake_prepare,
        machine=lambda: Machine("fake", 2, 2, 64 << 30, 64 << 30),
        place=placing(lambda config, facts, number, beside: placement),
        ensure_environment=lambda name, note: Path(sys.executable),
        explain=explain,
        phase_marks=lambda engine: FAKE_PHASES,
        in_use=lambda source: contextlib.nullcontext(),
    )
    return dataclasses.replace(deployer, **changes)


@dataclass
class NoGpu:
    """No model in these tests is placed on a GPU, so nothing may be asked of one."""

    asked: list[object] = field(default_factory=list)

    def read(self, gpus: object) -> tuple[tuple[int, ...], frozenset[int]]:
        raise AssertionError("no GPU was placed")
