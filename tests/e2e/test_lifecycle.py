"""`yibu up`, `ps`, `logs`, `restart`, `down` as a user types them, on the fake engine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace

import psutil
import pytest

from tests.e2e.home import Home, fake, scrape
from tests.support.polling import until
from yibu.config import ModelConfig
from yibu.config.wire import plain_config
from yibu.errors import UsageError


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home whose one model is up, for tests that only ask it something."""
    home = Home(tmp_path_factory.mktemp("running"))
    home.write([fake("fake", "--log-lines", "2000", "--chatter", "0.1")])
    home.yibu("up", "-d")
    yield home
    home.stop()


def test_up_detached_ps_logs_restart_down(home: Home) -> None:
    home.write([fake("fake", "--log-lines", "3")])
    done = home.yibu("up", "-d")
    assert done.stdout == ""
    assert "ready in" in done.stderr
    status = json.loads(home.yibu("ps", "--json").stdout)
    assert status["version"] == 1
    assert set(status) == {"version", "node", "gateway", "models"}
    (model,) = status["models"]
    assert set(model) == {
        *(
            "name",
            "source",
            "engine",
            "state",
            "cause",
            "cause_key",
            "hint",
            "phase",
            "phases",
            "replicas",
        ),
        "queued",
    }
    (replica,) = model["replicas"]
    assert set(replica) == {
        *("id", "pid", "port", "state", "restarts", "rss_bytes", "gpus", "phase", "phases"),
    }
    assert model["phase"] is None
    assert "start" in model["phases"]  # a command's log is not known
    assert model["state"] == replica["state"] == "ready"
    assert replica["rss_bytes"] > 1_000_000
    assert home.chat()["choices"][0]["message"]["content"]
    assert "line" in home.yibu("logs", "fake").stdout
    home.yibu("restart", "fake")
    assert home.model("fake")["replicas"][0]["pid"] != replica["pid"]
    home.yibu("down", "fake")
    assert home.ps()["models"] == []
    assert not psutil.pid_exists(replica["pid"])
    home.yibu("down")
    assert home.yibu("ps", code=5).stdout == ""


def test_what_a_running_engine_was_planned_is_not_free(home: Home) -> None:
    """It has touched a few megabytes of it; the next model is refused all the same."""
    memory = psutil.virtual_memory()
    most = memory.available * 6 // 10 >> 20  # other programs may take or free some meanwhile
    home.write([fake("first") | {"memory": f"{most}MiB"}, fake("next") | {"memory": f"{most}MiB"}])
    assert home.yibu("plan", "next").stdout.count("fits") == 1
    home.yibu("up", "-d", "first")
    shown = home.yibu("plan", "next", code=3).stdout
    (kept,) = [line for line in shown.splitlines() if "of which kept" in line]
    assert "planned, not used yet: " in kept
    assert kept.endswith("for first-0")
    refused = home.yibu("up", "-d", "next", code=3).stderr
    assert "next does not fit" in refused
    assert re.search(r"planned, not used yet: \d.* for first-0", refused)
    again = home.yibu("plan", "first")  # its own memory is not in its way
    assert "first-0 runs: planned as if it were stopped" in again.stderr
    assert again.stdout.count("fits") == 1
    assert "of which kept" not in again.stdout
    home.yibu("down", "first")
    assert "of which kept" not in home.yibu("plan", "next").stdout
    home.yibu("up", "-d", "next")


def test_test_tries_what_runs(running: Home) -> None:
    checks = json.loads(running.yibu("test", "--json").stdout)["checks"]
    assert [check["check"] for check in checks] == [
        *("ready", "listed", "chat", "chat streamed", "tutorial's body"),
    ]
    assert all(check["passed"] for check in checks)
    assert running.yibu("test", "other", code=2).stdout == ""


def test_run_prints_the_answer_and_reads_a_pipe(running: Home) -> None:
    assert running.yibu("run", "fake", "hello").stdout.strip()
    assert running.yibu("run", "fake", input="from a pipe").stdout.strip()
    running.yibu("run", "fake", input="", code=2)
    refused = running.yibu("run", "nope", "hello", code=2).stderr
    assert "'nope' is not a source" in refused
    assert "These are up: fake." in refused


