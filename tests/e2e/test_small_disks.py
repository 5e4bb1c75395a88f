"""Disks without room, and too little shared memory: real ones, and what is said of each."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.home import Home, fake, scrape
from tests.e2e.vllm_models import SOURCE, VllmModels
from tests.fakes.hub_server import HubServer
from tests.small_disks import fill, with_disks
from tests.support.polling import until
from yibu.accounts import usage
from yibu.accounts.store import FILE, AccountStore
from yibu.paths import Paths

MakeHome = Callable[..., Home]
SHARED = Path("/dev/shm")


@pytest.fixture
def on_disks(tmp_path: Path) -> Iterator[MakeHome]:
    """Makes a home whose commands see these disks; ends what runs in it after the test."""

    def make(disks: Mapping[Path, str], *more: Any) -> Home:
        for path in disks:
            path.mkdir(parents=True, exist_ok=True)
        return stack.enter_context(Home(tmp_path, *more, through=with_disks(disks)))

    with contextlib.ExitStack() as stack:
        yield make


def shown_everywhere(home: Home, model: str, words: str, label: str) -> None:
    """The cause of a failure in `ps`, in the answer to a request and in the metrics."""
    found = home.model(model)
    assert found["state"] == "failed"
    assert words in found["cause"]
    assert words.split(maxsplit=1)[0] in home.yibu("ps").stdout
    request = urllib.request.Request(
        f"{home.url()}/v1/completions",
        json.dumps({"model": model, "prompt": "a"}).encode(),
        {"Content-Type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    with refused.value as answer:
        assert words in json.load(answer)["error"]["message"]
    labels = scrape(home).labels("yibu_last_failure_timestamp_seconds")
    assert [each["cause"] for each in labels if each["model"] == model] == [label]


def logs_of(tmp_path: Path) -> Path:
    return Paths.from_env({"YIBU_HOME": str(tmp_path)}).logs


def test_a_download_without_room(on_disks: MakeHome, tmp_path: Path) -> None:
    with HubServer() as hub:
        hub.repos["org/big"] = {"config.json": b"{}", "model.safetensors": bytes(600_000)}
        settings = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "hf"), "NO_PROXY": "*"}
        home = on_disks({tmp_path / "hf": "300k"}, None, settings)
        home.write([fake("well"), fake("big", source="hf:org/big")])
        refused = home.yibu("up", "-d", code=None)
    assert refused.returncode != 0
    assert "but only 300 KiB are free" in refused.stderr
    shown_everywhere(home, "big", "hf:org/big needs 586 KiB", "disk_full")


FULL_STATE = """
key=$("$@" key add alice) && cat /dev/zero > "$STATE/filler" 2>/dev/null
echo "$key"; "$@" key add bob; echo $?; "$@" key ls --json
"$PYTHON" -c "
import asyncio, pathlib, sys
from yibu.accounts.live import LiveAccounts
async def main():
    accounts = LiveAccounts(pathlib.Path(sys.argv[1]))
    async with accounts.running():
        print(accounts.find(sys.argv[2].encode()).name)
