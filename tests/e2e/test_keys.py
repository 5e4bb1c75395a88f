"""Keys of a real node: added, limited, replaced and removed while it serves."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import stat
import time
import urllib.error
import urllib.request
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.small_disks import with_disks
from tests.support.polling import until
from yibu.accounts import usage
from yibu.accounts.store import FILE, AccountStore

from .home import Home, fake, live_fake


def ask(home: Home, key: str | None = None, path: str = "/v1/models", body: Any = None) -> Any:
    """The status of an answer, its JSON and its headers."""
    headers = {"content-type": "application/json"}
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(home.url() + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, json.load(error), error.headers


def test_keys_hold_at_once_with_and_without_a_node(home: Home) -> None:
    first = home.yibu("key", "add", "alice").stdout.strip()
    home.write([fake()])
    home.yibu("up", "-d")
    assert ask(home)[0] == 401
    assert ask(home, first)[0] == 200
    second = json.loads(home.yibu("key", "add", "bob", "--expires", "1h", "--json").stdout)
    assert ask(home, second["key"])[0] == 200
    assert home.yibu("test").stdout  # the command line needs none of them

    new = home.yibu("key", "rotate", "alice").stdout.strip()
    status, answer, _ = ask(home, first)
    assert (status, answer["error"]["code"]) == (401, "replaced_api_key")
    assert ask(home, new)[0] == 200

    home.yibu("key", "rm", "bob")
    assert ask(home, second["key"])[0] == 401
    listed = json.loads(home.yibu("key", "ls", "--json").stdout)["keys"]
    assert [key["name"] for key in listed] == ["alice"]
    files = [file for file in (home.root / "state").iterdir() if "accounts" in file.name]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    home.yibu("down")
    shown = home.yibu("key", "show", "alice").stdout
    assert new[:13] in shown
    assert new not in shown


def test_a_node_without_keys_becomes_closed_with_the_first(home: Home) -> None:
    home.write([fake()])
    home.yibu("up", "-d")
    assert ask(home)[0] == 200
    key = home.yibu("key", "add", "alice").stdout.strip()
    assert ask(home)[0] == 401
    assert ask(home, key)[0] == 200
    home.yibu("key", "rm", "alice")
    assert ask(home)[0] == 401


def test_a_public_address_may_have_its_keys_in_the_database(home: Home) -> None:
    home.write([fake()], host="0.0.0.0")
    assert "yibu key add" in home.yibu("config", "check", code=2).stderr
    home.yibu("key", "add", "alice")
    home.yibu("config", "check")


def test_a_keys_weight(home: Home) -> None:
    home.yibu("key", "add", "heavy", "--weight", "3")
    assert json.loads(home.yibu("key", "show", "heavy", "--json").stdout)["weight"] == 3
    home.yibu("key", "set", "heavy", "--rpm", "7")
    home.yibu("key", "set", "heavy", "--weight", "2")
    assert "2" in home.yibu("key", "show", "heavy").stdout
    shown = json.loads(home.yibu("key", "ls", "--json").stdout)["keys"][0]
    assert (shown["weight"], shown["rpm"]) == (2, 7)
    home.yibu("key", "set", "heavy", "--weight", "0", code=2)
    assert "No setting" in home.yibu("key", "set", "heavy", code=2).stderr


def test_changed_limits_hold_at_once(home: Home) -> None:
    alice = home.yibu("key", "add", "alice", "--models", "other").stdout.strip()
    home.write([fake()])
    home.yibu("up", "-d")
    body = {"model": "fake", "messages": [{"role": "user", "content": "hi"}]}
    assert ask(home, alice, "/v1/chat/completions", body)[0] == 404
    home.yibu("key", "set", "alice", "--models", "all", "--rpm", "7", "--budget", "9M/day")
    status, _, headers = ask(home, alice, "/v1/chat/completions", body)
    assert (status, headers["x-ratelimit-limit-requests"]) == (200, "7")
    shown = home.yibu("key", "set", "alice", "--rpm", "0", "--expires", "1s", "--json").stdout
    assert (json.loads(shown)["rpm"], json.loads(shown)["budget"]) == (None, "9000000/day")
    until(lambda: ask(home, alice)[1].get("error", {}).get("code") == "expired_api_key", "its end")
    assert "has expired" in home.yibu("key", "rotate", "alice", code=2).stderr


def test_a_killed_node_loses_no_key_and_no_written_usage(home: Home) -> None:
    alice = home.yibu("key", "add", "alice").stdout.strip()
    home.write([fake()])
    home.yibu("up", "-d")
    body = {"model": "fake", "messages": [{"role": "user", "content": "hi"}]}
    for _ in range(5):
        assert ask(home, alice, "/v1/chat/completions", body)[0] == 200

    def written() -> list[int]:
        with AccountStore.open(home.root / "state" / "accounts.db") as store:
            return [row["requests"] for row in usage.read(store.connection, "key", 0, "alice")]

    until(lambda: written() == [5], "the usage on disk, with nobody asking for it")
    node = home.ps()["node"]["pid"]
    os.kill(node, signal.SIGKILL)
    until(lambda: home.ps()["node"]["pid"] != node, "another node")
    assert written() == [5]
    home.yibu("up", "-d")
    assert ask(home, alice, "/v1/chat/completions", body)[0] == 200
    home.yibu("usage")
    assert written() == [6]


def test_a_killed_node_loses_nothing_of_what_an_open_session_has_heard(home: Home) -> None:
    alice = home.yibu("key", "add", "alice").stdout.strip()
    home.write([live_fake()])
    home.yibu("up", "-d")

    def used() -> list[tuple[int, float]]:
        rows = json.loads(home.yibu("usage", "--json").stdout)["usage"]
        return [(row["requests"], row["audio_seconds"]) for row in rows if row["key"] == "alice"]

    url = home.url().replace("http", "ws", 1) + "/v1/realtime?intent=transcription"
    headers = {"authorization": f"Bearer {alice}"}
    with contextlib.suppress(ConnectionClosed), connect(url, additional_headers=headers) as session:
        for seconds in (5, 3600, 7200):
            session.send(f"heard {seconds}")
            assert session.recv(60) == "told"
        assert used() == [(1, 7200)]
        node = home.ps()["node"]["pid"]
        os.kill(node, signal.SIGKILL)
        until(lambda: home.ps()["node"]["pid"] != node, "another node")
    assert used() == [(1, 7200)]
    with connect(url, additional_headers=headers) as session:
        session.send("heard 1.5")
        assert session.recv(60) == "told"
    until(lambda: used() == [(2, 7201.5)], "a whole session, counted once")


def test_a_killed_node_loses_at_most_the_last_second_of_a_stream(home: Home) -> None:
    alice = home.yibu("key", "add", "alice").stdout.strip()
    home.write([fake("slow", "--tokens", "6000", "--slow-tokens", "0.02")])
    home.yibu("up", "-d")

    def used() -> dict[str, int]:
        rows = json.loads(home.yibu("usage", "--json").stdout)["usage"]
        return next(row for row in rows if row["key"] == "alice")

    url, headers = f"{home.url()}/v1/chat/completions", {"authorization": f"Bearer {alice}"}
    body = {"model": "slow", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    came: list[float] = []
    with (
        contextlib.suppress(httpx.HTTPError),
        httpx.stream("POST", url, json=body, headers=headers, timeout=60) as answer,
    ):
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                came.append(time.monotonic())
            if len(came) == 200:
                os.kill(home.ps()["node"]["pid"], signal.SIGKILL)
    row = used()
    assert (row["requests"], row["estimated"]) == (1, 1)
    # Of a second, and of the half of one in which it is written; a busy machine takes its own time.
    before = sum(moment < came[-1] - 3 for moment in came)
    assert before <= row["completion_tokens"] <= len(came) + 50


def test_usage_and_limits_of_a_real_node_outlive_it(home: Home) -> None:
    alice = home.yibu("key", "add", "alice", "--rpm", "1000", "--budget", "1/day").stdout.strip()
    boss = home.yibu("key", "add", "boss", "--admin").stdout.strip()
    home.write([fake(limits={"concurrency": 50})])
    home.yibu("up", "-d")
    body = {"model": "fake", "messages": [{"role": "user", "content": "hi"}]}
    status, answer, headers = ask(home, alice, "/v1/chat/completions", body)
    assert (status, headers["x-ratelimit-remaining-requests"]) == (200, "999")
    used = answer["usage"]["total_tokens"]
    status, answer, headers = ask(home, alice, "/v1/chat/completions", body)
    assert (status, answer["error"]["code"]) == (429, "insufficient_quota")
    assert int(headers["retry-after"]) <= 86400

    [row] = json.loads(home.yibu("usage", "--json").stdout)["usage"]
    assert (row["key"], row["requests"], row["errors"]) == ("alice", 2, 1)
    assert row["total_tokens"] == used
    [row] = ask(home, boss, "/v1/admin/usage")[1]["data"]
    assert row["group"] == "alice"
    assert ask(home, alice, "/v1/usage")[1]["budget"]["used"] == used
    assert ask(home, alice, "/v1/admin/usage")[0] == 401

    home.yibu("down")
    assert "two formats" in home.yibu("usage", "--json", "--csv", code=2).stderr
    header, line = home.yibu("usage", "--by", "model", "--csv").stdout.splitlines()
    assert header.startswith("model,requests,errors,prompt_tokens")
    assert line.startswith("fake,2,1,")
    home.yibu("up", "-d")
    assert ask(home, alice, "/v1/usage")[1]["budget"]["used"] == used


@pytest.mark.parametrize("schema", ["of today", "of the version before"])
def test_keys_are_read_from_a_disk_that_cannot_be_written(home: Home, schema: str) -> None:
    """A database with a WAL wants to write before it is read."""
    home.yibu("key", "add", "alice", "--rpm", "5")
    if schema == "of the version before":
        with contextlib.closing(sqlite3.connect(home.root / "state" / FILE)) as old:
            old.executescript("ALTER TABLE account DROP COLUMN weight; PRAGMA user_version = 1")
    fixed = Home(home.root, through=with_disks({home.root: "read only"}))
    for words in (("key", "ls"), ("key", "show", "alice")):
        assert "alice" in fixed.yibu(*words).stdout
    fixed.yibu("usage")
    for words in (("key", "add", "bob"), ("key", "rm", "alice")):
        refused = fixed.yibu(*words, code=1).stderr
        assert "readonly database" in refused
        assert "df -h" in refused
    assert "bob" not in home.yibu("key", "ls").stdout
