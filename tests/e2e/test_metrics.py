"""What an operator sees of failing engines through the gateway: the 503 body and /metrics."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request

import pytest

from tests.e2e.home import Home, fake, scrape
from tests.exposition import Series
from tests.support.polling import until
from yibu.engines.causes import GENERIC_CAUSES

NASTY = 'x="1"} 5\\n RuntimeError: thing-1f3a failed at 0x7f3a'
"""What an engine may print, and what must not become a label."""


def test_causes_stand_in_the_503_body_and_in_the_labels(home: Home) -> None:
    home.write(
        [
            fake("well"),  # a node of which every model failed would end
            fake("full", "--fail-start", "OSError: [Errno 28] No space left on device"),
            fake("odd", "--fail-start", NASTY),
        ]
    )
    home.yibu("up", "-d", code=1)
    body = {"model": "full", "messages": [{"role": "user", "content": "hello"}]}
    request = urllib.request.Request(
        f"{home.url()}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    with refused.value as answer:
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
        error = json.load(answer)["error"]
    (cause,) = [cause for cause in GENERIC_CAUSES if cause.key == "disk_full"]
    assert error["code"] == "model_not_ready"
    assert cause.explanation in error["message"]
    assert cause.hint in error["message"]
    assert ".." not in error["message"]

    page = scrape(home)
    last = "yibu_last_failure_timestamp_seconds"
    assert {(x["model"], x["replica"], x["cause"]) for x in page.labels(last)} == {
        ("full", "full-0", "disk_full"),
        ("odd", "odd-0", "unknown"),
    }
    assert "1f3a" not in page.text
    for model in ("full", "odd"):
        labels = {"model": model, "replica": f"{model}-0"}
        assert page.value("yibu_replica_state", **labels, state="failed") == 1


def test_the_cause_and_the_advice_are_the_same_wherever_they_are_asked_for(home: Home) -> None:
    late = fake("late", "--health-status", "503")
    late["options"]["start_timeout"] = 1
    left = fake("left")
    left["options"]["command"] = ["sh", "-c", "echo started {port} &"]
    home.write(
        [
            fake("well"),
            fake("known", "--fail-start", "OSError: [Errno 28] No space left on device"),
            fake("unknown", "--fail-start", "ValueError: 3 heads, password=hunter2222\nbye"),
            fake("flags", "--auth", "authsecret-Zz99", "--redis-password", "two words-Zz99"),
            late,
            left,
        ]
    )
    home.yibu("up", "-d", code=1)
    page = scrape(home)
    labels = page.labels("yibu_last_failure_timestamp_seconds")
    counted = {one["model"]: one["cause"] for one in labels}
    failed = {one["name"]: one for one in home.ps()["models"] if one["state"] == "failed"}
    found = json.loads(home.yibu("doctor", "--json", code=1).stdout)["findings"]
    doctor = {one["subject"]: (one["found"], one["advice"]) for one in found}
    shown = home.yibu("ps").stdout
    top = home.yibu("top", "--once").stdout
    for name, model in failed.items():
        assert model["cause_key"] == counted[name]
        assert doctor[f"model {name}"] == (model["cause"], model["hint"])
        assert f"{name}: {model['cause']}\n  → {model['hint']}" in shown
        assert f"{name}: {model['cause']}" in top
        with pytest.raises(urllib.error.HTTPError) as refused:
            home.chat(name)
        with refused.value as answer:
            said = json.load(answer)["error"]["message"]
        assert model["cause"] in said
        assert model["hint"] in said
    assert {name: model["cause_key"] for name, model in failed.items()} == {
        "known": "disk_full", "unknown": "unknown", "flags": "bad_flag", "late": "not_ready", "left": "unknown"
    }  # fmt: skip
    assert failed["unknown"]["cause"].endswith(": ValueError: 3 heads, password=***")
    assert "flags: --auth *** --redis-password ***" in failed["flags"]["cause"]
    assert "Zz99" not in home.yibu("logs", "node").stdout
    assert "start_timeout: 2" in failed["late"]["hint"]
    assert "foreground" in failed["left"]["hint"]


def test_an_engine_that_was_killed_is_counted(home: Home) -> None:
    home.write([fake()])
    home.yibu("up", "-d")
    (replica,) = home.model("fake")["replicas"]
    labels = {"model": "fake", "replica": replica["id"]}
    assert scrape(home).value("yibu_replica_restarts_total", **labels) == 0
    os.kill(replica["pid"], signal.SIGKILL)
    until(lambda: scrape(home).value("yibu_replica_restarts_total", **labels) == 1, "one restart")
    until(lambda: scrape(home).value("yibu_replica_state", **labels, state="ready") == 1, "ready")
    (found,) = scrape(home).labels("yibu_replica_failures_total")
    assert found["cause"] in {"crash", "killed", "oom_killed"}


def test_engines_own_metrics_through_the_gateway(home: Home) -> None:
    (home.root / "bad").write_bytes(b'good 1\nbad{x="\xff"} 2\nbroken {\n' + b"x" * 100_000)
    home.write([fake("fake", replicas=2), fake("odd", "--metrics", str(home.root / "bad"))])
    home.yibu("up", "-d")
    page = scrape(home)
    for replica in ("fake-0", "fake-1"):
        labels = {"model": "fake", "replica": replica}
        # One generation, which is the probe's: and the engine's own label of that name is kept.
        own = {**labels, "exported_model": "fake"}
        assert page.value("fake:generations_total", **own) == 1
        assert page.value("fake_seconds_bucket", **labels, le="+Inf") == 1
        assert page.value("yibu_engine_scrape_up", **labels) == 1
    assert page.family("fake_seconds").type == "histogram"
    assert page.value("good", model="odd", replica="odd-0") == 1
    assert page.value("yibu_engine_scrape_dropped_lines", model="odd", replica="odd-0") == 2

    # A stopped process listens, accepts and never answers.
    stopped = home.model("fake")["replicas"][0]["pid"]
    os.kill(stopped, signal.SIGSTOP)
    try:
        page = scrape(home)
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert page.value("yibu_engine_scrape_up", model="fake", replica="fake-0") == 0
    assert page.value("yibu_engine_scrape_up", model="fake", replica="fake-1") == 1
    assert page.value("good", model="odd", replica="odd-0") == 1


def test_starts_are_counted_by_what_they_followed_and_memory_by_replica(home: Home) -> None:
    home.write([fake("kept", "--hold-mib", "64", memory="1GiB")])
    home.yibu("up", "-d")
    labels = {"model": "kept", "cause": "asked"}
    until(lambda: scrape(home).values.get(series("yibu_model_starts_total", labels)) == 1)
    page = scrape(home)
    of = {"model": "kept", "replica": "kept-0", "device": "cpu"}
    assert page.value("yibu_replica_memory_used_bytes", **of) >= 64 << 20
    assert page.value("yibu_replica_memory_reserved_bytes", **of) == 1 << 30

    os.kill(home.model("kept")["replicas"][0]["pid"], signal.SIGKILL)

    def causes() -> set[str]:
        return {found["cause"] for found in scrape(home).labels("yibu_model_starts_total")}

    until(lambda: causes() - {"asked"}, "a start after a failure")
    assert causes() - {"asked"} <= {"crash", "killed", "oom_killed"}


def series(name: str, labels: dict[str, str]) -> Series:
    return name, frozenset(labels.items())