asyncio.run(main())
" "$STATE/accounts.db" "$key"
"""


def test_keys_are_readable_on_a_full_disk_and_none_is_shown_that_is_not_kept(
    on_disks: MakeHome, tmp_path: Path
) -> None:
    state = Paths.from_env({"YIBU_HOME": str(tmp_path)}).state
    home = on_disks({state: "300k"})
    words = [*home.through, "sh", "-c", FULL_STATE, "sh", *home.command()[len(home.through) :]]
    env = {**home.env, "STATE": str(state), "PYTHON": sys.executable}
    done = subprocess.run(words, env=env, cwd=tmp_path, capture_output=True, text=True, check=True)
    key, code, *listed, found = done.stdout.splitlines()
    assert key.startswith("yibu-")
    assert code == "1"  # and no key of bob's before it
    assert [row["name"] for row in json.loads("".join(listed))["keys"]] == ["alice"]
    assert found == "alice"
    assert "the disk is full" in done.stderr


def test_keys_are_readable_on_a_disk_that_has_become_read_only(
    home: Home, on_disks: MakeHome, tmp_path: Path
) -> None:
    home.write([fake()])
    home.yibu("key", "add", "alice")
    home.yibu("up", "-d")
    read_only = on_disks({Paths.from_env({"YIBU_HOME": str(tmp_path)}).state: "read only"})
    assert "alice" in read_only.yibu("key", "ls").stdout
    assert "alice" in read_only.yibu("key", "show", "alice").stdout
    assert "KEY" in read_only.yibu("usage").stdout
    for change in (["add", "bob"], ["rotate", "alice"], ["rm", "alice"]):
        refused = read_only.yibu("key", *change, code=1)
        assert not refused.stdout
        assert "accounts.db cannot be used" in refused.stderr
    assert "bob" not in home.yibu("key", "ls").stdout


def test_an_environment_without_room(on_disks: MakeHome, tmp_path: Path) -> None:
    environments = Paths.from_env({"YIBU_HOME": str(tmp_path)}).environments
    home = on_disks({environments: "4m"})
    refused = home.yibu("engine", "install", "llama.cpp", code=1)
    assert "needs about 120.0 MiB, and 4.0 MiB are free" in refused.stderr
    assert "YIBU_HOME" in refused.stderr


def test_without_room_for_logs_models_are_served(on_disks: MakeHome, tmp_path: Path) -> None:
    home = on_disks({logs_of(tmp_path): "256k, full"})
    home.write([fake()])
    up = home.yibu("up", "-d")
    assert "the disk with the logs is full" in up.stderr
    assert home.model("fake")["state"] == "ready"
    assert "lines are missing" in home.yibu("logs", "fake", code=None).stderr


def test_an_engine_that_fills_the_disk_of_the_logs(on_disks: MakeHome, tmp_path: Path) -> None:
    home = on_disks({logs_of(tmp_path): "512k"})
    home.write([fake("well")])  # a node of which every model failed would end
    home.yibu("up", "-d")
    home.write([fake("well"), fake("fake", "--log-lines", "50000")])
    refused = home.yibu("up", "-d", code=1)
    assert "the disk with its log is full" in refused.stderr
    assert "Free some space" in refused.stderr
    shown_everywhere(home, "fake", "the disk with its log is full", "disk_full")


@pytest.mark.parametrize("end", ["room again", "upgrade", "down"])
def test_usage_waits_for_room(end: str, on_disks: MakeHome, tmp_path: Path) -> None:
    """It is kept in memory, which the log says once, `ps` and `doctor` say; it is written when there is room,
    and given on to another node. A node that is stopped says what is lost."""
    state = Paths.from_env({"YIBU_HOME": str(tmp_path)}).state
    home = on_disks({state: "2m"})
    home.write([fake()])
    home.yibu("up", "-d")

    def inside() -> Path:
        """The disk as the node sees it; a command would find one of its own."""
        return Path(f"/proc/{home.ps()['node']['pid']}/root") / state.relative_to("/")

    fill(inside())
    before, fault = 3, "the disk is full"

    def unwritten() -> int:
        told = home.ps()["gateway"]["unwritten"]
        return told["requests"] if told and fault in told["error"] else 0

    for number in range(before):
        home.chat("fake")
        until(lambda: unwritten() == number + 1, "the fault told")  # noqa: B023
    assert f"latest requests ({before}) is in memory only" in home.yibu("ps").stderr
    rows = json.loads(home.yibu("doctor", "--json", code=None).stdout)["findings"]
    (row,) = [row for row in rows if row["subject"] == "usage"]
    assert (row["level"], fault in row["found"]) == ("warning", True)
    if end == "down":
        home.yibu("down", code=None)
    else:
        if end == "upgrade":
            home.yibu("node", "upgrade")
            until(lambda: unwritten() == before, "the new node has it")
        (inside() / "others").unlink()
        until(lambda: home.ps()["gateway"]["unwritten"] is None, "written")
        # A copy: SQLite would look for what /proc/PID/root links to.
        kept = shutil.copytree(inside(), tmp_path / "copy", ignore=shutil.ignore_patterns("*.sock"))
        with AccountStore.open(kept / FILE) as store:
            (used,) = usage.read(store.connection, "model", 0)
        assert (used["model"], used["requests"]) == ("fake", before)
    said = home.yibu("logs", "node", "-n", "400").stdout
    assert said.count("usage is kept in memory") == (2 if end == "upgrade" else 1)
    assert f"the usage of {before} requests is lost" in said or end != "down"
    assert "is lost" not in said or end == "down"


@pytest.mark.engine
@pytest.mark.timeout(600)
def test_llama_cpp_without_room_for_logs(
    on_disks: MakeHome, engine_cache: Path, tmp_path: Path
) -> None:
    home = on_disks(
        {Paths.from_env({"XDG_STATE_HOME": str(tmp_path)}).logs: "256k, full"}, engine_cache
    )
    home.write([{"name": "smol", "source": SOURCE, "options": {"context": 512}}])
    up = home.yibu("up", "-d", timeout=500)
    assert "the disk with the logs is full" in up.stderr
    assert home.model("smol")["state"] == "ready"


@pytest.mark.engine
@pytest.mark.vllm
@pytest.mark.timeout(600)
def test_vllm_with_too_little_shared_memory(on_disks: MakeHome, engine_cache: Path) -> None:
    models = VllmModels.of(engine_cache)
    home = on_disks({SHARED: "1m"}, models.cache)
    options = {"tensor_parallel_size": 2, "max_model_len": 512}
    halves = {"name": "halves", "source": str(models.eight_heads()), "options": options}
    home.write([fake("well"), halves])  # a node of which every model failed would end
    refused = home.yibu("up", "-d", code=1, timeout=500)
    words = "too little shared memory (/dev/shm): one allocation needs 160 MiB, and 1 MiB are free"
    assert words in refused.stderr
    assert "--shm-size" in refused.stderr
    shown_everywhere(home, "halves", words, "shared_memory")
    assert "Insufficient space in /dev/shm" in home.yibu("logs", "halves", "-n", "400").stdout


def test_a_home_relative_to_where_the_command_was_typed(tmp_path: Path) -> None:
    """The node, whose working directory is another one, has the same home."""
    home = Home(tmp_path, settings={"YIBU_HOME": "./here"})
    home.write([fake()])
    try:
        home.yibu("up", "-d")
        assert "ready" in home.yibu("ps").stdout
        assert (tmp_path / "here" / "state").is_dir()
    finally:
        home.yibu("down")