@pytest.mark.parametrize("verb", ["down", "load", "unload", "restart"])
def test_a_model_that_is_not_up_beside_one_that_is(running: Home, verb: str) -> None:
    refused = running.yibu(verb, "nope", code=5).stderr
    assert "nope is not up; there are: fake" in refused


def test_chat_keeps_history_and_leaves(running: Home) -> None:
    done = running.yibu("chat", "fake", input="hello\n/reset\n/what\nagain\n/exit\nnever\n")
    assert len(done.stdout.split("\n")) == 3
    assert "starts anew" in done.stderr
    assert "/what is no command" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_foreground_ends_with_everything_it_started(home: Home, number: int) -> None:
    home.write([fake("fake", "--chatter", "0.1")])
    up = home.serving()
    assert up.stdout is not None
    assert up.stdout.readline()  # the engine's log
    up.send_signal(number)
    assert up.wait(60) == 0
    up.communicate()
    until(lambda: not home.processes(), "everything gone")


def test_two_commands_at_once_share_a_node(home: Home) -> None:
    home.write([fake("one"), fake("two")])
    commands = [home.start("up", "-d", name) for name in ("one", "two")]
    said = [command.communicate(timeout=60)[1] for command in commands]
    assert [command.returncode for command in commands] == [0, 0], said
    assert {m["name"]: m["state"] for m in home.ps()["models"]} == {"one": "ready", "two": "ready"}


def test_an_interrupt_of_a_detached_start_says_that_it_goes_on(home: Home) -> None:
    home.write([fake("fake", "--ready-after", "600")])
    up = home.start("up", "-d")
    until(lambda: home.client.running() and home.ps()["models"], "it starts")
    until(lambda: home.model("fake")["state"] == "starting", "it starts")
    up.send_signal(signal.SIGINT)
    assert "fake: goes on starting" in up.communicate(timeout=60)[1]
    assert up.returncode == 130
    assert home.model("fake")["state"] == "starting"


def test_a_name_taken_from_a_source_replaces_no_other_model(running: Home) -> None:
    taken = ModelConfig("FAKE", source="modelscope:some/fake", name_derived=True)
    before = running.model("fake")["replicas"]
    for name, said in (("fake", "--name NAME"), ("FAKE", "claims the name")):
        config = plain_config(replace(taken, name=name))
        with pytest.raises(UsageError, match=said):
            running.client.call("up", models=[config])
    assert [model["name"] for model in running.ps()["models"]] == ["fake"]
    assert running.model("fake")["replicas"][0]["pid"] == before[0]["pid"]


def test_a_start_that_fails_says_why(home: Home) -> None:
    home.write([fake("fake", "--fail-start", "the weights are made of cheese"), fake("good")])
    done = home.yibu("up", "-d", code=1)
    assert "the weights are made of cheese" in done.stderr
    assert home.model("fake")["state"] == "failed"
    table, _, cause = home.yibu("ps").stdout.partition("\n\n")
    assert table.splitlines()[1].split()[:3] == ["fake", "failed", "command"]
    tried = home.yibu("test", code=1).stdout
    assert "FAILED fake  ready" in tried
    assert "ok     good  chat" in tried
    assert cause.startswith("fake: the engine exited with code 1")
    assert "→ Read its last lines: yibu logs fake -n 100" in cause
    with pytest.raises(urllib.error.HTTPError) as refused:
        home.chat()
    with refused.value as answer:
        said = json.load(answer)["error"]["message"]
    assert said.startswith("model 'fake' has failed: the engine exited with code 1")
    assert "yibu logs fake" in said
    home.yibu("down")
    done = home.yibu("up", code=1)
    assert "the weights are made of cheese" in done.stderr
    assert not home.processes()


