"""`yibu diff`, `apply`, `rollback`, and models on demand: a real node under requests."""

from __future__ import annotations

import json
import os
import signal
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.support.polling import until

from .home import Home, fake


def ask(home: Home, url: str, model: str, **fields: object) -> tuple[int, str]:
    """One chat request: its status and its text."""
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], **fields}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@contextmanager
def clients(home: Home, model: str, number: int = 4) -> Iterator[Counter[int]]:
    """Clients that ask over and over until the block ends; the statuses of their answers."""
    url, statuses, over = home.url(), Counter[int](), threading.Event()

    def client() -> None:
        while not over.is_set():
            statuses[ask(home, url, model)[0]] += 1

    threads = [threading.Thread(target=client) for _ in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_a_changed_file_is_applied_without_a_dropped_request(home: Home) -> None:
    home.write([fake("a"), fake("b")])
    home.yibu("up", "-d")
    before = home.model("b")["replicas"]
    assert "Nothing would change" in home.yibu("diff").stderr
    home.write([fake("a", "--tokens", "2"), fake("b"), fake("c")])
    told = home.yibu("diff", "--exit-code", code=1).stdout
    assert "~ a" in told
    assert "+ c" in told
    assert json.loads(home.yibu("diff", "--json").stdout)["unchanged"] == ["b"]
    assert "--yes" in home.yibu("apply", code=2).stderr
    with clients(home, "a") as statuses:
        until(lambda: statuses[200] > 20)
        home.yibu("apply", "--yes")
        served = statuses[200]
        until(lambda: statuses[200] > served + 20)
    assert set(statuses) == {200}
    assert [replica["id"] for replica in home.model("a")["replicas"]] == ["a-0.2"]
    assert home.model("b")["replicas"][0]["pid"] == before[0]["pid"]
    assert ask(home, home.url(), "c")[0] == 200
    assert "Nothing is to be changed" in home.yibu("apply", "--yes").stderr

    home.yibu("rollback", "--yes")
    assert [model["name"] for model in home.ps()["models"]] == ["a", "b"]
    assert [replica["id"] for replica in home.model("a")["replicas"]] == ["a-0.3"]
    assert "nothing to go back to" in home.yibu("rollback", "--yes", code=2).stderr.lower()


def test_up_changes_a_model_as_apply_does(home: Home) -> None:
    home.write([fake("a")])
    home.yibu("up", "-d")
    home.write([fake("a", "--tokens", "2")])
    with clients(home, "a") as statuses:
        until(lambda: statuses[200] > 20)
        home.yibu("up", "-d")
        served = statuses[200]
        until(lambda: statuses[200] > served + 20)
        home.write([fake("a", "--fail-start", "CUDA out of memory")])
        assert "CUDA out of memory" in home.yibu("up", "-d", code=1).stderr
        served = statuses[200]
        until(lambda: statuses[200] > served + 20)
    assert set(statuses) == {200}
    assert [replica["id"] for replica in home.model("a")["replicas"]] == ["a-0.2"]


def test_a_change_that_fails_leaves_the_old_one_serving(home: Home) -> None:
    home.write([fake("a")])
    home.yibu("up", "-d")
    home.write([fake("a", "--fail-start", "CUDA out of memory")])
    with clients(home, "a") as statuses:
        until(lambda: statuses[200] > 20)
        failed = home.yibu("apply", "--yes", code=1)
        served = statuses[200]
        until(lambda: statuses[200] > served + 20)
    assert "CUDA out of memory" in failed.stderr
    assert set(statuses) == {200}
    assert [replica["id"] for replica in home.model("a")["replicas"]] == ["a-0"]
    assert home.model("a")["state"] == "ready"


def most_memory() -> int:
    """Bytes of which two models do not fit here at once."""
    return int(psutil.virtual_memory().available * 0.6)


def test_where_two_do_not_fit_requests_wait_for_the_change(home: Home) -> None:
    memory = most_memory()
    home.write([fake("a", memory=memory)])
    home.yibu("up", "-d")
    home.write([fake("a", "--tokens", "2", "--ready-after", "1", memory=memory)])
    with clients(home, "a") as statuses:
        until(lambda: statuses[200] > 20)
        home.yibu("apply", "--yes")
        served = statuses[200]
        until(lambda: statuses[200] > served + 20)
    assert set(statuses) == {200}
    assert [replica["id"] for replica in home.model("a")["replicas"]] == ["a-0.2"]


@pytest.mark.parametrize("fault", ["fails", "hangs"])
def test_where_two_do_not_fit_the_old_one_comes_back_for_one_that_fails(
    home: Home, fault: str
) -> None:
    memory = most_memory()
    home.write([fake("a", memory=memory)])
    home.yibu("up", "-d")
    before = home.model("a")["replicas"][0]["pid"]
    faulty = ["--hang"] if fault == "hangs" else ["--fail-start", "CUDA out of memory"]
    changed = fake("a", *faulty, memory=memory)
    changed["options"]["start_timeout"] = 2
    home.write([changed])
    with clients(home, "a") as statuses:
        until(lambda: statuses[200] > 20)
        failed = home.yibu("apply", "--yes", code=1)
        until(lambda: ask(home, home.url(), "a")[0] == 200)
        served = statuses[200]
        until(lambda: statuses[200] > served + 20)
    assert ("CUDA out of memory" if fault == "fails" else "2 s") in failed.stderr
    assert set(statuses) == {200}
    assert home.model("a")["state"] == "ready"
    assert home.model("a")["replicas"][0]["pid"] != before, "it had made room"


def test_a_change_that_hangs_leaves_the_old_one_serving(home: Home) -> None:
    home.write([fake("a")])
    home.yibu("up", "-d")
    changed = fake("a", "--hang")
    changed["options"]["start_timeout"] = 2
    home.write([changed])
    with clients(home, "a") as statuses:
        until(lambda: statuses[200] > 20)
        home.yibu("apply", "--yes", code=1)
    assert set(statuses) == {200}
    assert [replica["id"] for replica in home.model("a")["replicas"]] == ["a-0"]


def test_a_change_that_fails_while_the_engine_restarts_costs_nothing(home: Home) -> None:
    """Nothing is ready just then, and what served before the crash is what is gone back to."""
    home.write([fake("a", "--ready-after", "3")])
    home.yibu("up", "-d")
    os.kill(home.model("a")["replicas"][0]["pid"], signal.SIGKILL)
    until(lambda: home.model("a")["state"] == "starting")
    home.write([fake("a", "--fail-start", "CUDA out of memory")])
    assert "CUDA out of memory" in home.yibu("apply", "--yes", code=1).stderr
    until(lambda: home.model("a")["state"] == "ready")
    assert [replica["id"] for replica in home.model("a")["replicas"]] == ["a-0"]
    assert ask(home, home.url(), "a")[0] == 200


def test_models_on_demand_are_loaded_when_somebody_asks(home: Home, tmp_path: Path) -> None:
    one, two = fake("one", group="g"), fake("two", "--ready-after", "0.5", group="g")
    home.write([one, two])
    said = home.yibu("up", "-d").stderr
    assert "loaded when somebody asks" in said
    assert {model["state"] for model in home.ps()["models"]} == {"unloaded"}
    assert "loaded by the requests" in home.yibu("test", "two").stdout
    with urllib.request.urlopen(f"{home.url()}/readyz", timeout=60) as answer:
        assert answer.status == 200
    assert ask(home, home.url(), "one")[0] == 200
    status, text = ask(home, home.url(), "two", stream=True)
    assert status == 200
    assert "data: [DONE]" in text
    states = {model["name"]: model["state"] for model in home.ps()["models"]}
    assert states == {"one": "unloaded", "two": "ready"}
    with urllib.request.urlopen(f"{home.url()}/v1/models", timeout=60) as answer:
        listed = json.load(answer)["data"]
    assert {model["id"]: model["state"] for model in listed} == states
    home.yibu("up", "-d", "one")
    assert home.model("one")["state"] == "ready"


def test_a_model_that_is_loaded_by_hand_says_how(home: Home) -> None:
    home.write([fake("a", keep="manual"), fake("b")])
    said = home.yibu("up", "-d").stderr
    assert "yibu load a" in said
    assert "somebody asks" not in said


def test_a_failed_start_on_demand_says_why_and_is_tried_again(home: Home, tmp_path: Path) -> None:
    flag = tmp_path / "once"
    home.write([fake("a", "--fail-once", str(flag), keep="idle 10m")])
    home.yibu("up", "-d")
    status, text = ask(home, home.url(), "a")
    assert status == 503
    assert json.loads(text)["error"]["code"] == "model_not_ready"
    home.yibu("up", "-d", "a")
    assert ask(home, home.url(), "a")[0] == 200


def test_replicas_are_added_for_more_requests(home: Home) -> None:
    scale = {"min": 1, "max": 2, "target": 0.5}
    home.write([fake("a", "--slow-tokens", "0.05", autoscale=scale, max_concurrency=2)])
    home.yibu("up", "-d")
    assert len(home.model("a")["replicas"]) == 1
    with clients(home, "a", number=6) as statuses:
        until(lambda: [r["state"] for r in home.model("a")["replicas"]] == ["ready", "ready"])
        served = statuses[200]
        until(lambda: statuses[200] > served + 20)
    assert set(statuses) == {200}


def test_who_finds_no_room_in_the_queue_is_told_when_to_come_back(home: Home) -> None:
    home.write([fake("a", "--slow-tokens", "0.3", max_concurrency=1, max_queue=1)])
    home.yibu("up", "-d")
    url = home.url()
    refusals: list[str] = []

    def refused() -> bool:
        status, text = ask(home, url, "a")
        refusals.extend([text] if status == 429 else [])
        return bool(refusals)

    with clients(home, "a", number=2):  # one is answered and one waits, but for moments
        until(lambda: home.model("a")["queued"] == 1)
        until(refused)
    assert json.loads(refusals[0])["error"]["code"] == "queue_full"


def test_a_model_is_unloaded_loaded_and_scaled_by_hand(home: Home) -> None:
    home.write([fake("a"), fake("b", keep="idle 1h")])
    home.yibu("up", "-d")
    home.yibu("load", "b")
    pid = home.model("a")["replicas"][0]["pid"]
    told = json.loads(home.yibu("scale", "a", "2", "--json").stdout)
    assert [replica["state"] for replica in told["models"][0]["replicas"]] == ["ready", "ready"]
    assert told["models"][0]["replicas"][0]["pid"] == pid
    assert "replicas: 2 → 1" in home.yibu("diff").stdout, "the file says something else"
    home.yibu("apply", "--yes")
    until(lambda: len(home.model("a")["replicas"]) == 1)
    assert home.model("a")["replicas"][0]["pid"] == pid

    told = json.loads(home.yibu("unload", "a", "b", "--json").stdout)
    assert {model["name"]: model["state"] for model in told["models"]} == {
        "a": "unloaded",
        "b": "unloaded",
    }
    status, text = ask(home, home.url(), "a")
    assert status == 503
    assert "yibu load a" in text
    assert ask(home, home.url(), "b")[0] == 200, "a request loads it again"
    home.yibu("load", "a")
    assert ask(home, home.url(), "a")[0] == 200
    assert "not up" in home.yibu("unload", "nothing", code=5).stderr


def test_what_a_person_unloaded_stays_so_when_the_node_comes_back(home: Home) -> None:
    home.write([fake("a"), fake("b")])
    home.yibu("up", "-d")
    home.yibu("unload", "a")
    home.kill_node()
    home.yibu("up", "-d", "b")
    assert home.model("a")["state"] == "unloaded"
    home.yibu("load", "a")
    assert home.model("a")["state"] == "ready"


def test_what_engines_need_not_know_is_changed_under_them(home: Home) -> None:
    home.write([fake("a")])
    home.yibu("up", "-d")
    pid = home.model("a")["replicas"][0]["pid"]
    limits = {"rpm": 1}
    home.write([fake("a", aliases=["another"], limits=limits, max_queue=3, replicas=2)])
    home.yibu("apply", "--yes")
    replicas = home.model("a")["replicas"]
    assert [replica["id"] for replica in replicas] == ["a-0", "a-1"]
    assert replicas[0]["pid"] == pid
    assert [ask(home, home.url(), "another")[0] for _ in range(2)] == [200, 429]
