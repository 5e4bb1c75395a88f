"""Engines that sleep: the fake with vLLM's routes, and the plan that vLLM's folder makes of them."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.node.support import QUICK, fake_model, fake_spec
from tests.support.polling import eventually
from yibu.config import ModelConfig
from yibu.config.types import Autoscale
from yibu.config.wire import plain, read
from yibu.engines.sleep import SleepCall, SleepPlan
from yibu.engines.vllm.sleep import sleep_plan
from yibu.engines.vllm.table import PINNED
from yibu.errors import NotUpError
from yibu.launchers.vllm_guard import KeyEverywhere
from yibu.node.fleet.fleet import Fleet
from yibu.node.launch.spec import Host
from yibu.node.state import SavedNode, boot_id
from yibu.node.supervisor.replica import ReplicaSupervisor
from yibu.planner.types import MemoryNeed, ModelFacts, Placement

FACTS = ModelFacts("safetensors", "LlamaForCausalLM", 0)
PLACED = Placement((0,), 1, None, 1, MemoryNeed(1 << 20, 0, 0))


def plan(sleep: str, **changes: Any) -> SleepPlan:
    model = ModelConfig("fake", keep="idle", sleep=sleep)  # type: ignore[arg-type]
    made = sleep_plan(model, FACTS, PLACED, set(), PINNED)
    assert made is not None
    return dataclasses.replace(made, **changes)


Supervise = Callable[..., Any]


@pytest.fixture
def supervise(host: Host) -> Supervise:
    @asynccontextmanager
    async def started(sleep: SleepPlan, *switches: str) -> AsyncIterator[ReplicaSupervisor]:
        this = dataclasses.replace(host, timings=dataclasses.replace(QUICK, failure_limit=1000))
        spec = fake_spec("--sleeps", *switches, sleep=sleep)
        replica = ReplicaSupervisor("fake-0", spec, this, lambda _: None)
        task = asyncio.create_task(replica.run())
        try:
            await state(replica, "ready")
            yield replica
        finally:
            await replica.stop()
            await task

    return started


async def state(replica: ReplicaSupervisor, wanted: str) -> None:
    await eventually(lambda: replica.state == wanted)


def pid(replica: ReplicaSupervisor) -> int:
    assert replica.process is not None
    return replica.process.pid


@pytest.mark.parametrize("level", ["1", "2"])
async def test_an_engine_sleeps_and_is_woken(supervise: Supervise, level: str) -> None:
    async with supervise(plan(level)) as replica:
        before = pid(replica)
        for _ in range(2):
            replica.ask_sleep(int(level))
            await state(replica, "sleeping")
            assert replica.endpoint is None
            assert replica.asleep is not None
            replica.ask_wake()
            await state(replica, "ready")
            assert replica.start_cause == "woken"
        assert pid(replica) == before
        assert not replica.failures.counts


async def test_requests_in_flight_end_before_it_sleeps(supervise: Supervise) -> None:
    async with supervise(plan("1")) as replica:
        replica.acquire("one")
        replica.ask_sleep(1)
        await state(replica, "draining")
        replica.release("one", failed=False)
        await state(replica, "sleeping")


async def test_one_that_answers_otherwise_when_woken_is_started_anew(supervise: Supervise) -> None:
    async with supervise(plan("2"), "--forgets") as replica:
        before = pid(replica)
        replica.ask_sleep(2)
        await state(replica, "sleeping")
        replica.ask_wake()
        await eventually(lambda: replica.state == "ready" and pid(replica) != before)
        assert replica.failures.counts == {"wake_failed": 1}
        assert replica.start_cause == "wake_failed"


async def test_one_that_does_not_fall_asleep_ends(supervise: Supervise) -> None:
    async with supervise(plan("1"), "--sleep-fails") as replica:
        replica.ask_sleep(1)
        await state(replica, "stopped")
        assert replica.failures.counts == {"sleep_failed": 1}


async def test_one_that_is_killed_while_it_sleeps_is_not_started_again(
    supervise: Supervise,
) -> None:
    async with supervise(plan("1")) as replica:
        replica.ask_sleep(1)
        await state(replica, "sleeping")
        os.kill(pid(replica), signal.SIGKILL)
        await state(replica, "stopped")
        assert replica.failures.counts == {"sleep_failed": 1}


async def test_one_that_hangs_when_woken_is_started_anew(supervise: Supervise) -> None:
    async with supervise(plan("1", timeout=2.0)) as replica:
        replica.ask_sleep(1)
        await state(replica, "sleeping")
        before = pid(replica)
        os.kill(before, signal.SIGSTOP)
        replica.ask_wake()
        await eventually(lambda: replica.state == "ready" and pid(replica) != before)
        assert replica.failures.counts["wake_failed"] == 1


def sleeper(**changes: Any) -> ModelConfig:
    options = {"plan": {"sleep": plan("1")}}
    return fake_model("a", "--sleeps", options=options, keep="idle", idle=0.2, **changes)


async def shown(fleet: Fleet) -> str:
    (model,) = await fleet.status()
    return str(model["state"])


async def becomes(fleet: Fleet, wanted: str) -> None:
    route = fleet.route("a")
    assert route is not None
    await eventually(lambda: (route := fleet.route("a")) is not None and route.state == wanted)


async def answered(fleet: Fleet) -> None:
    lease = fleet.acquire("a")
    async with asyncio.timeout(60):
        await lease.granted()
    lease.release()


async def test_an_idle_model_sleeps_and_a_request_wakes_it(
    make_fleet: Callable[..., Fleet],
) -> None:
    async with make_fleet() as fleet:
        await fleet.up(sleeper(), start=True)
        (before,) = fleet.replicas()
        await becomes(fleet, "sleeping")
        assert await shown(fleet) == "sleeping"
        await answered(fleet)
        (after,) = fleet.replicas()
        assert (after.restarts, after.start_cause) == (0, "woken")
        assert before.replica == after.replica
        await becomes(fleet, "sleeping")
        await fleet.unload("a")
        assert await shown(fleet) == "unloaded"
        await answered(fleet)


async def test_a_model_that_sleeps_for_long_is_unloaded(make_fleet: Callable[..., Fleet]) -> None:
    async with make_fleet() as fleet:
        await fleet.up(sleeper(asleep=0.2), start=True)
        await becomes(fleet, "unloaded")
        await answered(fleet)


async def test_a_restart_wakes_no_model_that_sleeps(make_fleet: Callable[..., Fleet]) -> None:
    """Its memory may be another's by now: what it needs is found as for any start."""
    async with make_fleet() as fleet:
        await fleet.up(sleeper(), start=True)
        await becomes(fleet, "sleeping")
        old = fleet._runner.supervisors["a-0"]
        await fleet.restart("a")
        new = fleet._runner.supervisors["a-0"]
        assert (old.state, new.state, new.start_cause) == ("stopped", "ready", "asked")


