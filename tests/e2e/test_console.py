"""The console's API over a real node with fake engines."""

from __future__ import annotations

import http.client
import json
import select
import socket
import stat
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes.vllm import make_model
from tests.support.polling import until
from yibu.node import logs

from .home import Home, fake

API = "/console/api"


@dataclass
class Page:
    """What the console's page would send, over one node."""

    home: Home
    key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON."""
        with self.request(method, path, body) as answer:
            data = answer.read()
            return answer.status, json.loads(data) if data else None

    @contextmanager
    def request(
        self, method: str, path: str, body: Any = None, *, wait: bool = True
    ) -> Iterator[Any]:
        """The answer, or the connection while it is on its way."""
        address = urllib.parse.urlsplit(self.home.url())
        assert address.hostname
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
        headers = {"content-type": "application/json", **self.headers}
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        data = None if body is None else json.dumps(body)
        try:
            connection.request(method, API + path, data, headers)
            yield connection.getresponse() if wait else connection
        finally:
            connection.close()

    def told(self, path: str) -> Any:
        status, answer = self.ask("GET", path)
        assert status == 200, answer
        return answer

    def done(self, status: int, job: Any) -> Any:
        """The job when it has ended."""
        assert status == 202, job
        return until(lambda: self._ended(job["id"]), f"{job} ends")

    def _ended(self, number: str) -> Any:
        job = self.told(f"/jobs/{number}")
        return job if job["ended"] else None

    def model(self, name: str = "chat") -> Any:
        models = self.told("/overview")["models"]
        return next((model for model in models if model["name"] == name), None)


def events(answer: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
    """Events of a stream, as they come."""
    name = ""
    while line := answer.readline().decode().rstrip("\n"):
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, json.loads(line[6:])
            assert answer.readline() == b"\n"


def test_the_overview_shows_what_runs_and_acts_on_it(home: Home) -> None:
    home.write([fake(name="chat", aliases=["org/gpt"]), fake(name="later", keep="manual")])
    home.yibu("up", "-d")
    page = Page(home)
    overview = page.told("/overview")
    machine = overview["machine"]
    assert 0 < machine["memory_used_bytes"] < machine["memory_bytes"]
    assert {holds for disk in machine["disks"] for holds in disk["holds"]} == {
        "store", "environments", "logs", "state"}  # fmt: skip
    assert all(0 <= disk["free_bytes"] <= disk["bytes"] for disk in machine["disks"])
    assert [one["model"] for one in machine["memory"]] == ["chat"]
    chat, later = overview["models"]
    assert (chat["state"], later["state"]) == ("ready", "unloaded")
    assert chat["names"] == ["org/gpt"]
    assert "chat" in chat["capabilities"]
    assert chat["file"] == str(home.root / "yibu.yaml")
    assert (chat["keep"], later["keep"]) == ("always", "manual")
    (replica,) = chat["replicas"]
    assert replica["pid"] == home.model("chat")["replicas"][0]["pid"]
    assert replica["memory_bytes"] > 0
    assert len(chat["recent"]["requests_per_second"]) == 30

    job = page.done(*page.ask("POST", "/models/chat/restart"))
    assert (job["verb"], job["models"], job["error"]) == ("restart", ["chat"], None)
    until(lambda: page.model()["replicas"][0]["pid"] != replica["pid"])
    assert not page.done(*page.ask("POST", "/models/org%2Fgpt/scale", {"replicas": 2}))["error"]
    until(lambda: len(page.model()["replicas"]) == 2)
    assert not page.done(*page.ask("POST", "/models/chat/keep", {"keep": "idle 15m"}))["error"]
    until(lambda: page.model()["keep"] == "idle")
    assert page.model()["idle_seconds"] == 900
    assert not page.done(*page.ask("POST", "/models/chat/unload"))["error"]
    until(lambda: page.model()["state"] == "unloaded")
    assert not page.done(*page.ask("POST", "/models/chat/start"))["error"]
    until(lambda: page.model()["state"] == "ready")
    assert not page.done(*page.ask("POST", "/models/chat/stop"))["error"]
    until(lambda: page.model() is None)
    assert "chat" in [model["name"] for model in page.told("/overview")["stopped"]]
    assert not page.done(*page.ask("POST", "/models/chat/start"))["error"]
    assert until(page.model)["state"] == "ready"
    assert len(page.told("/jobs")["jobs"]) == 7

    for path, body, status in (
        ("/models/nothing/stop", None, 404),
        ("/models/nothing/start", None, 404),
        ("/models/chat/explode", None, 404),
        ("/models/chat/scale", None, 400),
        ("/models/chat/scale", {"replicas": 0}, 400),
        ("/models/chat/scale", {"replicas": "many"}, 400),
        ("/models/chat/keep", {"keep": "warm"}, 400),
    ):
        found, answer = page.ask("POST", path, body)
        assert found == status, (path, answer)
        assert answer["error"]["message"]
    assert page.ask("GET", "/jobs/j99")[0] == 404
    assert page.ask("GET", "/metrics?range=year")[0] == 400


def test_a_model_that_fails_says_why_and_what_to_try(home: Home) -> None:
    home.write([fake("chat"), fake("broken", "--fail-start", "boom")])
    page = Page(home)
    home.yibu("up", "-d", code=None)
    job = page.done(*page.ask("POST", "/models/broken/start"))
    assert job["error"]["message"]
    assert job["error"]["cause"]
    broken = until(lambda: (found := page.model("broken"))["state"] == "failed" and found)
    assert broken["cause"]


def test_events_tell_of_everything_and_end_with_the_node(home: Home) -> None:
    home.write([fake(name="chat")])
    home.yibu("up", "-d")
    page = Page(home)
    with page.request("GET", "/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        stream = events(answer)
        name, overview = next(stream)
        assert (name, overview["models"][0]["name"]) == ("overview", "chat")
        status, job = page.ask("POST", "/models/chat/restart")
        assert status == 202
        seen: dict[str, list[Any]] = {}
        for name, data in stream:
            seen.setdefault(name, []).append(data)
            if name == "job" and data["ended"]:
                break
        assert data["id"] == job["id"]
        states = [event["state"] for event in seen["state"] if event["model"] == "chat"]
        assert "starting" in states
        assert "ready" in states
        home.yibu("down")
        assert [data for name, data in stream if name == "end"] == [{"reason": "restarting"}]


def test_clients_that_are_cut_off_leave_nothing_behind(home: Home) -> None:
    home.write([fake(name="chat")])
    home.yibu("up", "-d")
    page = Page(home)
    for _ in range(3):
        # Those of the round before are forgotten one after another.
        open_now = [
            until(lambda: opened(page), "streams that were cut are forgotten") for _ in range(32)
        ]
        status, refused = page.ask("GET", "/events")
        assert (status, refused["error"]["code"]) == (503, "too_many_streams")
        for cut in open_now:
            cut.__exit__(None, None, None)
    home.yibu("down")


def opened(page: Page) -> AbstractContextManager[Any] | None:
    """A stream of events that has begun; None while there are too many."""
    stream = page.request("GET", "/events")
    answer = stream.__enter__()
    if answer.status == 200 and next(events(answer))[0] == "overview":
        return stream
    stream.__exit__(None, None, None)
    return None


def test_the_node_keeps_its_own_numbers_over_a_restart(home: Home) -> None:
    home.write([fake("chat")])
    home.yibu("up", "-d")
    page = Page(home)

    def ready() -> list[float]:
        hour = page.told("/metrics?range=hour")
        assert (hour["step"], hour["points"]) == (10, 360)
        series = hour["models"].get("chat", {}).get("ready_replicas", [])
        return [value for value in series if value is not None]

    until(lambda: 1.0 in ready(), "a point of the hour")
    month = page.told("/metrics?range=month")
    assert len(month["node"]["memory_used_bytes"]) == 360
    assert month["node"]["memory_used_bytes"][-1] > 0
    home.yibu("down")
    file = home.root / "state" / "metrics.db"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    home.yibu("up", "-d")
    assert 1.0 in until(ready)


def test_a_model_of_no_file_that_was_stopped_can_be_started_after_a_restart(home: Home) -> None:
    home.write([fake("chat")])
    home.yibu("up", "-d")
    other = home.root / "other.yaml"
    other.write_text(
        json.dumps({"gateway": {"port": 0}, "models": [fake("guest", "--tokens", "7")]})
    )
    home.yibu("up", "-d", "-f", str(other), "guest")
    page = Page(home)
    for name in "chat", "guest":
        assert not page.done(*page.ask("POST", f"/models/{name}/stop"))["error"]

    def stopped() -> dict[str, bool]:
        return {one["name"]: one["in_file"] for one in page.told("/overview")["stopped"]}

    assert stopped() == {"chat": True, "guest": False}
    home.yibu("down")
    home.yibu("up", "-d", "chat")
    assert stopped() == {"guest": False}
    assert stat.S_IMODE((home.root / "state/console.db").stat().st_mode) == 0o600
    assert not page.done(*page.ask("POST", "/models/guest/start"))["error"]
    assert until(lambda: page.model("guest"))["file"] == str(other)
    assert stopped() == {}
    assert not page.done(*page.ask("POST", "/models/guest/stop"))["error"]
    assert page.ask("POST", "/models/nothing/forget")[0] == 404
    assert not page.done(*page.ask("POST", "/models/guest/forget"))["error"]
    assert stopped() == {}
    home.yibu("node", "upgrade")
    assert stopped() == {}


def test_nobody_is_signed_out_by_an_upgrade_a_crash_or_a_restart(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    home.write([fake("chat")], port=port)
    home.yibu("up", "-d")
    page = Page(home)
    _, ops = page.ask("POST", "/keys", {"name": "ops", "admin": True})
    with page.request("POST", "/session", {"key": ops["key"]}) as answer:
        cookie, csrf = answer.headers["set-cookie"].split(";")[0], json.loads(answer.read())["csrf"]
    page.headers = {"cookie": cookie, "x-csrf-token": csrf}

    def still_signed_in() -> None:
        assert page.told("/session")["signed_in"]
        body = {"text": "models: []\n"}
        assert page.ask("POST", "/config/check", body)[0] == 200

    still_signed_in()
    home.yibu("node", "upgrade")
    still_signed_in()
    home.kill_node()
    home.yibu("up", "-d")
    still_signed_in()
    home.yibu("down")
    home.yibu("up", "-d")
    still_signed_in()
    assert page.ask("DELETE", "/session")[0] == 204
    home.yibu("node", "upgrade")
    assert not page.told("/session")["signed_in"]


def test_a_plan_says_what_fits_and_what_the_file_would_be(home: Home) -> None:
    file = home.root / "yibu.yaml"
    commented = "# ours\ngateway: {port: 0}\nmodels:\n  # the first\n"
    entry = json.dumps(fake("chat"))
    file.write_text(f"{commented}  - {entry}\n# the end\n")
    home.yibu("up", "-d")
    page = Page(home)
    model = make_model(home.root / "Qwen3-tiny")
    wanted = {"model": str(model), "name": "tiny", "engine": "vllm", "machine": "rtx3070-8g",
              "flags": ["--disable-log-requests"], "settings": {"keep": "manual"}}  # fmt: skip
    status, plan = page.ask("POST", "/plan", wanted)
    assert status == 200, plan
    assert plan["fits"]
    (one,) = plan["models"]
    assert (one["model"], one["verdict"]) == ("tiny", "fits")
    assert {"label", "value", "note"} == set(one["rows"][0])
    assert plan["machine"]
    assert plan["yaml"].startswith("models:\n- name: tiny\n")
    assert "keep: manual" in plan["yaml"]
    text = plan["file"]["text"]
    assert text.startswith(commented)
    assert text.endswith("# the end\n")
    assert all(line[0] in "+-@ " for line in plan["file"]["diff"].splitlines())
    assert file.read_text() != text  # nothing is written
    assert page.told("/config")["sha256"] == plan["file"]["sha256"]

    status, plan = page.ask("POST", "/plan", {"yaml": "models:\n- " + json.dumps(fake("other"))})
    assert (status, plan["models"][0]["model"]) == (200, "other")

    script = (
        f"#!/bin/bash\nexport HF_TOKEN=hf_not_to_be_shown\nnohup vllm serve {model} --port $P &\n"
    )
    status, plan = page.ask(
        "POST", "/plan", {"script": script, "set": {"P": "8100"}, "machine": "rtx3070-8g"}
    )
    assert status == 200, plan
    assert str(model) in plan["yaml"]
    assert "hf_not_to_be_shown" not in json.dumps(plan)
    assert "HF_TOKEN" in plan["secrets"]

    for body, found in (
        ({}, 400),
        ({"model": "a", "yaml": "b"}, 400),
        ({"model": "a", "machine": "../secret.yaml"}, 400),
        ({"model": str(home.root / "nothing")}, 422),
        ({"script": "echo hello"}, 422),
        ({"yaml": "models: ["}, 422),
    ):
        status, answer = page.ask("POST", "/plan", body)
        assert status == found, (body, answer)
        assert answer["error"]["message"]
        assert answer["error"]["code"] or status == 400
    models = page.told("/catalogue?q=smollm2")["models"]
    assert "smollm2" in (models[0]["name"], *models[0]["aliases"])
    assert set(models[0]["sources"]) == {"modelscope", "hf", "package"}
    assert page.told("/catalogue?q=no-such-model")["models"] == []


def test_the_file_is_checked_compared_applied_and_taken_back(home: Home) -> None:
    file = home.write([fake("chat")])
    home.yibu("up", "-d")
    page = Page(home)
    config = page.told("/config")
    assert (config["path"], config["text"]) == (str(file), file.read_text())
    assert (config["previous"], config["history"]) == (None, [])
    assert page.ask("POST", "/config/rollback")[0] == 422

    faulty = "gateway: {port: 0}\nmodels:\n  - name: chat\n    engin: command\n"
    for path in ("/config/check", "/config/diff"):
        _, told = page.ask("POST", path, {"text": faulty})
        assert told["ok"] is False
        assert [fault["line"] for fault in told["faults"]] == [4]
        assert "engine" in told["faults"][0]["message"]
    _, told = page.ask("POST", "/config/check", {"text": "models: [\n"})
    assert told["faults"][0]["line"]
    assert page.ask("POST", "/config/check", {"text": config["text"]})[1]["ok"]

    models = [fake("chat", "--tokens", "7"), fake("second")]
    text = json.dumps({"gateway": {"port": 0, "max_connections": 99}, "models": models})
    _, told = page.ask("POST", "/config/diff", {"text": text})
    assert (told["added"], list(told["changed"]), told["removed"]) == (["second"], ["chat"], [])
    assert told["settings"] == {"max_connections": {"from": "4096", "to": "99"}}
    assert told["text"].startswith("--- yibu.yaml")
    status, told = page.ask("POST", "/config/apply", {"text": text, "sha256": "0" * 64})
    assert (status, told["error"]["code"]) == (409, "changed_meanwhile")
    broken = {"text": faulty, "sha256": config["sha256"]}
    assert page.ask("POST", "/config/apply", broken)[0] == 422
    assert file.read_text() == config["text"]

    change = {"text": text, "sha256": config["sha256"]}
    job = page.done(*page.ask("POST", "/config/apply", change))
    assert (job["error"], sorted(job["models"])) == (None, ["chat", "second"])
    assert file.read_text() == text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    until(lambda: len(page.told("/overview")["models"]) == 2)
    before = page.told("/config")
    assert before["previous"]["models"] == ["chat"]
    assert before["history"] == [before["previous"]]
    assert not page.done(*page.ask("POST", "/config/rollback"))["error"]
    until(lambda: [m["name"] for m in page.told("/overview")["models"]] == ["chat"])
    assert [model["name"] for model in page.told("/overview")["stopped"]] == ["second"]
    assert page.ask("POST", "/config/rollback", {"until": 1})[0] == 422
    assert page.ask("POST", "/config/rollback", {"until": "yesterday"})[0] == 400


def test_logs_are_searched_and_followed(home: Home) -> None:
    home.write([fake("chat", "--log-lines", "50"), fake("other")])
    home.yibu("up", "-d")
    page = Page(home)
    names = {log["name"] for log in page.told("/logs")["logs"]}
    assert {"node", "chat-0", "other-0"} <= names
    lines = until(lambda: page.told("/logs/lines?log=chat&lines=30")["lines"])
    assert len(lines) <= 30
    assert {line["log"] for line in lines} == {"chat-0"}
    everything = page.told("/logs/lines?lines=5000")["lines"]
    assert {"node", "chat-0"} <= {line["log"] for line in everything}
    word = lines[-1]["text"][:12]
    found = page.told(f"/logs/lines?log=chat-0&search={urllib.parse.quote(word.upper())}")["lines"]
    assert found
    assert all(word.lower() in line["text"].lower() for line in found)
    assert page.told("/logs/lines?log=node&level=error")["lines"] == []
    for query, status in (
        ("log=nothing", 404),
        ("log=../state/node", 404),
        ("lines=0", 400),
        ("lines=99999", 400),
        ("level=loud", 422),
        ("since=yesterday", 422),
    ):
        assert page.ask("GET", f"/logs/lines?{query}")[0] == status, query
    log = home.root / "logs" / "chat-0.log"
    with page.request("GET", "/logs/follow?log=chat&lines=5") as answer:
        stream = events(answer)
        first = [next(stream) for _ in range(5)]
        assert {name for name, _ in first} == {"line"}
        with log.open("a") as written:
            written.write("half a li")
            written.flush()
            written.write("ne\nERROR and one more\n")
        texts = []
        for _, data in stream:
            texts.append(data["text"])
            if data["level"] == "error":
                break
        assert "half a line" in texts


def test_rotated_logs_are_counted_searched_and_followed(home: Home) -> None:
    home.write([fake("chat")])
    home.yibu("up", "-d")
    page = Page(home)
    log = home.root / "logs" / "chat-0.log"
    with log.open("a") as live:
        live.write("an old needle\n" + "hay\n" * 1000)
    assert logs.rotate_if_large(log, logs.LogRotation(max_bytes=5000))
    with log.open("a") as live:
        live.write("WARNING a new needle\n")
    (told,) = (one for one in page.told("/logs")["logs"] if one["name"] == "chat-0")
    assert told["files"] == 2
    assert told["bytes"] == log.stat().st_size + log.with_name("chat-0.log.1").stat().st_size

    def needles(path: str) -> list[str]:
        return [one["text"] for one in page.told(path)["lines"]]

    assert needles("/logs/lines?log=chat-0&search=new+needle") == ["WARNING a new needle"]
    with page.request("GET", "/logs/follow?log=chat-0&search=needle&lines=5") as answer:
        stream = events(answer)
        both = [next(stream)[1]["text"] for _ in range(2)]
        assert both == ["an old needle", "WARNING a new needle"]
        with log.open("a") as live:
            live.write("the last needle before it\n" + "hay\n" * 1000)
        assert logs.rotate_if_large(log, logs.LogRotation(max_bytes=5000))
        with log.open("a") as live:
            live.write("the first needle after it\n")
        texts = [next(stream)[1]["text"] for _ in range(2)]
    assert texts == ["the last needle before it", "the first needle after it"]


def test_keys_are_made_limited_replaced_and_removed(home: Home) -> None:
    home.write([fake("chat")])
    home.yibu("up", "-d")
    page = Page(home)
    status, ops = page.ask("POST", "/keys", {"name": "ops", "admin": True})
    assert status == 201
    assert page.ask("GET", "/keys")[0] == 401  # with the first key the gateway is closed
    page.key = ops["key"]
    body = {"name": "app", "models": ["chat"], "rpm": 60, "budget": "5M/month", "expires": "30d"}
    status, app = page.ask("POST", "/keys", body)
    assert (status, app["rpm"], app["models"], app["admin"]) == (201, 60, ["chat"], False)
    assert app["expires"]
    assert app["budget"] == "5000000/month"
    shown = page.told("/keys")["keys"]
    assert {key["name"] for key in shown} == {"app", "ops"}
    assert app["key"] not in json.dumps(shown)
    status, changed = page.ask("PATCH", "/keys/app", {"rpm": None, "concurrency": 2})
    assert (status, changed["rpm"], changed["concurrency"], changed["models"]) == (
        200, None, 2, ["chat"])  # fmt: skip
    assert Page(home, app["key"]).ask("GET", "/keys")[0] == 403
    status, rotated = page.ask("POST", "/keys/app/rotate", {"grace": "1h"})
    assert status == 200
    assert rotated["key"] != app["key"]
    for method, path, sent, found in (
        ("POST", "/keys", {"name": "app"}, 422),
        ("POST", "/keys", {"name": "no good"}, 422),
        ("POST", "/keys", {"name": "x", "rpm": 0}, 400),
        ("POST", "/keys", {"name": "x", "budget": "much"}, 422),
        ("PATCH", "/keys/nobody", {"rpm": 1}, 404),
        ("POST", "/keys/nobody/rotate", {}, 404),
        ("DELETE", "/keys/nobody", None, 404),
        ("DELETE", "/keys/ops", None, 409),
        ("PATCH", "/keys/ops", {"admin": False}, 409),
    ):
        status, told = page.ask(method, path, sent)
        assert status == found, (method, path, told)
    assert page.ask("DELETE", "/keys/app")[0] == 204
    usage = page.told("/usage?by=key&since=1d")
    assert (usage["object"], usage["by"]) == ("list", "key")
    assert page.ask("GET", "/usage?by=colour")[0] == 400


def test_a_hub_that_does_not_answer_holds_nothing_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hub = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = {"MODELSCOPE_ENDPOINT": hub, "MODELSCOPE_DOMAIN": hub}
        with Home(tmp_path, settings=settings) as home:
            home.write([fake("chat")])
            home.yibu("up", "-d")
            page = Page(home)
            wanted = {"model": "modelscope:org/never"}
            with ExitStack() as stack:
                asked = [
                    stack.enter_context(page.request("POST", "/plan", wanted, wait=False))
                    for _ in range(3)
                ]
                # Whichever comes last is refused at once, while the others wait for the hub.
                (answered, *_), _, _ = select.select([one.sock for one in asked], [], [], 60)
                refused = next(one for one in asked if one.sock is answered).getresponse()
                assert refused.status == 503
                assert json.load(refused)["error"]["code"] == "too_many_plans"
                assert page.model()["state"] == "ready"
                assert page.told("/logs/lines?log=node")["lines"]
            home.yibu("down")
