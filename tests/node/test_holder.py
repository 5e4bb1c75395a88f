"""The holder over real processes: what it keeps, when it starts again, when it gives up."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.polling import until
from yibu.node.handover import holder
from yibu.sockets import handed

NODE = """
import os, socket, sys, time
from yibu import sockets
from yibu.node.handover import holder
fds = sockets.handed(os.environ)
link = socket.socket(fileno=fds["holder"][0])
settings = sys.stdin.read()
if "gateway" in fds:
    listener = socket.socket(fileno=fds["gateway"][0])
else:
    listener = socket.create_server(("127.0.0.1", 0))
def keep():
    socket.send_fds(link, [holder.KEEP], [listener.fileno()])
def line(*words):
    print(os.getpid(), *words, flush=True)
"""
SERVE = """
keep()
line(listener.getsockname()[1], settings, *sorted(fds))
while True:
    one, _ = listener.accept()
    one.sendall(b"%d" % os.getpid())
    one.close()
"""


HASTY = """
import sys
from yibu.node.handover import holder
holder._DELAYS = (0.0, 0.05)  # as it is run, but that it does not wait ten seconds before a start
sys.exit(holder.Holder(*holder.parsed(sys.argv[1:])).run())
"""


class Held:
    def __init__(self, script: str, log: Path, settings: bytes = b"settings") -> None:
        node = [sys.executable, "-P", "-c", NODE + script]
        self.log = log
        with log.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", HASTY, "--", *node],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err, start_new_session=True,
            )  # fmt: skip
        assert self.process.stdin is not None
        self.process.stdin.write(settings)
        self.process.stdin.close()

    def said(self) -> list[str]:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().split()

    def wait(self) -> int:
        return self.process.wait(60)

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Callable[..., Held]]:
    made: list[Held] = []

    def make(script: str, **how: bytes) -> Held:
        made.append(Held(script, tmp_path / "log", **how))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def test_connections_wait_while_a_killed_node_is_started_again(hold: Callable[..., Held]) -> None:
    held = hold(SERVE)
    pid, port, *rest = held.said()
    assert rest == ["settings", "holder"]
    for _ in range(3):
        killed = psutil.Process(int(pid))
        killed.kill()
        killed.wait(60)
        with socket.create_connection(("127.0.0.1", int(port)), 60) as waits:
            after, again, *rest = held.said()
            assert waits.recv(100) == after.encode()
        assert (again, rest) == (port, ["settings", "gateway", "holder"])
        assert after != pid
        pid = after
    assert "was ended by signal 9 (SIGKILL)" in held.log.read_text()


def test_a_node_that_ends_at_once_is_given_up_with_its_cause(hold: Callable[..., Held]) -> None:
    held = hold("keep()\nprint('the disk is on fire', file=sys.stderr)\nos._exit(3)")
    assert held.wait() == 3
    log = held.log.read_text()
    assert log.count("the disk is on fire") == holder.TRIES
    assert "ended with exit code 3" in log.splitlines()[-1]
    assert "given up" in log.splitlines()[-1]


def test_its_lines_are_objects_where_the_nodes_are(hold: Callable[..., Held]) -> None:
    held = hold("keep()\nos._exit(3)", settings=b'{"log_format": "json"}')
    assert held.wait() == 3
    lines = [json.loads(line) for line in held.log.read_text().splitlines()]
    assert len(lines) == holder.TRIES
    assert {line["logger"] for line in lines} == {"yibu.node.handover.holder"}
    assert [line["level"] for line in lines] == ["warning"] * 9 + ["error"]


@pytest.mark.parametrize(
    ("script", "code"),
    [("os._exit(7)", 7), ("os.kill(os.getpid(), 9)", 137), ("keep(); os._exit(0)", 0),
     ("keep(); link.sendall(holder.STOP); os._exit(5)", 5)],
    ids=["before it listened", "killed before it listened", "wanted to", "told to stop"],
)  # fmt: skip
def test_what_is_not_started_again(hold: Callable[..., Held], script: str, code: int) -> None:
    held = hold(f"line()\n{script}")
    assert held.wait() == code
    assert held.said()
    assert not held.said()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_reach_the_node(hold: Callable[..., Held], number: signal.Signals) -> None:
    heard = "signal.signal(number, lambda *_: os._exit(number))"
    held = hold(f"import signal; number = {int(number)}; {heard}\n{SERVE}")
    held.said()
    held.process.send_signal(number)
    assert held.wait() == number
    assert "started again" not in held.log.read_text()


def test_a_signal_before_there_is_a_node_ends_it() -> None:
    told = (
        "import os, signal, sys\n"
        "from yibu.node.handover import holder\n"
        "one = holder.Holder([sys.executable, '-c', 'print(1)'], [])\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.exit(one.run())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", told],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, b""), done.stderr


def test_a_signal_between_two_lives_ends_it(hold: Callable[..., Held]) -> None:
    held = hold("keep()\nline()\nos._exit(1)")
    held.said()
    held.process.terminate()
    assert held.wait() in (1, 143)  # between two lives, or in one
    assert "given up" not in held.log.read_text()


def test_it_leaves_a_node_that_another_holder_has(hold: Callable[..., Held]) -> None:
    held = hold("keep()\nlink.sendall(holder.LEAVE)\n" + SERVE.replace("keep()", ""))
    pid, port, *_ = held.said()
    assert held.wait() == 0
    with socket.create_connection(("127.0.0.1", int(port)), 60) as connection:
        assert connection.recv(100) == pid.encode()
    os.kill(int(pid), signal.SIGKILL)


def test_a_killed_holder_leaves_the_node(hold: Callable[..., Held]) -> None:
    held = hold(SERVE)
    pid, port, *_ = held.said()
    held.process.kill()
    held.wait()
    with socket.create_connection(("127.0.0.1", int(port)), 60) as connection:
        assert connection.recv(100) == pid.encode()


def test_it_imports_nothing_of_yibu_and_is_small() -> None:
    """What it costs beside a bare interpreter, for it runs as long as the node does."""
    words = holder.command()
    program = "; import sys; print(sorted(sys.modules)); input()"
    with subprocess.Popen(
        [*words[:3], "-c", f"import runpy; runpy.run_path({words[3]!r}){program}"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        modules = process.stdout.readline()
        private = psutil.Process(process.pid).memory_full_info().uss
        process.communicate("\n")
    assert "yibu" not in modules
    assert "asyncio" not in modules
    assert private < 12 << 20


def test_it_stays_where_an_earlier_version_looks_for_it() -> None:
    """`node upgrade` is carried out by the node from before `pip install -U`, which knows these places alone."""
    *_, path, _, _, _, _, module = holder.command()
    assert path.endswith("/yibu/node/handover/holder.py")
    assert module == "yibu.daemon"


def test_descriptors_for_another_process_are_left_alone() -> None:
    env = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "gateway", "HOME": "/x"}
    assert handed(env) == {}
    assert env == {"HOME": "/x"}
    assert handed({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "many"}) == {}


def test_the_nodes_end_is_noticed_though_a_child_has_its_descriptors(
    hold: Callable[..., Held],
) -> None:
    """A process that the node forked keeps its end of the socketpair open."""
    held = hold("keep()\nline()\nif os.fork() == 0:\n    time.sleep(600)\nos._exit(0)")
    held.said()
    assert held.wait() == 0
    until(lambda: held.process.poll() == 0, "its end")
