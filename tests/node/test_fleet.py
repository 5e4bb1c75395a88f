"""The fleet: deploying, routing, draining and replacing models, through real processes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.node.support import fake_model, fake_pull
from tests.support.polling import eventually
from yibu.config.names import generation_of, replica_id
from yibu.errors import (
    ConfigError,
    DoesNotFitError,
    EngineStartError,
    HubNotFoundError,
    NotReadyError,
    NotRunningError,
    NotUpError,
    SourceError,
    UnknownModelError,
    UnsupportedError,
)
from yibu.hub.types import LocalModel, Progress, ProgressCallback
from yibu.node.fleet.fleet import Fleet
from yibu.node.launch import probe
from yibu.node.machine.gpu import Nvml, wait_released
from yibu.paths import Paths
from yibu.routing import Backend, Lease

MakeFleet = Callable[..., Fleet]


async def acquire(fleet: Fleet, model: str, **fields: Any) -> Lease:
    lease = fleet.acquire(model, **fields)
    await lease.granted()
    return lease


async def ask(fleet: Fleet, model: str) -> int:
    """One request as the gateway sends it; its status."""
    lease = await acquire(fleet, model)
    (request, *_) = probe.token_requests(frozenset({"chat"}), model)
    try:
        answer = await probe.one_token(lease.endpoint, request, 60)
    except probe.ProbeError:
        lease.release(failed=True)
        raise
    lease.release()
    return answer.status


async def test_up_serves_and_down_ends(make_fleet: MakeFleet) -> None:
    async with make_fleet() as fleet:
        backend: Backend = fleet  # the protocol fits
        await fleet.up(fake_model("smol"))
        assert await ask(fleet, "smol") == 200
        route = backend.route("smol")
        assert route is not None
        assert (route.state, route.engine) == ("ready", "fake")
        assert "chat" in route.capabilities
        await fleet.down("smol")
        assert backend.route("smol") is None
        assert await fleet.status() == []
        with pytest.raises(UnknownModelError, match="not served here any more"):
            await acquire(fleet, "smol")
        with pytest.raises(NotRunningError):
            await fleet.down("smol")


async def test_down_ends_although_the_model_is_up_again(make_fleet: MakeFleet) -> None:
    async with make_fleet() as fleet:
        await fleet.up(fake_model("smol"))
        lease = await acquire(fleet, "smol")
        down = asyncio.create_task(fleet.down("smol"))
        await eventually(lambda: fleet.route("smol") is None)
        await fleet.up(fake_model("smol"))
        assert not down.done()
        lease.release()
        await down
        assert await ask(fleet, "smol") == 200


@pytest.mark.parametrize("first", ["scale", "restart", "unload", "load", "down"])
@pytest.mark.parametrize("then", ["scale", "restart", "unload", "load", "down", "up"])
async def test_a_command_that_another_overtakes_ends(
    make_fleet: MakeFleet, first: str, then: str
) -> None:
    """``first`` waits for the end of a request; ``then`` wants something else of the same model."""

    def begin(verb: str, replicas: int) -> asyncio.Task[None]:
        if verb == "up":
            return asyncio.create_task(fleet.up(fake_model("smol", options={"tokens": 6})))
        number = (replicas,) if verb == "scale" else ()
        return asyncio.create_task(getattr(fleet, verb)("smol", *number))

    async with make_fleet() as fleet:
        await fleet.up(fake_model("smol", replicas=2))
        leases = [await acquire(fleet, "smol") for _ in range(2)]
        tasks = [begin(first, 1)]
        await asyncio.sleep(0.2)
        tasks.append(begin(then, 3))
        await asyncio.sleep(0.2)
        for lease in leases:
            lease.release()
        done, late = await asyncio.wait(tasks, timeout=60)
        assert not late
        assert {type(error) for task in done if (error := task.exception())} <= {NotUpError}


async def test_aliases_lead_to_the_model_and_no_two_models_share_one(
    make_fleet: MakeFleet,
) -> None:
    async with make_fleet() as fleet:
        await fleet.up(fake_model("smol", aliases=("/models/smol", "gpt")))
        route = fleet.route("gpt")
        assert route is not None
        assert route is fleet.route("smol")
        assert dict(route.names) == {"/models/smol": "smol", "gpt": "smol"}
        assert len(fleet.routes()) == 1
        for other in (fake_model("gpt"), fake_model("other", aliases=("gpt",))):
            with pytest.raises(ConfigError, match="'gpt', which smol has"):
                fleet.claim([other])
        fleet.claim([fake_model("gpt"), fake_model("smol")])  # which gives it up
        fleet.claim([fake_model("gpt")], ["smol"])
        await fleet.up(fake_model("smol", aliases=("gpt",), options={"lora": {"sql": "/a"}}))
        adapted = fleet.route("sql")
        assert adapted is not None
        assert (adapted.meant("sql"), adapted.meant("gpt")) == ("sql", "smol")
        assert fleet.route("/models/smol") is None
        await fleet.down("smol")
        assert fleet.route("gpt") is None
        await fleet.up(fake_model("gpt"))


async def test_status_is_what_ps_shows(make_fleet: MakeFleet) -> None:
    async with make_fleet() as fleet:
        await fleet.up(fake_model("smol", source="/m", replicas=2))
        (model,) = await fleet.status()
        replicas = model.pop("replicas")
        assert set(model.pop("phases")) == {"download", "plan", "environment", "start", "warm-up"}
        assert model == {
            "name": "smol",
            "source": "/m",
            "engine": "fake",
            "state": "ready",
            "cause": None,
            "cause_key": None,
            "hint": None,
            "phase": None,
            "queued": 0,
        }
        assert [replica["id"] for replica in replicas] == ["smol-0", "smol-1"]
        for replica in replicas:
            assert set(replica) == {
                *("id", "pid", "port", "state", "restarts", "rss_bytes", "gpus"),
                *("phase", "phases"),
            }
            assert replica["rss_bytes"] > 1_000_000
            os.kill(replica["pid"], 0)


async def test_requests_go_to_the_least_loaded_replica(make_fleet: MakeFleet) -> None:
    async with make_fleet() as fleet:
        await fleet.up(fake_model("smol", replicas=3))
        held = [await acquire(fleet, "smol") for _ in range(6)]
        replicas = sorted(lease.endpoint.replica for lease in held)
        assert replicas == [f"smol-{n}" for n in (0, 0, 1, 1, 2, 2)]
        held[0].release()
        again = await acquire(fleet, "smol")
        assert again.endpoint.replica == held[0].endpoint.replica
        spared = frozenset({"smol-0", "smol-2"})
        held.append(await acquire(fleet, "smol", exclude=spared))
        assert held[-1].endpoint.replica == "smol-1"
        for lease in (*held[1:], again):
            lease.release()


async def test_a_crash_under_load_costs_only_the_requests_in_flight(make_fleet: MakeFleet) -> None:
    async with make_fleet() as fleet:
        await fleet.up(fake_model("smol", replicas=2))
        victim = (await fleet.status())[0]["replicas"][0]["pid"]
        outcomes: list[int] = []
        failed = 0

        async def client() -> None:
            nonlocal failed
            for _ in range(15):
                try:
                    outcomes.append(await ask(fleet, "smol"))
                except probe.ProbeError:
                    failed += 1

        clients = [asyncio.create_task(client()) for _ in range(4)]
        await eventually(lambda: len(outcomes) > 10)
        os.kill(victim, signal.SIGKILL)
        await asyncio.gather(*clients)
        assert set(outcomes) == {200}
        assert len(outcomes) + failed == 60
        await eventually(lambda: fleet._runner.supervisors["smol-0"].restarts == 1)
        await eventually(lambda: fleet._runner.supervisors["smol-0"].state == "ready")
        assert not any(replica.requests for replica in fleet._supervisors)


async def test_a_request_waits_over_a_quick_restart(make_fleet: MakeFleet) -> None:
    async with make_fleet() as fleet:
        await fleet.up(fake_model("smol"))
        os.kill((await fleet.status())[0]["replicas"][0]["pid"], signal.SIGKILL)
        await eventually(lambda: fleet._runner.supervisors["smol-0"].restarts == 1)
        assert await ask(fleet, "smol") == 200


async def test_a_model_that_takes_long_is_refused_at_once(make_fleet: MakeFleet) -> None:
    async with make_fleet() as fleet:
        with fleet.events(["slow"]) as events:
            going = asyncio.create_task(fleet.up(fake_model("slow", "--ready-after", "60")))
            await eventually(lambda: fleet.route("slow") is not None)
            with pytest.raises(NotReadyError, match=r"'slow' is (pending|starting)") as refused:
                await acquire(fleet, "slow")
            assert refused.value.retry_after == 10
            await eventually(lambda: fleet._runner.supervisors)
        await fleet.down("slow")
        with pytest.raises(NotRunningError, match="taken down before it was ready"):
            await going
        assert events.get_nowait()["event"] in ("state", "phase")


async def test_the_same_again_is_left_alone_and_a_change_replaces(make_fleet: MakeFleet) -> None:
    async with make_fleet() as fleet:
        await fleet.up(fake_model("smol"))
        first = (await fleet.status())[0]["replicas"][0]["pid"]
        await fleet.up(fake_model("smol"))
        assert (await fleet.status())[0]["replicas"][0]["pid"] == first
        await fleet.up(fake_model("smol", "--tokens", "2"))
        (model,) = await fleet.status()
        assert model["replicas"][0]["pid"] != first


async def test_the_end_of_a_replaced_generation_is_not_told_as_the_models(
    make_fleet: MakeFleet,
) -> None:
    async with make_fleet() as fleet:
        await fleet.up(fake_model("smol"))
        with fleet.events() as events:
            await fleet.up(fake_model("smol", "--tokens", "2"))
            with pytest.raises(EngineStartError):
                await fleet.up(fake_model("smol", "--fail-start", "no"))
            await fleet.changed()
            seen = []
            while not events.empty():
                seen.append(events.get_nowait())
        states = [e["state"] for e in seen if e["event"] == "state" and e["replica"] is None]
        assert [state for state in states if state not in ("pending", "starting")] == [
            "ready",
            "failed",
        ]
        notes = [e["text"] for e in seen if e["event"] == "note"]
        assert notes == ["goes on with the configuration that it had"]
        await fleet.down("smol")


async def test_two_ups_at_once_make_one_model(make_fleet: MakeFleet) -> None:
    async with make_fleet() as fleet:
        await asyncio.gather(*(fleet.up(fake_model("smol")) for _ in range(5)))
        (model,) = await fleet.status()
        assert len(model["replicas"]) == 1


async def test_restart_is_rolling(make_fleet: MakeFleet) -> None:
    async with make_fleet() as fleet:
        await fleet.up(fake_model("smol", replicas=2))
        before = [replica["pid"] for replica in (await fleet.status())[0]["replicas"]]
        restarting = asyncio.create_task(fleet.restart("smol"))
        while not restarting.done():
            assert await ask(fleet, "smol") == 200
        await restarting
        after = [replica["pid"] for replica in (await fleet.status())[0]["replicas"]]
        assert not set(before) & set(after)


async def test_a_start_that_fails_is_told_and_can_be_tried_again(make_fleet: MakeFleet) -> None:
    async with make_fleet() as fleet:
        with pytest.raises(EngineStartError, match="memory did not suffice"):
            await fleet.up(fake_model("big", "--fail-start", "CUDA out of memory"))
        (model,) = await fleet.status()
        assert model["state"] == "failed"
        assert "memory did not suffice" in model["cause"]
        with pytest.raises(NotReadyError, match="memory did not suffice") as refused:
            await acquire(fleet, "big")
        assert refused.value.retry_after == 60
        await fleet.up(fake_model("big"))
        assert await ask(fleet, "big") == 200


@pytest.mark.parametrize(
    ("room", "error"),
    [
        ("pull", HubNotFoundError("no such model")),
        ("place", DoesNotFitError("it needs 80 GiB, there are 8")),
        ("place", ConfigError("an option that its engine refuses")),
        ("prepare", UnsupportedError("nobody serves it")),
    ],
)
async def test_errors_on_the_way_keep_their_type(
    make_fleet: MakeFleet, room: str, error: Exception
) -> None:
    def refuse(*_: Any) -> Any:
        raise error

    async with make_fleet(**{room: refuse}) as fleet:
        with pytest.raises(type(error), match=str(error)):
            await fleet.up(fake_model("smol", source="/m"))
        (model,) = await fleet.status()
        assert (model["state"], model["cause"]) == ("failed", str(error))
        with pytest.raises(type(error)):
            await fleet.restart("smol")


async def test_a_defect_in_one_model_leaves_the_others(make_fleet: MakeFleet) -> None:
    def broken(source: str, progress: ProgressCallback) -> LocalModel:
        if source == "/bad":
            raise ZeroDivisionError("oops")
        return fake_pull(source, progress)

    async with make_fleet(pull=broken) as fleet:
        await fleet.up(fake_model("good", source="/good"))
        with pytest.raises(EngineStartError, match="a defect in yibu: ZeroDivisionError"):
            await fleet.up(fake_model("bad", source="/bad"))
        assert await ask(fleet, "good") == 200


async def test_files_in_use_are_held_until_the_model_is_down(make_fleet: MakeFleet) -> None:
    held: list[str] = []

    @contextlib.contextmanager
    def in_use(source: str) -> Iterator[None]:
        if source == "/bad":
            raise SourceError("no such source")
        held.append(source)
        yield
        held.remove(source)

    async with make_fleet(in_use=in_use) as fleet:
        plan = {"extra_sources": {"vad": "/vad"}}
        await fleet.up(fake_model("smol", source="/m", options={"plan": plan}))
        assert held == ["/m", "/vad"]
        with pytest.raises(SourceError, match="no such source"):
            await fleet.up(fake_model("bad", source="/bad"))
        await fleet.down("smol")
        assert held == []
        assert fleet.route("bad").state == "failed"


async def test_down_gives_a_download_up(make_fleet: MakeFleet) -> None:
    begun, given_up = threading.Event(), threading.Event()

    def endless(source: str, progress: ProgressCallback) -> LocalModel:
        begun.set()
        try:
            while True:
                progress(Progress("downloading", 1, 100))
                given_up.wait(0.01)
        finally:
            given_up.set()

    async with make_fleet(pull=endless) as fleet:
        going = asyncio.create_task(fleet.up(fake_model("smol", source="/m")))
        await eventually(begun.is_set)  # the state says it before the pull has its thread
        assert fleet.route("smol").state == "downloading"
        await fleet.down("smol")
        with pytest.raises(NotRunningError):
            await going
        await eventually(given_up.is_set)


async def test_events_tell_the_whole_way(make_fleet: MakeFleet) -> None:
    async with make_fleet() as fleet:
        with fleet.events() as events:
            await fleet.up(fake_model("smol", source="/m"))
            seen = []
            while not events.empty():
                seen.append(events.get_nowait())
        states = [e["state"] for e in seen if e["event"] == "state" and e["replica"] is None]
        assert states == ["downloading", "starting", "ready"]
        (progress,) = [e for e in seen if e["event"] == "progress"]
        assert (progress["done_bytes"], progress["total_bytes"]) == (1, 2)
        assert progress["seconds_left"] == 1.0


async def test_a_caller_that_is_cancelled_leaves_the_change_whole(make_fleet: MakeFleet) -> None:
    async with make_fleet() as fleet:
        await fleet.up(fake_model("smol"))
        replacing = asyncio.create_task(fleet.up(fake_model("smol", "--tokens", "2")))
        await eventually(lambda: "smol-0.2" in fleet._runner.supervisors)
        replacing.cancel()
        await asyncio.gather(replacing, return_exceptions=True)
        await eventually(lambda: fleet.configs()[0].flags == ("--tokens", "2"))
        await eventually(lambda: list(fleet._runner.supervisors) == ["smol-0.2"])
        assert await ask(fleet, "smol") == 200


async def test_drain_refuses_the_new_and_waits_for_the_old(make_fleet: MakeFleet) -> None:
    async with make_fleet() as fleet:
        await fleet.up(fake_model("smol"))
        lease = await acquire(fleet, "smol")
        assert not await fleet.drain(0.05)
        with pytest.raises(NotReadyError, match="shutting down"):
            await acquire(fleet, "smol")
        draining = asyncio.create_task(fleet.drain(60))
        await asyncio.sleep(0)
        assert not draining.done()
        lease.release()
        assert await draining


async def test_a_drain_under_load_loses_no_answer(make_fleet: MakeFleet, tmp_path: Path) -> None:
    go_on = tmp_path / "go_on"
    go_on.touch()
    async with make_fleet() as fleet:
        await fleet.up(fake_model("smol", "--answer-when", str(go_on), replicas=2))
        go_on.unlink()
        going = [asyncio.create_task(ask(fleet, "smol")) for _ in range(12)]
        await eventually(lambda: sum(len(r.requests) for r in fleet._supervisors) == 12)
        draining = asyncio.create_task(fleet.drain(60))
        await asyncio.sleep(0)
        go_on.touch()
        assert await draining
    assert await asyncio.gather(*going) == [200] * 12


async def test_leaving_does_not_wait_twice_for_those_who_do_not_end(make_fleet: MakeFleet) -> None:
    async with make_fleet(timings={"drain": 1000.0}) as fleet:
        await fleet.up(fake_model("smol"))
        lease = await acquire(fleet, "smol")
        assert not await fleet.drain(0.05)
    lease.release()


async def test_logs_are_named_after_the_replica(make_fleet: MakeFleet, paths: Paths) -> None:
    async with make_fleet() as fleet:
        await fleet.up(fake_model("org/../name"))
        (path,) = paths.logs.glob("*.log")
        assert path == paths.model_log(replica_id("org/../name", 0))
        assert "listens" in path.read_text()
    assert replica_id("a/b", 0) != replica_id("a_b", 0)
    assert replica_id("..", 0) != "..-0"
    assert replica_id("Qwen2.5", 1) == "Qwen2.5-1"
    assert replica_id("\u5343\u95ee", 0, 2) == "\u5343\u95ee-0.2"


LOGS = r"""
import pathlib, sys
from yibu.config.names import replica_id
from yibu.paths import Paths, log_name
logs = Paths.from_env({"YIBU_HOME": sys.argv[1]}).logs
logs.mkdir(exist_ok=True)
for name in ("\u5343\u95ee", "my.log", "a/b", "\U0001f916", "\u5343" * 200):
    path = Paths.from_env({"YIBU_HOME": sys.argv[1]}).model_log(replica_id(name, 0))
    path.open("a").close()
    path.with_name(path.name + ".4").open("a").close()
    assert log_name(path) == log_name(path.with_name(path.name + ".4")) == replica_id(name, 0), name
    assert path in logs.glob("*.log"), name
