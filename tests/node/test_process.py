"""Spawning and ending real processes: groups, orphans, deaf ones, environments."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.node.support import FAKE
from tests.support.polling import eventually
from yibu.errors import EngineStartError
from yibu.node.launch.environ import clean_environment
from yibu.node.launch.process import EngineProcess, end_marked
from yibu.node.launch.spec import Host
from yibu.node.machine import ports, processes
from yibu.node.machine.orphans import OrphanReaper

STOP = {"grace": 60, "orphan_grace": 0.3, "kill": 60}


def spawn(host: Host, *switches: str, marker: str = "r-0/1") -> tuple[EngineProcess, int]:
    port = host.ports.take()
    marker = f"{host.home_id}/{marker}"
    env = clean_environment(host.env, {}, marker)
    argv = [sys.executable, "-u", "-S", str(FAKE), "--port", str(port), *switches]
    return EngineProcess.spawn(argv, env, host.paths.model_log("r-0"), marker), port


async def listening(port: int) -> bool:
    return not ports.is_free(port)


async def test_stop_ends_and_reaps_a_willing_process(host: Host) -> None:
    process, port = spawn(host)
    await eventually(lambda: listening(port))
    await process.stop(**STOP)
    assert process.exited
    assert processes.process(process.pid) is None, "it was not reaped"
    assert ports.is_free(port)


async def test_a_process_that_ignores_sigterm_is_killed_after_its_grace(host: Host) -> None:
    process, port = spawn(host, "--ignore-sigterm")
    await eventually(lambda: listening(port))
    await process.stop(grace=0.2, orphan_grace=0.1, kill=60)
    assert await process.wait() == -signal.SIGKILL
    assert processes.process(process.pid) is None


@pytest.mark.parametrize("switch", [[], ["--child-ignores-sigterm"]])
async def test_a_child_in_its_own_session_goes_with_the_engine(
    host: Host, tmp_path: Path, switch: list[str]
) -> None:
    file, held = tmp_path / "child", host.ports.take()
    process, port = spawn(host, "--fork-child", str(file), "--child-port", str(held), *switch)
    await eventually(lambda: listening(port))
    child = int(file.read_text())
    assert os.getsid(child) == child, "the fake's child should lead a session"
    assert not ports.is_free(held)
    await process.stop(**STOP)
    assert processes.process(child) is None
    assert ports.is_free(held)


LEADERLESS = """
import ctypes, subprocess, sys, threading, time
if sys.argv[1:] == ["child"]:
    threading.Thread(target=time.sleep, args=(600,)).start()
    print("ready", flush=True)
    ctypes.CDLL(None).pthread_exit(0)