def test_an_engine_that_dies_is_started_again(home: Home) -> None:
    home.write([fake()])
    home.yibu("up", "-d")
    before = home.model("fake")["replicas"][0]
    os.kill(before["pid"], signal.SIGKILL)

    def back() -> bool:
        replica = home.model("fake")["replicas"][0]
        return bool(replica["state"] == "ready" and replica["pid"] != before["pid"])

    until(back, "the engine back")
    assert home.model("fake")["replicas"][0]["restarts"] == before["restarts"] + 1
    assert home.chat()["choices"]


def test_an_engine_that_exits_with_0_unasked_has_crashed(home: Home) -> None:
    home.write([fake("fake", "--crash-on-request", "--exit-zero")])
    home.yibu("up", "-d")

    def crashed(times: int) -> bool:
        found = home.model("fake")
        return bool(found["state"] == "ready" and found["replicas"][0]["restarts"] == times)

    for times in (1, 2):
        with pytest.raises(urllib.error.HTTPError):
            home.chat()
        until(lambda times=times: crashed(times), "the engine back")
    assert "exited with code 0 though nobody asked it to" in home.yibu("logs", "node").stdout
    page = scrape(home)
    labels = {"model": "fake", "replica": "fake-0", "cause": "crash"}
    assert page.value("yibu_replica_failures_total", **labels) == 2


def test_a_killed_node_comes_back_to_its_engines(home: Home) -> None:
    home.write([fake()])
    home.yibu("up", "-d")
    engine = home.model("fake")["replicas"][0]["pid"]
    node = home.ps()["node"]["pid"]
    os.kill(node, signal.SIGKILL)
    until(lambda: home.ps()["node"]["pid"] != node, "another node")
    assert psutil.pid_exists(engine)
    home.yibu("up", "-d")
    assert home.model("fake")["replicas"][0]["pid"] == engine
    assert home.chat()["choices"]


def test_a_taken_port_is_named(running: Home, home: Home) -> None:
    port = running.url().rpartition(":")[2]
    home.write([fake()])
    done = home.yibu("up", "-d", "--port", port, code=2)
    assert port in done.stderr
    assert "in use" in done.stderr
    assert not home.processes()


def test_an_address_that_cannot_change_under_a_running_node(running: Home) -> None:
    done = running.yibu("up", "-d", "--port", "1", code=2)
    assert "yibu down" in done.stderr


def test_a_public_address_needs_a_key(home: Home) -> None:
    home.write([fake()], host="0.0.0.0")
    done = home.yibu("up", "-d", code=2)
    assert "key" in done.stderr
    assert not home.processes()


def test_keys_are_asked_for_and_stay_secret(home: Home) -> None:
    key = "a-key-of-the-user"
    home.write([fake()], api_keys=[key])
    home.yibu("up", "-d")
    with pytest.raises(urllib.error.HTTPError) as refused:
        home.chat(key="another-key")
    with refused.value:
        assert refused.value.code == 401
    assert home.chat(key=key)["choices"]
    assert home.yibu("run", "fake", "hello").stdout.strip()  # the command line needs no key
    for process in home.processes():
        assert not any(key in word for word in process.cmdline())
    logs = "".join(path.read_text() for path in (home.root / "logs").glob("*"))
    assert key not in logs


def test_two_models_and_replicas(home: Home) -> None:
    home.write([fake("one"), fake("two", replicas=2)])
    home.yibu("up", "-d")
    assert len(home.model("two")["replicas"]) == 2
    assert {model["name"] for model in home.ps()["models"]} == {"one", "two"}
    assert home.chat("one")["choices"]
    assert home.chat("two")["choices"]
    home.yibu("up", "-d", "one")  # again: nothing changes


