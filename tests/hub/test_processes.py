"""Pulls in processes of their own: killed, interrupted, and two at once."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.hub_server import COMMIT
from tests.hub.conftest import REPO, WEIGHTS, Machine
from tests.small_disks import fill, with_disks
from tests.support.polling import until
from tests.support.zygote import ZYGOTE
from yibu.errors import DiskFullError, OfflineError
from yibu.hub.partial import partial_bytes
from yibu.hub.source import parse_source

ROOT = Path(__file__).parents[2]
BIG = "model.safetensors"
SEGMENT = 64 * 1024
CONNECTIONS = 4
HALF = CONNECTIONS * SEGMENT // 2
"""Bytes that have come when the gate stops the first ranges."""


def start(
    machine: Machine,
    source: str,
    through: tuple[str, ...] = (),
    dies_at: int | None = None,
    **changes: object,
) -> subprocess.Popen[str]:
    # A server that holds an answer back is waited for: until the test lets it go.
    settings = {"segment_bytes": SEGMENT, "connections": CONNECTIONS, "backoff": 0.01,
                "connect_timeout": 600, "read_timeout": 600} | changes  # fmt: skip
    words = ["tests.fakes.pull", source, json.dumps(settings)]
    how: dict[str, Any] = {"env": machine.environment(), "text": True}
    how |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    words += [] if dies_at is None else [str(dies_at)]
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


def test_a_pull_killed_at_any_step_is_mended_by_the_next(machine: Machine, spelled: str) -> None:
    """Every fifth change that it makes to the disk is once its last."""
    source = parse_source(spelled)
    for step in itertools.count(1, 5):
        killed = start(machine, spelled, dies_at=step)
        killed.communicate(timeout=240)
        if killed.returncode == 0:
            break
        assert killed.returncode == -signal.SIGKILL
        assert whole(finish(start(machine, spelled))) == WEIGHTS
        assert machine.store.verify(source)[0].ok
        machine.store.gc()
        assert not [
            path for path in machine.root.rglob("*") if path.suffix in (".part", ".journal")
        ]
        machine.store.remove(source)
        assert bytes_on_disk(machine) < 4000, f"left after step {step}"
    assert step > 12


def bytes_on_disk(machine: Machine) -> int:
    files = [path for path in machine.root.rglob("*") if path.is_file() and not path.is_symlink()]
    return sum(path.stat().st_size for path in files)


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


@pytest.mark.parametrize("spelled", ["modelscope", "hf"], indirect=True)
@pytest.mark.parametrize("revision", ["", f"@{COMMIT}"])
def test_offline_what_a_killed_pull_had_still_to_bring_is_missing(
    machine: Machine, spelled: str, revision: str
) -> None:
    """Its small files are in the hub's cache then, which does not tell that the weights are not."""
    machine.hub.repos[REPO]["other.safetensors"] = WEIGHTS
    interrupted(machine, spelled + revision, signal.SIGKILL)
    source = parse_source(spelled + revision)
    machine.store.gc()
    with pytest.raises(OfflineError, match=rf"{BIG}|nothing of it is here"):
        machine.with_settings(offline=True).store.pull(source)
    finish(start(machine, spelled + revision))
    assert not list(machine.root.rglob("*.unfinished"))
    (machine.paths.store / "records").rename(machine.root / "away")
    path = machine.with_settings(offline=True).store.pull(source).path
    assert whole(str(path)) == WEIGHTS


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


@pytest.mark.parametrize("held", ["caches", "caches and store"])
@pytest.mark.parametrize("cache", ["whole", "newer at the hub", "without a record", "broken"])
def test_what_may_only_be_read(machine: Machine, spelled: str, cache: str, held: str) -> None:
    """What is whole is used; what is not is said to be read-only, in a sentence."""
    path = Path(finish(start(machine, spelled)))
    if cache == "newer at the hub":
        machine.hub.repos[REPO][BIG] = WEIGHTS[:-1] + b"x"
        machine.hub.commit = "decade" * 6 + "deca"
    if cache == "without a record":
        shutil.rmtree(machine.paths.store / "records")
    if cache == "broken":
        big = (path if path.is_file() else path / BIG).resolve()
        big.write_bytes(big.read_bytes()[:-1])
    package = spelled.startswith("pypi")
    which = places(machine) if package or held == "caches and store" else places(machine)[:2]
    process = start(machine, spelled, tuple(with_disks(dict.fromkeys(which, "read only"))))
    out, err = process.communicate(timeout=240)
    if cache == "broken" or (package and cache == "without a record"):
        assert process.returncode == 1
        assert re.search(rf"HubError: {re.escape(spelled)}: .*: Read-only file system", err)
    else:
        assert (process.returncode, out.strip()) == (0, str(path)), err


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


def test_a_pull_that_begins_while_gc_removes_keeps_its_bytes(
    machine: Machine, spelled: str
) -> None:
    """gc stops at the first unfinished file that it removes, and a pull of the same model begins."""
    interrupted(machine, spelled, signal.SIGKILL)
    machine.hub.gate.clear()
    machine.hub.fault(r"cdn.*safetensors|packages", "gate")
    collecting = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.pull", "--gc"], cwd=ROOT, env=machine.environment()
    )
    until(lambda: Path(f"/proc/{collecting.pid}/stat").read_text().split()[2] == "T")
    asked = len(machine.hub.requests)
    phases: list[str] = []

    def pull() -> str:
        model = machine.store.pull(
            parse_source(spelled), progress=lambda report: phases.append(report.phase)
        )
        return str(model.path)

    with ThreadPoolExecutor() as threads:
        pulled = threads.submit(pull)
        until(lambda: "waiting" in phases or len(machine.hub.requests) > asked + 1)
        collecting.send_signal(signal.SIGCONT)
        assert collecting.wait(240) == 0
        machine.hub.gate.set()
        assert whole(pulled.result()) == WEIGHTS
