"""The pipeline from an entry of yibu.yaml to launch specs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.node.support import fake_deployer, fake_model, fake_plan, fake_pull, placing
from yibu.config import ModelConfig
from yibu.errors import EnvironmentSetupError
from yibu.hub.types import LocalModel, Progress, ProgressCallback
from yibu.node.fleet.deploy import Deployer
from yibu.planner.ledger import Beside
from yibu.planner.types import MemoryNeed, ModelFacts, Placement


async def run(deployer: Deployer, config: ModelConfig) -> tuple[Any, list[Progress], list[str]]:
    progress: list[Progress] = []
    notes: list[str] = []
    telling = (progress.append, notes.append, lambda phase: None)
    fetched = await deployer.get(config, *telling, lambda facts: None)
    specs = []
    for number in range(config.replicas):
        resolved = deployer.place(fetched.prepared, number, deployer.machine(), Beside())
        placement, launch = resolved.runs()
        specs.append(await deployer.spec(config, fetched, launch, placement, *telling))
    return specs, progress, notes


async def test_stages_run_in_order_with_what_the_ones_before_gave() -> None:
    calls: list[str] = []

    def pull(source: str, progress: ProgressCallback) -> LocalModel:
        calls.append(f"pull {source}")
        return fake_pull(source, progress)

    def read_facts(local: LocalModel) -> ModelFacts:
        calls.append(f"facts {local.path}")
        return ModelFacts("gguf", "fake", 5)

    def place(config: Any, facts: ModelFacts | None, number: int, beside: Any) -> Placement:
        assert facts is not None
        calls.append(f"place {facts.weight_bytes} {number}")
        return Placement((number,), 1, 2048, 1, MemoryNeed(5, 0, 0))

    def environment(name: str, note: Any) -> Path:
        calls.append(f"environment {name}")
        note("making it")
        return Path(sys.executable)

    plan = {"extra_sources": {"vad": "/vad"}, "notes": ("four slots",)}
    deployer = fake_deployer(
        pull=pull, read_facts=read_facts, place=placing(place), ensure_environment=environment
    )
    config = fake_model("m", source="/m", replicas=2, env={"A": "b"}, options={"plan": plan})
    specs, progress, notes = await run(deployer, config)
    assert calls == [
        "pull /m",
        "facts /m",
        "place 5 0",
        "environment fake",
        "pull /vad",
        "place 5 1",
        "environment fake",
        "pull /vad",
    ]
    assert [spec.gpus for spec in specs] == [(0,), (1,)]
    assert {spec.model_path for spec in specs} == {Path("/m")}
    assert specs[0].extra == {"vad": "/vad"}
    assert specs[0].env == {"A": "b"}
    assert specs[0].max_context == 2048
    assert len(progress) == 3
    assert notes == ["four slots", "making it"] * 2


async def test_a_command_of_the_users_needs_no_source_and_no_environment() -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("not to be called")

    deployer = fake_deployer(pull=never, read_facts=never, ensure_environment=never)
    specs, _, _ = await run(deployer, fake_model("m", options={"plan": {"environment": None}}))
    (spec,) = specs
    assert spec.python is None
    assert spec.model_path is None
    assert spec.plan == fake_plan(environment=None)


async def test_a_missing_library_is_said_before_the_model_is_fetched() -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("not to be called")

    def lacking(config: Any, facts: ModelFacts) -> None:
        assert facts.weight_bytes == 5
        raise EnvironmentSetupError("libnuma.so.1 is missing")

    deployer = fake_deployer(
        pull=never, foresee=lambda source: ModelFacts("gguf", "fake", 5), require=lacking
    )
    with pytest.raises(EnvironmentSetupError, match="libnuma"):
        await run(deployer, fake_model("m", source="/m"))