def test_models_that_come_up_at_once_do_not_count_on_the_same_memory(home: Home) -> None:
    share = f"{psutil.virtual_memory().available * 6 // 10 >> 20}MiB"
    home.write([fake(name, "--ready-after", "2", memory=share) for name in ("a", "b")])
    refused = home.yibu("up", "-d", code=3).stderr
    assert re.search(r"planned, not used yet: \d.* for [ab]-0", refused)
    states = {model["name"]: model["state"] for model in home.ps()["models"]}
    assert sorted(states.values()) == ["failed", "ready"]
    assert "is started by force" in home.yibu("up", "-d", "--force").stderr
    assert [home.model(name)["state"] for name in ("a", "b")] == ["ready", "ready"]
    home.yibu("down")
    home.yibu("up", "-d", "--force")  # also while the other starts
    assert [home.model(name)["state"] for name in ("a", "b")] == ["ready", "ready"]


def test_a_relative_command_runs_beside_its_file(home: Home) -> None:
    entry = fake()
    (home.root / "serve.py").symlink_to(entry["options"]["command"][1])
    entry["options"]["command"][1] = "serve.py"
    home.write([entry])
    home.yibu("up", "-d")
    assert home.chat()["choices"]


def test_logs_follow(running: Home) -> None:
    follower = running.start("logs", "fake", "-f", "-n", "0")
    assert follower.stdout is not None
    assert follower.stdout.readline()
    follower.send_signal(signal.SIGINT)
    assert follower.wait(60) == 130
    follower.communicate()
    running.yibu("logs", "nope", code=2)


def test_output_into_a_closed_pipe_is_quiet(running: Home) -> None:
    logs = subprocess.Popen(
        running.command("logs", "fake", "-n", "2000"),
        env=running.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert logs.stdout is not None
    assert logs.stderr is not None
    logs.stdout.readline()
    logs.stdout.close()
    assert b"Traceback" not in logs.stderr.read()
    logs.wait(60)
    logs.stderr.close()


SLOW = ("--tokens", "100", "--slow-tokens", "0.02")
"""A stream of two seconds, which no stop below may cut."""


CLIENT = """
import sys, urllib.request
request = urllib.request.Request(sys.argv[1], sys.argv[2].encode(), {"Content-Type": "application/json"})
with urllib.request.urlopen(request) as answer:
    for line in answer:
        sys.stdout.buffer.write(line)
        sys.stdout.flush()
"""


def stream_of(home: Home, name: str = "fake") -> subprocess.Popen[bytes]:
    """A client in the middle of a stream; its output is the stream."""
    body = {"model": name, "messages": [{"role": "user", "content": "hello"}], "stream": True}
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, f"{home.url()}/v1/chat/completions", json.dumps(body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # a stream that is cut ends it with a traceback
        bufsize=0,  # what a buffer has read, communicate() would not give
    )
    assert client.stdout is not None
    assert client.stdout.readline().startswith(b"data:")
    return client


def rest_of(client: subprocess.Popen[bytes]) -> list[bytes]:
    out, _ = client.communicate(timeout=60)
    return [line for line in out.splitlines() if line.startswith(b"data:")]


@pytest.mark.parametrize("words", [("down",), ("down", "fake"), ("restart", "fake")], ids=" ".join)
def test_a_stream_in_flight_is_finished_first(home: Home, words: tuple[str, ...]) -> None:
    home.write([fake("fake", *SLOW)])
    home.yibu("up", "-d")
    client = stream_of(home)
    home.yibu(*words)
    events = rest_of(client)
    assert len(events) == 101
    assert events[-1] == b"data: [DONE]"


def test_ctrl_c_finishes_a_stream_and_a_second_one_cuts_it(home: Home) -> None:
    home.write([fake("fake", "--tokens", "100000", "--slow-tokens", "0.02")], drain_timeout=60)
    up = home.serving()
    client = stream_of(home)
    up.send_signal(signal.SIGINT)
    until(lambda: refused(home), "new requests refused")
    assert client.poll() is None, "the stream goes on"
    up.send_signal(signal.SIGINT)
    assert up.wait(60) == 0
    assert "cut off" in up.communicate()[1]
    assert b"data: [DONE]" not in rest_of(client)
    assert not home.processes()


def refused(home: Home) -> bool:
    try:
        home.chat(max_tokens=1)
    except urllib.error.HTTPError as error:
        with error:
            return error.code == 503
    return False