async def test_a_model_that_sleeps_may_be_taken_down_while_it_is_restarted(
    make_fleet: Callable[..., Fleet],
) -> None:
    async with make_fleet() as fleet:
        await fleet.up(sleeper(), start=True)
        await becomes(fleet, "sleeping")
        restarting = asyncio.create_task(fleet.restart("a"))
        await asyncio.sleep(0)
        await fleet.down("a")
        with pytest.raises(NotUpError):
            await restarting


async def test_a_restart_wakes_no_replica_that_sleeps_beside_others(
    make_fleet: Callable[..., Fleet],
) -> None:
    config = dataclasses.replace(sleeper(autoscale=Autoscale(1, 2)), idle=600)
    async with make_fleet() as fleet:
        await fleet.up(config, start=True)
        model = fleet._scheduler.model("a")
        assert model is not None
        desired = model.current
        desired.scale = 1  # as under load
        await eventually(lambda: [r.state for r in fleet.replicas()] == ["ready"] * 2)
        asleep = fleet._runner.supervisors["a-1"]
        desired.scale = 0
        await state(asleep, "sleeping")
        await fleet.restart("a")
        assert next((r.replica, r.state) for r in fleet.replicas()) == ("a-0", "ready")
        await state(asleep, "stopped")
        assert asleep.asleep is not None  # it was not awake once more


@pytest.mark.parametrize("known", [True, False])
async def test_what_sleeps_goes_on_sleeping_under_another_node(
    make_fleet: Callable[..., Fleet], known: bool
) -> None:
    """Also when the node was killed before it knew."""
    async with make_fleet() as fleet:
        await fleet.up(sleeper(), start=True)
        await becomes(fleet, "sleeping")
        saved = [fleet._save(deployment) for deployment in fleet._current()]
        (old,) = await fleet.status()
        if not known:
            replicas = tuple(dataclasses.replace(r, asleep=None) for r in saved[0].replicas)
            saved = [dataclasses.replace(saved[0], replicas=replicas)]
        async with make_fleet() as later:
            await later.adopt(SavedNode(boot_id(), tuple(saved)))
            await becomes(later, "sleeping" if known else "unloaded")
            await answered(later)
            (new,) = await later.status()
            assert (new["replicas"][0]["pid"] == old["replicas"][0]["pid"]) == known


def test_vllm_sleeps_where_it_can() -> None:
    asked = ModelConfig("m", keep="idle")
    made = sleep_plan(asked, FACTS, PLACED, set(), PINNED)
    assert made is not None
    assert [(level.number, level.memory) for level in made.levels] == [(1, 1 << 20)]
    assert made == read(SleepPlan, plain(made))
    on_cpu = dataclasses.replace(PLACED, gpus=())
    quantized = dataclasses.replace(FACTS, quantization="awq")
    second = ModelConfig("m", keep="idle", sleep="2")
    (level,) = plan("2").levels
    assert level.leave[1] == SleepCall("/collective_rpc", {"method": "reload_weights"})
    for model, facts, placement in (
        (asked, FACTS, on_cpu),
        (ModelConfig("m"), FACTS, PLACED),
        (ModelConfig("m", keep="idle", sleep="off"), FACTS, PLACED),
        (dataclasses.replace(asked, env={"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}),
         FACTS, PLACED),
    ):  # fmt: skip
        assert sleep_plan(model, facts, placement, set(), PINNED) is None
    made = sleep_plan(second, quantized, PLACED, set(), PINNED)
    assert made is not None
    assert made.level(2) is None, "what it would read back of these is not what it dropped"
    assert made.level(1) is not None


@pytest.mark.parametrize("given", [None, b"Bearer wrong", b"Bearer right"])
async def test_every_path_of_a_vllm_that_sleeps_asks_for_the_key(
    given: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "right")
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is read of a request without the key")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    headers = [] if given is None else [(b"authorization", given)]
    for path in ("/collective_rpc", "/health", "/metrics"):
        sent.clear()
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
        await KeyEverywhere(app)(scope, receive, send)
        assert sent[0]["status"] == (200 if given == b"Bearer right" else 401)
    sent.clear()
    await KeyEverywhere(app)({"type": "websocket", "headers": headers}, receive, send)
    assert sent[0].get("code") == (None if given == b"Bearer right" else 1008)
