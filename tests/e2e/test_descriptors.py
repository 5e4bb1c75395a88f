"""A node that may open few files, and clients that hold more connections than that."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import stat
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.home import Home, fake
from tests.support.polling import until
from yibu.errors import YibuError
from yibu.node.machine import processes

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")

SOFT, HARD = 200, 256


def limited(home: Home) -> Home:
    script = f'ulimit -Sn {SOFT}; ulimit -Hn {HARD}; exec "$@"'
    return replace(home, through=("sh", "-c", script, "sh"))


def soft_limit(pid: int) -> int:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Max open files")).split()[3])


def healthy(url: str) -> bool:
    with urllib.request.urlopen(f"{url}/healthz", timeout=60) as answer:
        return bool(answer.status == 200)


def test_more_clients_than_the_node_may_open_files(home: Home) -> None:
    few = limited(home)
    few.write([fake("fake")])
    few.yibu("up", "-d")
    status = few.ps()
    node = status["node"]["pid"]
    engine = few.model("fake")["replicas"][0]["pid"]
    assert (soft_limit(node), soft_limit(engine)) == (HARD, SOFT)
    url = status["gateway"]["url"]
    address = (urlsplit(url).hostname, urlsplit(url).port)
    idle = [socket.create_connection(address, timeout=60) for _ in range(2 * HARD)]
    try:
        for _ in range(5):
            assert healthy(url)
        opened = Path(f"/proc/{node}/fd")
        until(lambda: len(list(opened.iterdir())) < HARD - 32, "room for the node itself")
        # Through a round of housekeeping and several health checks.
        deadline = time.monotonic() + 6
        while time.monotonic() < deadline:
            assert healthy(url)
            assert few.model("fake")["replicas"][0]["pid"] == engine
            time.sleep(0.5)
    finally:
        for connection in idle:
            connection.close()
    assert few.model("fake")["state"] == "ready"
    assert few.model("fake")["replicas"][0]["restarts"] == 0
    assert processes.process(engine) is not None
    assert healthy(url)


def test_the_files_of_a_node_are_its_owners_alone(home: Home) -> None:
    home.write([fake("fake")])
    log = Path(home.client._paths.node_log)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch(mode=0o644)
    log.chmod(0o644)
    home.yibu("up", "-d")
    found = [path for path in home.root.rglob("*") if path.is_file() or path.is_socket()]
    names = {path.name for path in found}
    assert {"node.log", "node.json", "fake-0.log"} <= names
    written = [path for path in found if path.suffix in {".log", ".json", ".sock", ".lock"}]
    assert {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in written
            if stat.S_IMODE(path.stat().st_mode) & 0o077} == {}  # fmt: skip


@pytest.mark.parametrize("when", ["starting", "ready", "settled"])
def test_a_node_without_descriptors_goes_on_as_soon_as_there_are_some(
    home: Home, when: str
) -> None:
    """Imports of the documented surface, plans, starts and an engine's end fall into that time."""
    home.write([fake("fake"), fake("other")])
    up = home.start("up", "-d")

    def come() -> bool:
        try:
            states = {model["state"] for model in home.ps()["models"]}
        except YibuError:
            return False
        return bool(states) and (when == "starting" or states == {"ready"})

    until(come, "the models")
    node = home.ps()["node"]["pid"]
    engine = None
    if when == "settled":
        with urllib.request.urlopen(f"{home.url()}/openapi.json", timeout=60) as answer:
            assert answer.status == 200
        engine = home.model("fake")["replicas"][0]["pid"]
    before = resource.prlimit(node, resource.RLIMIT_NOFILE)
    resource.prlimit(node, resource.RLIMIT_NOFILE, (8, before[1]))
    log = Path(home.client._paths.node_log)
    if engine:
        os.kill(engine, signal.SIGKILL)
    until(
        lambda: "of the metrics are missing: " in log.read_text(), "a reading without descriptors"
    )
    resource.prlimit(node, resource.RLIMIT_NOFILE, before)
    said = up.communicate(timeout=60)[1]
    assert up.returncode == 0, said
    until(lambda: {model["state"] for model in home.ps()["models"]} == {"ready"}, "both ready")
    assert home.ps()["node"]["pid"] == node
    restarts = {name: home.model(name)["replicas"][0]["restarts"] for name in ("fake", "other")}
    assert restarts == {"fake": 1 if engine else 0, "other": 0}
    assert home.chat()["choices"]
    with urllib.request.urlopen(f"{home.url()}/openapi.json", timeout=60) as answer:
        assert answer.status == 200
    assert "defect" not in log.read_text()


EXHAUSTED = """
import builtins, errno, io, os

def refusing(work):
    def refused(*given, **named):
        if os.path.exists({flag!r}):
            raise OSError({code}, os.strerror({code}))
        return work(*given, **named)
    return refused

for name in ("open", "scandir", "listdir", "pipe", "dup"):
    setattr(os, name, refusing(getattr(os, name)))
builtins.open = io.open = refusing(io.open)
"""
"""What the whole machine's limit of open files does to one process, which a test cannot reach."""


@pytest.mark.parametrize("code", [errno.ENFILE, errno.EMLINK], ids=["ENFILE", "EMLINK"])
def test_a_machine_without_descriptors_ends_nothing(home: Home, code: int) -> None:
    flag, site = home.root / "exhausted", home.root / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(EXHAUSTED.format(flag=str(flag), code=code))
    bare = replace(home, settings={**home.settings, "PYTHONPATH": str(site)}, through=("env",))
    bare.write([fake("fake"), fake("other")])
    bare.yibu("up", "-d")
    node = home.ps()["node"]["pid"]
    engine = home.model("fake")["replicas"][0]["pid"]
    log, url = Path(home.client._paths.node_log), home.url()
    flag.touch()
    try:
        os.kill(engine, signal.SIGKILL)
        until(
            lambda: "of the metrics are missing: " in log.read_text(),
            "a reading without descriptors",
        )
        with pytest.raises(urllib.error.HTTPError) as refused:  # modules are read for the first one
            healthy(url)
        refused.value.close()
        assert refused.value.code == 503
        assert refused.value.headers["retry-after"] == "1"
    finally:
        flag.unlink()
    until(lambda: {model["state"] for model in home.ps()["models"]} == {"ready"}, "both ready")
    assert home.ps()["node"]["pid"] == node
    restarts = {name: home.model(name)["replicas"][0]["restarts"] for name in ("fake", "other")}
    assert restarts == {"fake": 1, "other": 0}
    assert home.chat()["choices"]
    assert healthy(url)
    assert "defect" not in log.read_text()
