"""The console's API over a real node with fake engines."""

from __future__ import annotations

import http.client
import json
import stat
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.support.polling import until

from .home import Home, fake

API = "/console/api"


@dataclass
class Page:
    """What the console's page would send, over one node."""

    home: Home
    key: str | None = None

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON."""
        with self.request(method, path, body) as answer:
            data = answer.read()
            return answer.status, json.loads(data) if data else None

    @contextmanager
    def request(
        self, method: str, path: str, body: Any = None
    ) -> Iterator[http.client.HTTPResponse]:
        address = urllib.parse.urlsplit(self.home.url())
        assert address.hostname
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
        headers = {"content-type": "application/json"}
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        data = None if body is None else json.dumps(body)
        try:
            connection.request(method, API + path, data, headers)
            yield connection.getresponse()
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
    home.write([fake(name="chat", aliases=["gpt"]), fake(name="later", keep="manual")])
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
    assert chat["names"] == ["gpt"]
    assert "chat" in chat["capabilities"]
    assert chat["file"] == str(home.root / "yibu.yaml")
    assert (chat["keep"], later["keep"]) == ("always", "manual")
    (replica,) = chat["replicas"]
    assert replica["pid"] == home.model("chat")["replicas"][0]["pid"]
    assert replica["memory_bytes"] > 0
    assert len(chat["recent"]["requests_per_second"]) == 30

    job = page.done(*page.ask("POST", "/models/chat/restart"))
    assert (job["verb"], job["models"], job["error"]) == ("restart", ["chat"], None)
    assert page.model()["replicas"][0]["pid"] != replica["pid"]
    assert not page.done(*page.ask("POST", "/models/gpt/scale", {"replicas": 2}))["error"]
    assert len(page.model()["replicas"]) == 2
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
    assert page.model()["state"] == "ready"
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
    broken = page.model("broken")
    assert broken["state"] == "failed"
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
        open_now = []
        for _ in range(32):
            cut = page.request("GET", "/events")
            answer = cut.__enter__()
            assert answer.status == 200
            open_now.append(cut)
        status, refused = page.ask("GET", "/events")
        assert (status, refused["error"]["code"]) == (503, "too_many_streams")
        for cut in open_now:
            cut.__exit__(None, None, None)
        until(lambda: page_opens(page), "streams that were cut are forgotten")
    home.yibu("down")


def page_opens(page: Page) -> bool:
    with page.request("GET", "/events") as answer:
        return answer.status == 200 and next(events(answer))[0] == "overview"


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
