"""Fake engines and what deploys them, for tests and for the node that tests run as a process."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yibu.config import ModelConfig
from yibu.engines.base import Cause, LaunchPlan, PhaseMark, Verdict
from yibu.hub.types import LocalModel, Progress, ProgressCallback, Source
from yibu.node.deploy import Deployer
from yibu.node.launch import LaunchSpec
from yibu.node.timings import Timings
from yibu.planner.types import MemoryNeed, ModelFacts, Placement

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
        foresee=lambda source: None,
        choose_engine=lambda config, facts: FakeEngineKind(),  # type: ignore[arg-type, return-value]
        place=lambda config, facts, engine, number, beside: placement,
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
