"""What an operations engineer meets when a node dies, a file has changed, or nothing starts."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.e2e.home import Home, fake
from tests.support.polling import until
from yibu.config import file as config_file
from yibu.errors import NotRunningError, UsageError
from yibu.management.changes import changes_of_up
from yibu.management.context import Context
from yibu.node.lock import ProcessId
from yibu.node.machine import processes


def node_pid(home: Home) -> int:
    return int(home.ps()["node"]["pid"])


def runs(pid: int) -> bool:
    """Not even as a zombie, which a container's first process may leave."""
    found = processes.process(pid)
    return found is not None and not found.zombie


def engine_pid(home: Home) -> int:
    return int(home.model("fake")["replicas"][0]["pid"])


def test_a_failed_start_leaves_no_empty_node(home: Home) -> None:
    home.write([fake("fake", "--fail-start", "no weights here")])
    assert "no weights here" in home.yibu("up", "-d", code=1).stderr
    assert not home.processes()
    assert "no weights here" in home.yibu("logs", "fake").stdout
    home.write([{"name": "fake", "source": "./nothing.gguf"}])
    home.yibu("up", "-d", code=1)
    home.yibu("ps", code=5)


def test_the_foreground_notices_that_its_node_died(home: Home) -> None:
    home.write([fake()])
    up = home.serving()
    engine = engine_pid(home)
    until(lambda: f'"pid": {engine}' in (home.root / "state/node.json").read_text(), "state saved")
    home.kill_node()
    assert up.wait(60) == 1
    said = up.communicate()[1]
    assert "The node ended while this command watched it" in said
    assert runs(engine)  # the next node takes it over
    home.yibu("up", "-d")
    assert engine_pid(home) == engine


def test_the_foreground_ends_well_when_another_command_stops_its_node(home: Home) -> None:
    home.write([fake()])
    up = home.serving()
    home.yibu("down")
    assert up.wait(60) == 0
    assert "The node was told to stop." in up.communicate()[1]


def test_a_command_does_not_stop_the_node_that_came_after_its_own(home: Home) -> None:
    home.write([fake()])
    up = home.serving()
    up.send_signal(signal.SIGSTOP)
    home.yibu("down")
    home.yibu("up", "-d")
    after = node_pid(home)
    up.send_signal(signal.SIGCONT)
    up.send_signal(signal.SIGTERM)
    up.wait(60)
    up.communicate()
    assert node_pid(home) == after
    assert home.model("fake")["state"] == "ready"
    with pytest.raises(NotRunningError, match="another node"):
        home.client.call("shutdown", instance="an-earlier-one")
    assert home.client.running()


@pytest.mark.parametrize(
    "words",
    ["ps,top --once,diff,apply --yes,up -d", "down,rollback,restart fake,node upgrade"],
)
def test_a_node_that_was_stopped_by_a_signal_is_no_node_that_is_gone(
    words: str, home: Home
) -> None:
    """No command takes it for one that does not run, and begins another or ends its engines."""
    home.write([fake()])
    home.yibu("up", "-d")
    node = home.ps()["node"]["pid"]
    os.kill(node, signal.SIGSTOP)
    try:
        for each in words.split(","):
            refused = home.yibu(*each.split(), code=5, timeout=60)
            assert f"kill -CONT {node}" in refused.stderr
        found = json.loads(home.yibu("doctor", "--json", code=None).stdout)["findings"]
        assert [each["level"] for each in found if each["subject"] == "node"] == ["failure"]
        assert not [each for each in found if each["subject"] in ("engines left", "port 8000")]
    finally:
        os.kill(node, signal.SIGCONT)
    assert home.chat()["choices"]


def test_a_pid_that_was_given_anew_is_not_the_node() -> None:
    me = ProcessId.of(os.getpid())
    assert me.alive()
    assert not ProcessId(os.getpid(), "1").alive()
    assert not ProcessId.of(2**22 + 1).alive()


def test_down_ends_what_a_killed_node_left(home: Home) -> None:
    home.write([fake("fake", "--fork-child", str(home.root / "child")), fake("other")])
    home.yibu("up", "-d")
    engine, other = engine_pid(home), home.model("other")["replicas"][0]["pid"]
    home.kill_node()
    until(lambda: not home.client.running(), "the node gone")
    findings = json.loads(home.yibu("doctor", "--json", code=None).stdout)["findings"]
    (left,) = [finding for finding in findings if finding["subject"] == "engines left"]
    assert str(engine) in left["found"]
    assert "yibu down" in left["advice"]
    assert "had left" in home.yibu("down", "fake").stderr
    assert not runs(engine)
    assert runs(other)
    home.yibu("down")
    assert not home.processes()
    home.yibu("down", code=5)


def test_a_model_that_is_changed_or_removed_while_the_node_runs(home: Home) -> None:
    home.write([fake(), fake("other")])
    home.yibu("up", "-d")
    before = engine_pid(home)
    home.write([fake("fake", env={"A": "1"}), fake("other")])
    home.yibu("up", "-d")
    assert engine_pid(home) != before
    path = home.write([fake("fake", env={"A": "1"})])
    refused = home.yibu("up", "-d", code=2).stderr
    assert f"{path} no longer has other, and the node still serves it" in refused
    assert f"yibu apply -f {path}" in refused
    home.yibu("up", "-d", "fake")  # the one that was named is as it should be
    context = Context(home.env, home.client._paths, home.root)
    config, told = config_file.load(path, env={}), home.client.call("settings")
    assert not changes_of_up(config, told, context, whole_file=False).changes
    with pytest.raises(UsageError, match="no longer has other"):
        changes_of_up(config, told, context, whole_file=True)
