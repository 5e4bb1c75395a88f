"""The node under its holder: what clients, commands and the foreground `yibu up` notice of a crash."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.home import Home, fake
from tests.support.counting import Count, ask_on
from tests.support.polling import eventually, until
from yibu.cli.session import end_left
from yibu.errors import NotRunningError
from yibu.management.context import Context
from yibu.node.control.client import ControlClient
from yibu.paths import Paths


def port(home: Home) -> int:
    return int(home.url().rpartition(":")[2])


def test_the_foreground_goes_on_with_the_next_node(home: Home) -> None:
    home.write([fake()])
    up = home.serving()
    engine = home.model("fake")["replicas"][0]["pid"]
    first = home.ps()["node"]["pid"]
    os.kill(first, signal.SIGKILL)
    assert up.stderr is not None
    said = up.stderr.readline() + up.stderr.readline()
    second = home.ps()["node"]["pid"]
    assert f"The node (process {first}) ended, and nobody had asked it to" in said
    assert f"It is back as process {second}" in said
    assert home.model("fake")["replicas"][0]["pid"] == engine
    home.yibu("node", "upgrade")
    third = home.ps()["node"]["pid"]
    assert f"process {third} is in the place of {second}" in up.stderr.readline()
    up.send_signal(signal.SIGTERM)
    assert up.wait(60) == 0
    up.communicate()
    until(lambda: not home.processes(), "everything gone")


async def test_only_requests_in_flight_are_lost_to_a_killed_node(home: Home) -> None:
    clients, kills = 8, 3
    home.write([fake()])
    await asyncio.to_thread(home.yibu, "up", "-d")
    number, count = port(home), Count()
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(ask_on(number, "fake", count))
        for _ in range(kills):
            answered = count.answered
            await eventually(lambda least=answered: count.answered > least + 100, "answers")
            node = home.ps()["node"]["pid"]
            os.kill(node, signal.SIGKILL)
            await eventually(lambda old=node: home.ps()["node"]["pid"] != old, "another node", 120)
        count.stop = True
    # Each client has at most one request in flight; nothing else is refused or fails.
    assert count.lost.total() <= clients * kills, count
    assert not [outcome for outcome in count.lost if "refused" in outcome or outcome[0].isdigit()]


def test_a_killed_holder_is_told_and_an_upgrade_brings_another(home: Home) -> None:
    home.write([fake()])
    home.yibu("up", "-d")
    node = home.ps()["node"]
    os.kill(node["holder"], signal.SIGKILL)
    until(lambda: home.ps()["node"]["holder"] is None, "the node knows")
    assert home.ps()["node"]["pid"] == node["pid"]
    assert "nothing starts it again if it is killed" in home.yibu("ps").stderr
    home.yibu("node", "upgrade")
    assert home.ps()["node"]["holder"]
    assert "nothing starts it again" not in home.yibu("ps").stderr


def test_down_ends_what_tries_to_start_a_node_that_cannot(home: Home, tmp_path: Path) -> None:
    """The installation breaks while the node runs, and then the node is killed."""
    settings = {"PYTHONPATH": str(tmp_path)}
    with Home(home.root, settings=settings, through=("env",)) as home:
        home.write([fake()])
        home.yibu("up", "-d")
        (tmp_path / "uvloop.py").write_text("raise ImportError('half an installation')\n")
        node = home.ps()["node"]
        os.kill(node["pid"], signal.SIGKILL)
        log = home.root / "logs" / "node.log"
        until(lambda: log.read_text().count("half an installation") > 1, "tries")
        paths = Paths.from_env(home.env)
        with pytest.raises(NotRunningError, match="does not come back") as refused:
            ControlClient(paths, patience=0.1).call("ping")
        assert "yibu logs node" in refused.value.hint
        assert end_left(Context(home.env, paths, home.root)) == 1
        assert not home.processes()


def test_a_socket_of_systemd_is_used_and_outlives_the_service(home: Home) -> None:
    """As sd_listen_fds(3) has it: the first process is given it, and the variables name its pid."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.getsockname()[1]
        home.write([fake()], port=number)
        by_systemd = Home(home.root, through=activated(listener))
        given = (listener.fileno(),)
        with socket.create_connection(("127.0.0.1", number), 60) as waiting:
            waiting.sendall(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            by_systemd.yibu("up", "-d", pass_fds=given)
            assert waiting.recv(15).startswith(b"HTTP/1.1 200")
        home.yibu("down")
        home.write([fake()], host="127.0.0.2", port=number)
        by_systemd.yibu("up", "-d", pass_fds=given)  # of another address: the file decides
        assert home.url() == f"http://127.0.0.2:{number}"
        assert "not asked for by the configuration" in home.yibu("logs", "node").stdout


def test_an_engine_answers_its_node_alone(home: Home) -> None:
    home.write([fake()])
    home.yibu("up", "-d")
    inner = home.model("fake")["replicas"][0]["port"]
    for headers in ({}, {"Authorization": "Bearer guessed"}):
        request = urllib.request.Request(f"http://127.0.0.1:{inner}/v1/models", headers=headers)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=60)
        with refused.value as answer:
            assert answer.code == 401


def activated(listener: socket.socket) -> tuple[str, ...]:
    """A program that does for its successor what systemd does."""
    script = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_PID=str(os.getpid()), "
        "LISTEN_FDS='1', LISTEN_FDNAMES='gateway'); os.execv(sys.argv[2], sys.argv[2:])"
    )
    return (sys.executable, "-c", script, str(listener.fileno()))
