"""A real node process: killed, doubled, signalled; and the client that talks to it."""

from __future__ import annotations

import http.client
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.node.support import fake_model
from tests.support.polling import until
from tests.support.zygote import ZYGOTE
from yibu.config.wire import plain_config
from yibu.errors import EngineStartError, NotRunningError, UsageError
from yibu.node.control.client import ControlClient
from yibu.node.machine import processes
from yibu.node.state import home_id
from yibu.paths import Paths


class NodeProcess:
    """One node; ``client`` talks to it."""

    def __init__(self, paths: Paths, adopt: float = 60.0, **limits: Any) -> None:
        self.paths = paths
        self.client = ControlClient(paths)
        self.log = paths.logs / "node.log"
        with self.log.open("ab") as output:
            self.process = ZYGOTE.module(
                "tests.node.node_process",
                str(adopt),
                env={**os.environ, "YIBU_HOME": str(paths.state.parent)},
                stdout=output,
                stderr=output,
                **limits,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def started(self) -> NodeProcess:
        until(lambda: self.client.running() or self.process.poll() is not None)
        assert self.process.poll() is None, self.log.read_text()
        return self

    def up(self, name: str, *switches: str, **changes: Any) -> dict[str, Any]:
        config = plain_config(fake_model(name, *switches, **changes))
        self.client.call("up", timeout=None, models=[config])
        return self.model(name)

    def model(self, name: str) -> dict[str, Any]:
        models = self.client.call("ps")["models"]
        found: dict[str, Any] = next(model for model in models if model["name"] == name)
        return found

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


@pytest.fixture
def node(paths: Paths) -> Iterator[Callable[..., NodeProcess]]:
    """Starts nodes on the test's home, and ends those that still run."""
    nodes: list[NodeProcess] = []

    def start(**how: Any) -> NodeProcess:
        nodes.append(NodeProcess(paths, **how))
        return nodes[-1]

    yield start
    for each in nodes:
        if each.process.poll() is None:
            assert each.terminate() == 0, each.log.read_text()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """One node for the tests that do it no harm; each takes its models down."""
    home = Paths.from_env({"YIBU_HOME": str(tmp_path_factory.mktemp("shared"))})
    home.make()
    one = NodeProcess(home).started()
    yield one
    assert one.terminate() == 0, one.log.read_text()
    assert marked(one) == {}


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def test_its_whole_life(node: Callable[..., NodeProcess], paths: Paths) -> None:
    one = node().started()
    model = one.up("smol", source="/m")
    assert model["state"] == "ready"
    shown = one.client.call("ps")
    assert shown["version"] == 1
    assert shown["node"]["pid"] == one.pid
    assert abs(shown["node"]["started"] - time.time()) < 60
    assert shown["gateway"] == {"url": "http://127.0.0.1:1", "unwritten": None}
    assert set(shown) == {"version", "node", "gateway", "models"}
    path = paths.model_log("smol-0")
    assert "listens" in path.read_text()
    first = model["replicas"][0]["pid"]
    one.client.call("restart", timeout=None, models=["smol"])
    assert one.model("smol")["replicas"][0]["pid"] != first
    one.client.call("down", timeout=None, models=["smol"])
    assert one.client.call("ps")["models"] == []
    one.up("smol")
    assert one.client.call("shutdown")["pid"] == one.pid
    assert one.process.wait(60) == 0
    assert not paths.control_socket.exists()
    with pytest.raises(NotRunningError, match="No node runs"):
        one.client.call("ps")


def test_secrets_and_the_socket_are_the_owners_alone(shared: NodeProcess) -> None:
    one = shared
    model = one.up("smol")
    assert one.paths.control_socket.stat().st_mode & 0o777 == 0o600
    assert one.paths.runtime.stat().st_mode & 0o777 == 0o700
    state = one.paths.state / "node.json"
    until(lambda: "smol-0" in state.read_text())
    assert state.stat().st_mode & 0o777 == 0o600
    key = json.loads(state.read_text())["models"][0]["replicas"][0]["key"]
    pid = model["replicas"][0]["pid"]
    assert key.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert key not in one.log.read_text()
    one.client.call("down", timeout=None, models=["smol"])


@pytest.mark.skipif(os.getuid() != 0, reason="only root may be another user")
def test_another_user_is_refused(shared: NodeProcess) -> None:
    """The kernel says who connects, also where the files' modes would let everybody."""
    path = shared.paths.control_socket
    code = (
        "import os, socket, sys; os.chdir(sys.argv[1]); os.setuid(65534)\n"
        "one = socket.socket(socket.AF_UNIX); one.connect(sys.argv[2])\n"
        "print(one.recv(100))"
    )
    path.parent.chmod(0o711)
    path.chmod(0o666)
    try:
        done = subprocess.run(
            [sys.executable, "-S", "-c", code, str(path.parent), path.name],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    finally:
        path.chmod(0o600)
        path.parent.chmod(0o700)
    assert done.stdout == "b''\n"
    assert "a connection of another user was refused" in shared.log.read_text()


def test_a_killed_node_comes_back_and_adopts(node: Callable[..., NodeProcess]) -> None:
    one = node().started()
    before = one.up("smol", replicas=2)["replicas"]
    until(lambda: len(saved_pids(one)) == 2)
    one.kill()
    assert all(answers(replica["port"]) for replica in before), "engines outlive their node"
    with pytest.raises(NotRunningError):  # a stale socket is still there
        one.client.call("ps")
    two = node().started()
    until(lambda: two.model("smol")["state"] == "ready")
    until(lambda: {r["state"] for r in two.model("smol")["replicas"]} == {"ready"})
    after = two.model("smol")["replicas"]
    assert [(r["id"], r["pid"], r["port"]) for r in after] == [
        (r["id"], r["pid"], r["port"]) for r in before
    ]
    os.kill(after[0]["pid"], signal.SIGKILL)  # adopted engines are supervised like others
    until(lambda: two.model("smol")["replicas"][0]["restarts"] == 1)
    until(lambda: two.model("smol")["replicas"][0]["state"] == "ready")
    assert two.terminate() == 0
    assert not any(answers(replica["port"]) for replica in after)


def saved_pids(node: NodeProcess) -> list[int]:
    state = node.paths.state / "node.json"
    if not state.exists():
        return []
    models = json.loads(state.read_text())["models"]
    return [r["process"]["pid"] for m in models for r in m["replicas"] if r["process"]]


def test_what_died_meanwhile_is_started_again(
    node: Callable[..., NodeProcess],
) -> None:
    one = node().started()
    before = one.up("smol", replicas=2)["replicas"]
    gone = one.up("gone")["replicas"][0]
    until(lambda: len(saved_pids(one)) == 3)
    one.kill()
    killed = (before[0]["pid"], gone["pid"])
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    until(lambda: all(map(is_dead, killed)))  # else the next node might still find one alive
    two = node().started()
    until(lambda: {r["state"] for r in two.model("smol")["replicas"]} == {"ready"})
    after = two.model("smol")["replicas"]
    assert after[0]["pid"] != before[0]["pid"]
    assert after[1]["pid"] == before[1]["pid"]
    until(lambda: two.model("gone")["state"] == "ready")
    assert two.model("gone")["replicas"][0]["pid"] != gone["pid"]


def is_dead(pid: int) -> bool:
    info = processes.process(pid)
    return info is None or info.zombie


def test_nothing_is_started_before_what_was_left_is_ended(
    node: Callable[..., NodeProcess], paths: Paths
) -> None:
    """A node that looks for what to end must not find an engine that it has just started itself."""
    one = node().started()
    before = one.up("smol", replicas=2)["replicas"]
    until(lambda: len(saved_pids(one)) == 2)
    one.kill()
    os.kill(before[0]["pid"], signal.SIGKILL)
    until(lambda: is_dead(before[0]["pid"]))
    home = home_id(paths.state)
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print(); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", stubborn],
        env={**os.environ, processes.MARKER: f"{home}/lost-0/1"},
        stdout=subprocess.PIPE,
    ) as lost:
        assert lost.stdout is not None
        lost.stdout.readline()
        two = node()
        until(lambda: processes.marked(f"{home}/smol-0/"))
        assert is_dead(lost.pid)
    two.started()
    until(lambda: {r["state"] for r in two.model("smol")["replicas"]} == {"ready"})
    assert [r["restarts"] for r in two.model("smol")["replicas"]] == [0, 0]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/shm is Linux's")
def test_what_engines_leave_that_are_killed_with_their_node(
    node: Callable[..., NodeProcess], paths: Paths
) -> None:
    shared = [Path(f"/dev/shm/psm_yibu-test-{os.getpid()}-{name}") for name in ("dead", "lives")]
    one = node().started()
    dead = one.up("dead", "--shared-memory", shared[0].name)["replicas"][0]["pid"]
    lives = one.up("lives", "--shared-memory", shared[1].name)["replicas"][0]["pid"]
    until(lambda: state_of(one).count('"path": "/dev/shm/psm_yibu-test') == 2)
    temporary = [Path(psutil.Process(pid).environ()["TMPDIR"]) for pid in (dead, lives)]
    assert all(path.is_dir() for path in temporary)
    one.kill()
    os.kill(dead, signal.SIGKILL)
    until(lambda: is_dead(dead))
    left = shared[0].stat().st_ino
    two = node().started()
    until(lambda: two.model("dead")["state"] == "ready")  # it is started again
    assert [path.exists() for path in temporary] == [False, True]
    assert shared[0].stat().st_ino != left
    assert shared[1].exists()
    assert two.terminate() == 0
    assert not any(path.exists() for path in (*temporary, *shared))
    assert list((paths.state / "temporary").iterdir()) == []


def state_of(node: NodeProcess) -> str:
    state = node.paths.state / "node.json"
    return state.read_text() if state.exists() else ""


def test_an_engine_that_hangs_is_ended_not_adopted(
    node: Callable[..., NodeProcess], tmp_path: Path
) -> None:
    one = node().started()
    before = one.up("smol")["replicas"][0]
    until(lambda: saved_pids(one))
    one.kill()
    os.kill(before["pid"], signal.SIGSTOP)
    two = node(adopt=1.5).started()
    until(lambda: two.model("smol")["state"] == "ready")
    assert two.model("smol")["replicas"][0]["pid"] != before["pid"]
    assert is_dead(before["pid"])


def test_another_process_under_a_saved_pid_is_not_touched(
    node: Callable[..., NodeProcess],
) -> None:
    one = node().started()
    engine = one.up("smol")["replicas"][0]["pid"]
    until(lambda: saved_pids(one))
    one.kill()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        state = one.paths.state / "node.json"
        data = json.loads(state.read_text())
        data["models"][0]["replicas"][0]["process"]["pid"] = stranger.pid
        state.write_text(json.dumps(data))
        two = node().started()
        until(lambda: two.model("smol")["state"] == "ready")
        assert stranger.poll() is None
        pids = {identity.pid for identity in marked(two)}
        assert pids == {two.model("smol")["replicas"][0]["pid"]}
        assert engine not in pids, "the engine was left behind"
        stranger.kill()


def marked(node: NodeProcess) -> dict[processes.Identity, str]:
    return processes.marked(f"{home_id(node.paths.state)}/")


def test_a_corrupt_state_is_set_aside_and_its_engines_are_ended(
    node: Callable[..., NodeProcess], tmp_path: Path
) -> None:
    child = tmp_path / "child"
    one = node().started()
    one.up("smol", "--fork-child", str(child))
    until(lambda: saved_pids(one))
    assert len(marked(one)) == 2
    one.kill()
    state = one.paths.state / "node.json"
    state.write_bytes(b'{"version": 1, "mod')
    two = node().started()
    assert marked(two) == {}
    assert two.client.call("ps")["models"] == []
    (aside,) = one.paths.state.glob("node.json.corrupt-*")
    assert aside.read_bytes().endswith(b"mod")
    assert "set aside" in two.log.read_text()
    two.up("smol")


def test_two_nodes_on_one_home_refuse_each_other(node: Callable[..., NodeProcess]) -> None:
    one = node().started()
    two = node()
    assert two.process.wait(60) == 1
    assert f"AlreadyRunningError: a node already runs on this home ({one.paths.state})" in (
        text := one.log.read_text()
    )
    assert f"pid {one.pid}" in text
    assert one.client.running(), "the second must not have taken the first one's socket"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_everything_and_exit_zero(
    node: Callable[..., NodeProcess], tmp_path: Path, number: signal.Signals
) -> None:
    one = node().started()
    one.up("smol", "--fork-child", str(tmp_path / "child"), "--child-ignores-sigterm")
    one.process.send_signal(number)
    assert one.process.wait(60) == 0
    assert marked(one) == {}


def test_a_signal_while_a_model_starts(node: Callable[..., NodeProcess]) -> None:
    one = node().started()
    going = threading.Thread(target=pytest.raises, args=(NotRunningError, one.up, "smol", "--hang"))
    going.start()
    until(lambda: marked(one))
    assert one.terminate() == 0
    going.join(60)
    assert not going.is_alive()
    assert marked(one) == {}


def test_typed_errors_cross_the_socket(shared: NodeProcess) -> None:
    one = shared
    with pytest.raises(EngineStartError) as failed:
        one.up("big", "--fail-start", "CUDA out of memory")
    assert failed.value.cause == "out_of_memory"
    assert failed.value.hint == "use a smaller model"
    assert "| CUDA out of memory" in failed.value.message
    with pytest.raises(NotRunningError, match="nothing is not up; there are: big"):
        one.client.call("down", models=["nothing"])
    with pytest.raises(UsageError, match="no operation 'dance'"):
        one.client.call("dance")
    with pytest.raises(UsageError, match="cannot be read"):
        one.client.call("up", models=[{"name": "x", "colour": "blue"}])
    one.client.call("down", timeout=None, models=["big"])


def test_events_are_streamed_and_a_client_may_leave(shared: NodeProcess) -> None:
    one = shared
    config = plain_config(fake_model("smol", "--ready-after", "0.5", source="/m"))
    stream = one.client.stream("up", models=[config])
    first = next(stream)
    assert (first["event"], first["model"]) == ("state", "smol")
    stream.close()
    until(lambda: one.model("smol")["state"] == "ready")
    kinds = [message.get("event") for message in one.client.stream("down", models=["smol"])]
    assert "state" in kinds
    assert kinds[-1] is None


def test_junk_on_the_socket_does_no_harm(shared: NodeProcess) -> None:
    one = shared
    for junk in (b"", b"\n", b"no json\n", b"[1]\n", b'{"op": "up"}\n', b"x" * 99, b"\xff\n"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(str(one.paths.control_socket))
            connection.sendall(junk)
            answer = connection.makefile("rb").readline() if junk.endswith(b"\n") else b""
        assert "error" in json.loads(answer) if answer else not junk.endswith(b"\n")
    assert one.client.running()


def test_a_full_disk_does_not_end_the_node(node: Callable[..., NodeProcess]) -> None:
    def no_room() -> None:
        # SIGXFSZ would kill; ignored, writes over the limit fail with EFBIG instead.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))

    one = node(preexec_fn=no_room)
    until(one.client.running)
    model = one.up("smol")
    assert model["state"] == "ready"
    os.kill(model["replicas"][0]["pid"], signal.SIGKILL)
    until(lambda: one.model("smol")["replicas"][0]["restarts"] == 1)
    until(lambda: one.model("smol")["state"] == "ready")
    one.client.call("down", timeout=None, models=["smol"])
    # 120 is Python's own, where it could not write what it still had to say.
    assert one.terminate() in (0, 120)


def test_the_client_is_light() -> None:
    code = (
        "import sys; import yibu.node.control.client, yibu.node.logs; "
        "heavy = {'asyncio', 'psutil', 'pydantic', 'fastapi', 'aiohttp', 'rich', 'typer'}; "
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
