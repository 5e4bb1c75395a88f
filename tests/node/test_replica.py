"""Supervision of one replica, with a real process for every way an engine can misbehave."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.node.support import QUICK, fake_spec
from tests.support.polling import eventually
from yibu.environments.disk import compiled_by
from yibu.node.launch import probe
from yibu.node.launch.spec import Host, LaunchSpec
from yibu.node.machine import oom, processes
from yibu.node.supervisor import watch
from yibu.node.supervisor.replica import ReplicaSupervisor
from yibu.node.tasks import to_its_end

Supervise = Callable[..., Any]


@pytest.fixture
def supervise(host: Host) -> Supervise:
    """``async with supervise(*switches) as (replica, history)``; stopped at the end."""

    @asynccontextmanager
    async def started(
        *switches: str, spec: LaunchSpec | None = None, **timings: Any
    ) -> AsyncIterator[tuple[ReplicaSupervisor, list[str]]]:
        history: list[str] = []

        def moved(replica: ReplicaSupervisor) -> None:
            if not history or history[-1] != replica.state:
                history.append(replica.state)

        this = dataclasses.replace(host, timings=dataclasses.replace(QUICK, **timings))
        replica = ReplicaSupervisor("fake-0", spec or fake_spec(*switches), this, moved)
        task = asyncio.create_task(replica.run())
        try:
            yield replica, history
        finally:
            await replica.stop()
            await task
        assert history[-1] == "stopped"

    return started


OFTEN = {"failure_limit": 1000}
"""With short time-outs: a healthy engine may exceed them too, on a busy machine, and starts again."""

CANARY = {"idle_canary": 0.2, "canary": 0.4, **OFTEN}


async def state(replica: ReplicaSupervisor, wanted: str) -> None:
    await eventually(lambda: replica.state == wanted)


async def restarted(replica: ReplicaSupervisor) -> None:
    await eventually(lambda: replica.restarts >= 1)


async def pid_of(replica: ReplicaSupervisor) -> int:
    assert replica.process is not None
    return replica.process.pid


async def test_it_becomes_ready_and_serves(supervise: Supervise) -> None:
    async with supervise() as (replica, history):
        await state(replica, "ready")
        answer = await probe.get(replica.endpoint, "/v1/models", 5)
        assert answer.status == 200
        assert history == ["starting", "ready"]
    assert history == ["starting", "ready", "draining", "stopped"]


async def test_an_engine_that_compiles_has_a_place_of_its_own(supervise: Supervise) -> None:
    spec = fake_spec("--print-env", env={"KERNELS": "{cache}/kernels"}, keeps_compiled=True)
    async with supervise(spec=spec) as (replica, _):
        await state(replica, "ready")
        paths = replica._host.paths
        (cache,) = paths.compiled.iterdir()
        assert spec.python is not None
        assert cache == compiled_by(paths.compiled, spec.python)
        assert cache.stat().st_mode & 0o777 == 0o700
        assert f'"KERNELS": "{cache}/kernels"' in paths.model_log("fake-0").read_text()


async def test_readiness_waits_for_the_ready_path_and_for_a_token(supervise: Supervise) -> None:
    async with supervise("--ready-after", "0.3", "--slow-tokens", "0.2") as (replica, _):
        await eventually(lambda: replica.process)
        assert replica.state == "starting"
        await state(replica, "ready")
        log = replica._host.paths.model_log("fake-0")
        assert "listens" in log.read_text()


async def test_an_engine_without_chat_is_probed_by_what_it_has(supervise: Supervise) -> None:
    async with supervise("--no-chat") as (replica, _):
        await state(replica, "ready")


@pytest.mark.parametrize(
    ("capabilities", "path"),
    [
        ({"embeddings"}, "/v1/embeddings"),
        ({"transcriptions"}, "/v1/audio/transcriptions"),
        (set(), None),
    ],
)
async def test_the_probe_follows_the_plan(
    supervise: Supervise, capabilities: set[str], path: str | None
) -> None:
    spec = fake_spec(capabilities=frozenset(capabilities))
    async with supervise(spec=spec) as (replica, _):
        await state(replica, "ready")
    requests = probe.token_requests(frozenset(capabilities), "fake")  # type: ignore[arg-type]
    assert [request.path for request in requests] == ([path] if path else [])


async def crash(replica: ReplicaSupervisor) -> None:
    """Make a fake with ``--crash-on-request`` exit."""
    (request, *_) = probe.token_requests(frozenset({"chat"}), "fake")
    assert replica.endpoint is not None
    with pytest.raises(probe.ProbeError):
        await probe.one_token(replica.endpoint, request, 60)


@pytest.mark.parametrize(
    ("switches", "code"), [(["--exit-zero"], "0 though nobody"), (["--exit-code", "3"], "3;")]
)
async def test_a_crash_is_answered_by_a_restart(
    supervise: Supervise, switches: list[str], code: str
) -> None:
    async with supervise("--crash-on-request", *switches) as (replica, history):
        await state(replica, "ready")
        await crash(replica)
        await restarted(replica)
        assert f"exited with code {code}" in (replica.cause or "")
        await state(replica, "ready")
        assert history == ["starting", "ready", "starting", "ready"]
        assert replica.cause is None


async def test_sigkill_is_named_and_answered_by_a_restart(supervise: Supervise) -> None:
    async with supervise() as (replica, _):
        await state(replica, "ready")
        first = await pid_of(replica)
        os.kill(first, signal.SIGKILL)
        await restarted(replica)
        assert "SIGKILL, which yibu did not send" in (replica.cause or "")
        await state(replica, "ready")
        assert await pid_of(replica) != first


async def test_the_out_of_memory_killer_is_named(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("nr_free_pages 7\noom_kill 4\n")
    kills = oom.kills
    monkeypatch.setattr(oom, "kills", lambda: kills(vmstat))
    assert oom.kills() == 4
    assert kills(tmp_path / "none") == 0
    async with supervise() as (replica, _):
        await state(replica, "ready")
        vmstat.write_text("nr_free_pages 7\noom_kill 5\n")
        os.kill(await pid_of(replica), signal.SIGKILL)
        await restarted(replica)
        assert "the kernel ran out of memory" in (replica.cause or "")
        await state(replica, "ready")


async def test_repeated_crashes_end_in_failed_with_the_cause(supervise: Supervise) -> None:
    switches = ("--crash-on-request", "--exit-code", "9")
    async with supervise(*switches) as (replica, history):
        for restarts in range(QUICK.failure_limit):
            await state(replica, "ready")
            assert replica.restarts == restarts
            await crash(replica)
            await eventually(lambda: replica.state != "ready")
        await state(replica, "failed")
        assert replica.restarts == QUICK.failure_limit - 1
        assert "exited with code 9" in (replica.cause or "")
        assert replica.error is not None
        assert replica.error.cause == "crash"
        assert "3 failures in a short time" in (replica.cause or "")
        assert history.count("ready") == QUICK.failure_limit
        assert replica.process is None


async def test_a_healthy_period_forgets_failures(supervise: Supervise, tmp_path: Path) -> None:
    async with supervise(failure_limit=2, healthy_after=0.0) as (replica, _):
        for restarts in (1, 2, 3):
            await state(replica, "ready")
            os.kill(await pid_of(replica), signal.SIGKILL)
            await eventually(lambda n=restarts: replica.restarts == n)
        await state(replica, "ready")


async def test_a_failed_start_is_shown_at_once_with_cause_and_log(supervise: Supervise) -> None:
    async with supervise("--fail-start", "CUDA out of memory: --api-key hunter22") as (replica, h):
        await state(replica, "failed")
        assert h == ["starting", "failed"]
        assert replica.restarts == 0
        error = replica.error
        assert error is not None
        assert error.cause == "out_of_memory"
        assert error.hint == "use a smaller model"
        assert "memory did not suffice" in (replica.cause or "")
        assert "| CUDA out of memory" in error.message
        assert "hunter22" not in error.message


async def test_a_hang_at_start_ends_at_the_start_timeout(supervise: Supervise) -> None:
    async with supervise(spec=fake_spec("--hang", start_timeout=0.6)) as (replica, _):
        await state(replica, "failed")
        assert "was not ready after 0.6 s" in (replica.cause or "")
        assert replica.process is None


async def test_generation_that_hangs_at_start_is_no_readiness(supervise: Supervise) -> None:
    for seconds in (0.8, 4.0, 20.0):  # long enough for the engine to be asked for a token
        spec = fake_spec("--hang-generation", start_timeout=seconds)
        async with supervise(spec=spec) as (replica, history):
            await state(replica, "failed")
            assert "ready" not in history
            cause = replica.cause or ""
            if "generation 1" in replica._host.paths.model_log("fake-0").read_text():
                break
    assert "/v1/chat/completions: no answer yet" in cause


async def test_an_idle_engine_that_gives_no_token_is_restarted(
    supervise: Supervise, tmp_path: Path
) -> None:
    async with supervise("--hang-after", "1", **CANARY) as (replica, _):
        await state(replica, "ready")
        await restarted(replica)
        assert "answers, but no tokens came" in (replica.cause or "")


async def test_requests_without_progress_bring_the_canary_early(supervise: Supervise) -> None:
    async with supervise("--hang-after", "1", stall=0.2, canary=0.4, **OFTEN) as (replica, _):
        await state(replica, "ready")
        replica.acquire("one")
        await restarted(replica)
        replica.release("one", failed=True)


async def test_a_busy_engine_is_not_taken_for_hung(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Beside other tests it may get less of a processor than is asked of a busy engine.
    monkeypatch.setattr(watch, "_BUSY_SHARE", 0.0)
    quick = {"idle_canary": 0.1, "canary": 1.5, "busy_limit": 1000.0, "health_every": 0.05}
    async with supervise("--hang-after", "1", "--spin", **quick) as (replica, history):
        await state(replica, "ready")
        log = replica._host.paths.model_log("fake-0")
        await eventually(lambda: "generation 4" in log.read_text())  # two canaries in vain
        assert history == ["starting", "ready"]


async def test_progress_keeps_the_canary_away(supervise: Supervise) -> None:
    async with supervise() as (replica, _):
        await state(replica, "ready")
        watch = replica._watch
        before = watch._liveness.last_progress
        replica.progressed()
        assert watch._liveness.last_progress > before


async def test_a_stopped_engine_fails_its_health_checks(supervise: Supervise) -> None:
    async with supervise(health_request=0.1, **OFTEN) as (replica, _):
        await state(replica, "ready")
        os.kill(await pid_of(replica), signal.SIGSTOP)
        await restarted(replica)
        assert "hangs: its process is stopped, 3 times in a row" in (replica.cause or "")
        await state(replica, "ready")


async def test_clients_that_give_up_do_not_hide_a_stopped_engine(supervise: Supervise) -> None:
    """Their requests end, though nothing came from the engine."""
    async with supervise(health_every=0.05, health_request=1.0, **OFTEN) as (replica, _):
        await state(replica, "ready")
        os.kill(await pid_of(replica), signal.SIGSTOP)

        async def gave_up() -> bool:
            if replica.state == "ready":
                replica.acquire("one")
                replica.release("one", failed=False)
            return replica.restarts >= 1

        await eventually(gave_up)
        assert replica.failures.counts["hung"]


async def test_an_engine_that_stops_within_a_canary_fails_its_health_checks(
    supervise: Supervise,
) -> None:
    async with supervise(
        "--hang-after", "1", idle_canary=0.1, canary=1000.0, health_request=1.0, **OFTEN
    ) as (replica, _):
        await state(replica, "ready")
        log = replica._host.paths.model_log("fake-0")
        await eventually(lambda: "generation 2" in log.read_text(), "the canary is asked")
        os.kill(await pid_of(replica), signal.SIGSTOP)
        await restarted(replica)
        assert replica.failures.counts["hung"]


async def test_a_failed_request_makes_it_look_at_once(supervise: Supervise) -> None:
    slow = {"health_every": 1000.0, "health_request": 0.05, "health_failures": 1, **OFTEN}
    async with supervise(**slow) as (replica, _):
        await state(replica, "ready")
        os.kill(await pid_of(replica), signal.SIGSTOP)
        replica.acquire("one")
        replica.release("one", failed=True)
        await restarted(replica)


@pytest.mark.parametrize("victim", ["main", "child"])
async def test_whichever_process_is_killed_the_engine_recovers_whole(
    supervise: Supervise, tmp_path: Path, victim: str
) -> None:
    file = tmp_path / "child"
    async with supervise("--fork-child", str(file), "--needs-child", **CANARY) as (replica, _):
        await state(replica, "ready")
        main, child = await pid_of(replica), int(file.read_text())
        os.kill(main if victim == "main" else child, signal.SIGKILL)
        await restarted(replica)
        await state(replica, "ready")
        assert processes.process(main) is None
        assert processes.process(child) is None
        await eventually(lambda: processes.process(int(file.read_text() or 0)) is not None)


async def test_a_stranger_on_the_port_is_not_taken_for_the_engine(
    supervise: Supervise, tmp_path: Path
) -> None:
    asked = asyncio.Event()

    async def agree(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    taken = tmp_path / "taken"
    async with supervise("--bind-when", str(taken)) as (replica, history):
        await eventually(lambda: replica.process)
        stolen = replica.port
        async with await asyncio.start_server(agree, "127.0.0.1", stolen):
            await asked.wait()
            taken.touch()
            await state(replica, "ready")
            assert replica.port != stolen
        assert history == ["starting", "ready"]
        assert replica.restarts == 0


async def test_an_orphan_is_gone_before_the_restart(supervise: Supervise, tmp_path: Path) -> None:
    file = tmp_path / "child"
    switches = ("--fork-child", str(file), "--child-ignores-sigterm")
    async with supervise(*switches) as (replica, _):
        await state(replica, "ready")
        child = int(file.read_text())
        os.kill(await pid_of(replica), signal.SIGKILL)
        await restarted(replica)
        assert processes.process(child) is None, "the restart did not wait for the orphan"
        await state(replica, "ready")
        assert int(file.read_text()) != child
    assert processes.process(int(file.read_text())) is None


async def test_a_port_taken_between_reserve_and_bind_is_replaced(
    host: Host, supervise: Supervise
) -> None:
    async with supervise() as (replica, history):
        await state(replica, "ready")
    free = replica._host.ports.take()
    with socket.create_server(("127.0.0.1", free)):
        stolen = iter([free])
        real = host.ports.take
        host.ports.take = lambda: next(stolen, None) or real()  # type: ignore[method-assign]
        async with supervise() as (replica, history):
            await state(replica, "ready")
            assert replica.port != free
            assert replica.restarts == 0
            assert history == ["starting", "ready"]


async def test_ports_that_are_always_taken_end_in_failed(supervise: Supervise) -> None:
    async with supervise("--port-in-use") as (replica, _):
        await state(replica, "failed")
        assert replica.error is not None
        assert replica.error.cause == "port_in_use"


async def test_stop_while_it_starts_leaves_nothing(supervise: Supervise, tmp_path: Path) -> None:
    file = tmp_path / "child"
    async with supervise("--ready-after", "60", "--fork-child", str(file)) as (_replica, _):
        await eventually(lambda: file.exists() and file.read_text())
    assert processes.process(int(file.read_text())) is None


async def test_stop_while_it_backs_off_does_not_wait(supervise: Supervise) -> None:
    async with supervise(backoff_first=1000.0, backoff_cap=1000.0) as (replica, _):
        await state(replica, "ready")
        os.kill(await pid_of(replica), signal.SIGKILL)
        await restarted(replica)


async def test_a_start_that_is_given_up_has_nothing_to_finish(supervise: Supervise) -> None:
    """So it does not get the time that a serving engine gets."""
    spec = fake_spec("--ready-after", "1000", "--ignore-sigterm", stop_grace=1000.0)
    async with supervise(spec=spec) as (replica, _):
        log = Path(replica._host.paths.model_log(replica.id))
        await eventually(lambda: log.exists() and "listens" in log.read_text())
        process = await pid_of(replica)
        async with asyncio.timeout(60):
            await replica.stop()
    assert processes.process(process) is None


async def test_cleaning_up_is_finished_however_often_it_is_cancelled() -> None:
    """And its time-outs count, in a task that was cancelled before: not so before Python 3.11.3."""
    done: list[str] = []
    began = asyncio.Event()

    async def clean() -> None:
        began.set()
        try:
            async with asyncio.timeout(0.05):
                await asyncio.Event().wait()
        except TimeoutError:
            done.append("timed out")
        await asyncio.sleep(0.05)
        done.append("killed")

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await to_its_end(clean())

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["timed out", "killed"]


async def test_stop_waits_for_requests_in_flight(supervise: Supervise) -> None:
    async with supervise() as (replica, _history):
        await state(replica, "ready")
        replica.acquire("one")
        stopping = asyncio.create_task(replica.stop())
        await state(replica, "draining")
        assert processes.alive(replica.process.identity)
        assert replica.endpoint is None, "a draining replica takes no more requests"
        replica.release("one", failed=False)
        await stopping


async def test_a_drain_has_an_end(supervise: Supervise) -> None:
    async with supervise(drain=0.1) as (replica, _):
        await state(replica, "ready")
        replica.acquire("one")
        await replica.stop()
        assert replica.state == "stopped"


async def test_restart_takes_a_failed_one_up_again(supervise: Supervise, tmp_path: Path) -> None:
    async with supervise("--fail-once", str(tmp_path / "once")) as (replica, history):
        await state(replica, "failed")
        replica.restart()
        await state(replica, "ready")
        assert replica.error is None
        first = await pid_of(replica)
        replica.restart()
        await eventually(lambda: "draining" in history)
        await state(replica, "ready")
        assert await pid_of(replica) != first
        assert replica.restarts == 0
