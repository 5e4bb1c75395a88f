"""What a killed engine leaves in /dev/shm is removed, and no more."""

from __future__ import annotations

import asyncio
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.node.support import fake_model
from tests.support.polling import eventually
from yibu.node.fleet.fleet import Fleet
from yibu.node.launch.leftovers import remove_unused, shared_files

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/shm is Linux's")
MakeFleet = Callable[..., Fleet]
SHARED = Path("/dev/shm")
OURS = f"yibu-test-{os.getpid()}"


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    left = list(SHARED.glob(f"*{OURS}*"))
    for path in left:
        path.unlink()


async def _killed(fleet: Fleet) -> int:
    """Kill the engine's main process; return the old pid when it is started again."""
    pid = (await fleet.status())[0]["replicas"][0]["pid"]
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: fleet._runner.supervisors["smol-0"].restarts == 1)
    await eventually(lambda: fleet.route("smol").state == "ready")
    return int(pid)


async def test_shared_memory_of_a_killed_engine_goes(make_fleet: MakeFleet) -> None:
    switches = [f"psm_{OURS}_{{pid}}", f"sem.{OURS}_{{pid}}", f"other_{OURS}_{{pid}}"]
    words = [word for name in switches for word in ("--shared-memory", name)]
    async with make_fleet() as fleet:
        await fleet.up(fake_model("smol", *words))
        before = {path.name for path in SHARED.glob(f"*{OURS}*")}
        assert len(before) == 3
        pid = await _killed(fleet)
        now = {path.name for path in SHARED.glob(f"*{OURS}*")}
        assert now & before == {f"other_{OURS}_{pid}"}  # of a name that no engine library uses
        assert len(now) == 4
    left = {path.name.rpartition("_")[0] for path in SHARED.glob(f"*{OURS}*")}
    assert left == {f"other_{OURS}"}


async def test_shared_memory_that_another_process_uses_stays(make_fleet: MakeFleet) -> None:
    async with make_fleet() as fleet:
        await fleet.up(fake_model("smol", "--shared-memory", f"psm_{OURS}_{{pid}}"))
        (path,) = SHARED.glob(f"psm_{OURS}*")
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 4096):
            file.close()
            await _killed(fleet)
            assert path.exists()


async def test_shared_memory_that_was_there_before_stays(make_fleet: MakeFleet) -> None:
    old = SHARED / f"psm_{OURS}_old"
    old.write_bytes(bytes(4096))
    old.chmod(0o600)
    made = old.stat().st_ctime
    # Older than the engine by more than the clock's margin: nothing is slept for but that.
    await asyncio.to_thread(_wait_past, made + 2.5)
    async with make_fleet() as fleet:
        await fleet.up(fake_model("smol", "--shared-memory", old.name))
    assert old.exists()


def _wait_past(moment: float) -> None:
    while time.time() < moment:
        time.sleep(0.05)


def test_a_file_that_took_a_name_over_stays() -> None:
    path = SHARED / f"psm_{OURS}_mine"
    path.write_bytes(b"x" * 4096)
    path.chmod(0o600)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 4096):
        found = shared_files([os.getpid()], 0.0)
        assert {file.path for file in found} >= {str(path)}
        assert remove_unused([f for f in found if f.path == str(path)]) == []
    path.unlink()
    path.write_bytes(b"another's")
    path.chmod(0o600)
    assert remove_unused([f for f in found if f.path == str(path)]) == []
    assert path.read_bytes() == b"another's"