print(len(list(logs.iterdir())))
"""


def test_logs_have_the_same_names_under_every_locale(tmp_path: Path) -> None:
    """One that encodes names otherwise, or that has no such letters."""
    made = subprocess.run(
        ["localedef", "-f", "GBK", "-i", "zh_CN", tmp_path / "zh_CN.GBK"], check=False
    )
    locales = ["C.UTF-8", "C", *(["zh_CN.GBK"] if made.returncode in (0, 1) else [])]
    for locale in locales:
        env = {**os.environ, "LC_ALL": locale, "LOCPATH": str(tmp_path), "PYTHONCOERCECLOCALE": "0"}
        command = [sys.executable, "-X", "utf8=0", "-c", LOGS, str(tmp_path)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        assert done.stdout == "10\n", locale


@dataclasses.dataclass
class Card:
    """A GPU whose memory comes back step by step after its holder has gone."""

    holders: list[frozenset[int]]
    free: list[int]

    def read(self, gpus: object) -> tuple[tuple[int, ...], frozenset[int]]:
        holders = self.holders.pop(0) if len(self.holders) > 1 else self.holders[0]
        free = self.free.pop(0) if len(self.free) > 1 else self.free[0]
        return (free,), holders


async def test_gpu_memory_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yibu.node.machine.gpu._POLL", 0.001)
    held, none = frozenset({7}), frozenset[int]()
    card = Card([held, held, none], [1, 1, 1, 2, 5, 9])
    assert await wait_released(card, (0,), {7}, 5)
    assert card.free == [9]
    assert not await wait_released(Card([held], [1]), (0,), {7}, 0.02)
    assert await wait_released(Card([held], [1]), (), {7}, 0.02), "no GPU, nothing to wait for"
    unknown = Card([held], [1])
    unknown.read = lambda gpus: ((), frozenset())  # type: ignore[method-assign]
    assert await wait_released(unknown, (0,), {7}, 5)
    assert await wait_released(Nvml(), (0,), set(), 5), "with a driver or without"


async def test_replicas_tell_their_failures_by_cause(make_fleet: MakeFleet) -> None:
    async with make_fleet(timings={"failure_limit": 2}) as fleet:
        await fleet.up(fake_model("smol", replicas=2))
        pid = (await fleet.status())[0]["replicas"][0]["pid"]
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: fleet.replicas()[0].restarts == 1)
        first, second = fleet.replicas()
        assert (first.model, first.replica, second.replica) == ("smol", "smol-0", "smol-1")
        assert first.failures == {"crash": 1}
        assert first.failure is not None
        assert first.failure.cause == "crash"
        assert (second.state, second.restarts, second.failures) == ("ready", 0, {})
        assert second.endpoint is not None
        with pytest.raises(EngineStartError):
            await fleet.up(fake_model("big", "--fail-start", "out of memory"))
        status = fleet.replicas()[-1]
        assert (status.state, status.failures) == ("failed", {"out_of_memory": 1})
        assert status.endpoint is None


@pytest.mark.parametrize(
    ("error", "cause"),
    [(HubNotFoundError("no"), "not_found"), (DoesNotFitError("no"), "does_not_fit")],
)
async def test_a_model_that_never_came_up_tells_why(
    make_fleet: MakeFleet, error: Exception, cause: str
) -> None:
    def pull(source: str, progress: ProgressCallback) -> LocalModel:
        raise error

    async with make_fleet(pull=pull) as fleet:
        with pytest.raises(type(error)):
            await fleet.up(fake_model("smol", source="/m"))
        route = fleet.route("smol")
        assert route is not None
        assert route.failure is not None
        assert route.failure.cause == cause
        assert fleet.replicas() == []


async def test_a_refusal_says_what_to_try(make_fleet: MakeFleet) -> None:
    async with make_fleet() as fleet:
        with pytest.raises(EngineStartError):
            await fleet.up(fake_model("smol", "--fail-start", "out of memory"))
        with pytest.raises(NotReadyError, match="memory did not suffice") as refused:
            await acquire(fleet, "smol")
        assert refused.value.hint == "use a smaller model"


def test_a_replica_tells_its_model_and_configuration() -> None:
    assert generation_of(replica_id("Qwen2.5", 3, 12), "Qwen2.5") == 12
    assert generation_of(replica_id("Qwen2.5", 3), "Qwen2.5") == 1
    assert generation_of(replica_id("a/b", 0, 2), "a/b") == 2
    assert generation_of(replica_id("smol-0", 1), "smol") is None
    assert generation_of("node", "node") is None


async def test_logs_of_the_last_configurations_are_kept(
    make_fleet: MakeFleet, paths: Paths
) -> None:
    async with make_fleet() as fleet:
        for number in range(5):
            await fleet.up(fake_model("smol", "--tokens", str(number + 1)))
    kept = sorted(path.name for path in paths.logs.glob("smol-*.log"))
    assert kept == ["smol-0.3.log", "smol-0.4.log", "smol-0.5.log"]


@pytest.mark.parametrize("alone", [False, True], ids=["beside another", "alone"])
async def test_a_replica_that_answers_nothing_gets_no_requests_of_others(
    alone: bool, make_fleet: MakeFleet
) -> None:
    """Long before it counts as hung; where all are silent, and once it answers again, as ever."""
    timings = {"quiet": 0.1, "silent": 0.1, "health_every": 1000, "health_failures": 10**6}
    async with make_fleet(timings=timings) as fleet:
        await fleet.up(fake_model("smol", replicas=1 if alone else 2))
        first = await acquire(fleet, "smol")
        replica = first.endpoint.replica
        (pid,) = [
            one["pid"]
            for model in await fleet.status()
            for one in model["replicas"]
            if one["id"] == replica
        ]
        os.kill(pid, signal.SIGSTOP)
        try:
            found = fleet._runner.supervisors[replica]
            await eventually(lambda: found.silent, "its silence noticed")
            others = [await acquire(fleet, "smol") for _ in range(6)]
            reached = {lease.endpoint.replica == replica for lease in others}
            assert reached == {alone}
            for lease in others:
                lease.release()
        finally:
            os.kill(pid, signal.SIGCONT)
        await eventually(lambda: not found.silent, "its answer noticed")
        leases = [await acquire(fleet, "smol") for _ in range(4)]
        assert replica in {lease.endpoint.replica for lease in leases}
        for lease in (first, *leases):
            lease.release()


async def test_a_stopped_engine_is_replaced_soon(make_fleet: MakeFleet) -> None:
    """However long a health check may take: what is stopped cannot answer it."""
    async with make_fleet(timings={"quiet": 0.1, "health_request": 1000}) as fleet:
        await fleet.up(fake_model("smol", replicas=1))
        ((before,),) = [model["replicas"] for model in await fleet.status()]
        os.kill(before["pid"], signal.SIGSTOP)

        async def replaced() -> bool:
            ((now,),) = [model["replicas"] for model in await fleet.status()]
            return now["pid"] not in (None, before["pid"]) and now["state"] == "ready"

        await eventually(replaced, "another engine")


async def test_a_silent_replica_that_ends_gets_none_of_what_waits(make_fleet: MakeFleet) -> None:
    """Its place is free, but nobody answers there any more."""
    timings = {"quiet": 0.1, "silent": 0.1, "health_every": 1000, "health_failures": 10**6}
    async with make_fleet(timings=timings) as fleet:
        await fleet.up(fake_model("smol", replicas=2, max_concurrency=1))
        silent, answers = [await acquire(fleet, "smol") for _ in range(2)]
        found = fleet._runner.supervisors[silent.endpoint.replica]
        assert found.process is not None
        pid = found.process.identity.pid
        os.kill(pid, signal.SIGSTOP)
        await eventually(lambda: found.silent, "its silence noticed")
        waits = fleet.acquire("smol")
        silent.release()
        assert waits.waits
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: found.restarts == 1)
        answers.release()
        await waits.granted()
        assert waits.endpoint
        waits.release()