child = subprocess.Popen([sys.executable, "-c", sys.orig_argv[2], "child"], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""


async def test_a_left_behind_process_ends_whole_when_its_first_thread_has_ended(host: Host) -> None:
    """Such a one looks like a zombie, but its other threads run and hold what they hold."""
    env = clean_environment(host.env, {}, f"{host.home_id}/r-0/1")
    log = host.paths.model_log("r-0")
    process = EngineProcess.spawn([sys.executable, "-c", LEADERLESS], env, log, "r-0/1")
    await eventually(lambda: log.exists() and log.read_text().endswith("\n"))
    child = int(log.read_text())
    await process.refresh()
    await eventually(lambda: (info := processes.process(child)) is not None and info.zombie)
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    await process.stop(**STOP)
    assert processes.process(child) is None


async def test_a_child_left_behind_by_a_killed_engine_is_found_and_reaped(
    host: Host, tmp_path: Path
) -> None:
    file = tmp_path / "child"
    process, port = spawn(host, "--fork-child", str(file))
    await eventually(lambda: listening(port))
    child = int(file.read_text())
    os.kill(process.pid, signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL
    assert processes.process(child) is not None, "it should have survived its parent"
    await process.stop(**STOP)
    assert processes.process(child) is None


async def test_the_exit_code_is_known_before_the_process_is_reaped(host: Host) -> None:
    process, _ = spawn(host, "--fail-start", "no luck", "--exit-code", "7")
    assert await process.wait() == 7
    info = processes.process(process.pid)
    assert info is not None
    assert info.zombie
    await process.stop(**STOP)
    assert await process.wait() == 7
    assert "no luck" in host.paths.model_log("r-0").read_text()


async def test_end_marked_finds_what_a_lost_state_leaves(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "child"
    kept, kept_port = spawn(host, marker="keep/1")
    lost, lost_port = spawn(host, "--fork-child", str(file), marker="lost/1")
    await eventually(lambda: listening(kept_port))
    await eventually(lambda: listening(lost_port))
    ended = await end_marked(f"{host.home_id}/", {kept.marker}, grace=60, kill=60)
    assert ended == 2
    assert not processes.alive(lost.identity)
    assert processes.process(int(file.read_text())) is None
    assert processes.alive(kept.identity)
    await lost.stop(**STOP)
    await kept.stop(**STOP)


async def test_a_reused_pid_is_not_signalled(host: Host) -> None:
    process, _ = spawn(host)
    stranger = processes.Identity(process.pid, process.identity.started - 1)
    assert not processes.send(stranger, signal.SIGKILL)
    assert not processes.alive(stranger)
    assert processes.alive(process.identity)
    await process.stop(**STOP)


async def test_an_adopted_process_is_watched_and_ended(host: Host) -> None:
    process, port = spawn(host)
    await eventually(lambda: listening(port))
    adopted = EngineProcess.adopt(process.identity, process.marker)
    assert not adopted.exited
    await adopted.stop(**STOP)
    assert await adopted.wait() is None
    await process.stop(**STOP)


async def test_programs_that_cannot_run_say_so(host: Host, tmp_path: Path) -> None:
    log = host.paths.model_log("r-0")
    with pytest.raises(EngineStartError, match="was not found") as missing:
        EngineProcess.spawn(["/no/such/program"], {}, log, "m")
    assert missing.value.cause == "program_not_found"
    plain = tmp_path / "plain"
    plain.write_text("no program")
    with pytest.raises(EngineStartError, match="Permission denied") as denied:
        EngineProcess.spawn([str(plain)], {}, log, "m")
    assert denied.value.cause == "not_executable"


async def test_an_engine_is_spawned_though_its_log_cannot_be_opened(
    host: Host, tmp_path: Path
) -> None:
    process = EngineProcess.spawn(["/bin/true"], {}, tmp_path / "no" / "log", "m")
    assert await process.wait() == 0
    await process.stop(**STOP)


async def test_an_engine_inherits_no_credentials(host: Host) -> None:
    parent = {
        **host.env,
        "OPENAI_API_KEY": "s1",
        "HF_TOKEN": "s2",
        "AWS_SECRET_ACCESS_KEY": "s3",
        "DB_PASSWORD": "s4",
        "PGPASSWORD": "s6",
        "SMTP_PASS": "s7",
        "OPENAI_APIKEY": "s8",
        "DATABASE_URL": "postgres://me:s9@db/x",
        "YIBU_API_KEYS": "s5",
        "NOTIFY_SOCKET": "/run/systemd/notify",
        "PYTHONPATH": "/elsewhere",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HTTPS_PROXY": "http://me:s10@proxy:3128",
        "CUDA_VISIBLE_DEVICES": "0",
        "ORT_DISABLE_TELEMETRY": "0",
    }
    env = clean_environment(parent, {"HF_TOKEN": "wanted"}, f"{host.home_id}/r/1")
    port = host.ports.take()
    argv = [sys.executable, "-u", "-S", str(FAKE), "--port", str(port), "--print-env"]
    log = host.paths.model_log("r-0")
    process = EngineProcess.spawn(argv, env, log, f"{host.home_id}/r/1")
    await eventually(lambda: log.exists() and log.read_text().count("\n") > 0)
    found = json.loads(log.read_text().splitlines()[0])
    await process.stop(**STOP)
    assert found["HF_TOKEN"] == "wanted"
    assert not {
        "OPENAI_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "DB_PASSWORD",
        "PGPASSWORD",
        "SMTP_PASS",
        "OPENAI_APIKEY",
        "DATABASE_URL",
        "YIBU_API_KEYS",
        "NOTIFY_SOCKET",
    } & set(found)
    assert not {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE"} & set(found)
    assert found["TOKENIZERS_PARALLELISM"] == "false"
    assert found["HTTPS_PROXY"] == "http://me:s10@proxy:3128"
    assert found["CUDA_VISIBLE_DEVICES"] == "0"
    quiet = ("DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY", "ORT_DISABLE_TELEMETRY",
             "VLLM_NO_USAGE_STATS")  # fmt: skip
    assert [found[name] for name in quiet] == ["1"] * 4
    assert found["PATH"] == os.environ["PATH"]
    assert found["YIBU_REPLICA"] == f"{host.home_id}/r/1"
    assert log.stat().st_mode & 0o777 == 0o600


async def test_ports_are_not_given_twice_nor_when_taken(host: Host) -> None:
    taken = {host.ports.take() for _ in range(50)}
    assert len(taken) == 50
    port = taken.pop()
    with socket.create_server(("127.0.0.1", port)):
        assert not await ports.wait_free(port, 0.1)
        waiting = asyncio.create_task(ports.wait_free(port, 60))
        await asyncio.sleep(0)
    assert await waiting


async def test_who_listens_is_known(host: Host) -> None:
    process, port = spawn(host)
    await eventually(lambda: listening(port))
    assert ports.listens(port, [process.pid])
    assert not ports.listens(port, [os.getpid()])
    await process.stop(**STOP)
    assert not ports.listens(port, [process.pid])


async def test_orphans_that_died_unseen_are_reaped(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    # A grandchild in a session of its own, orphaned at once, that ends a moment later.
    code = f"setsid sh -c 'echo $$ > {file}; sleep 0.1' & exit 0"
    process = EngineProcess.spawn(["/bin/sh", "-c", code], {}, host.paths.model_log("r-0"), "m")
    await process.wait()
    await eventually(lambda: file.exists() and file.read_text())
    pid = int(file.read_text())
    await eventually(lambda: (info := processes.process(pid)) is not None and info.zombie)
    reaper = OrphanReaper(patience=0)
    assert reaper.look({process.pid}) >= 1
    assert processes.process(pid) is None
    info = processes.process(process.pid)
    assert info is not None
    assert info.zombie, "an engine's own status is its owner's"
    await process.stop(**STOP)
    assert OrphanReaper(patience=60).look(()) == 0


FAMILY = """
import os, signal, sys, time
def said(word):
    with open(sys.argv[1], "a") as file:
        file.write(word + "\\n")
    os._exit(0)
who = "main" if os.fork() else "child"
signal.signal(signal.SIGTERM, lambda *_: said(who))
with open(sys.argv[1], "a") as file:
    file.write("ready\\n")
if who == "main":
    while open(sys.argv[1]).read().count("ready") < 2:
        time.sleep(0.01)
while True:
    time.sleep(1)
"""


@pytest.mark.parametrize("whole_group", [True, False])
async def test_the_main_process_alone_can_be_asked_first(
    host: Host, tmp_path: Path, whole_group: bool
) -> None:
    file = tmp_path / "said"
    file.touch()
    argv = [sys.executable, "-S", "-c", FAMILY, str(file)]
    marker = f"{host.home_id}/r-0/1"
    env = clean_environment(host.env, {}, marker)
    process = EngineProcess.spawn(argv, env, host.paths.model_log("r-0"), marker)

    async def both() -> bool:
        return file.read_text().count("ready") == 2

    await eventually(both)
    # The orphan is asked, or killed, after the main process has ended: never before or with it.
    await process.stop(grace=60, orphan_grace=60, kill=60, whole_group=whole_group)
    words = file.read_text().split()[2:]
    if whole_group:
        assert sorted(words) == ["child", "main"]
    else:
        assert words == ["main", "child"]
