"""What a killed engine leaves in /dev/shm and in its temporary directory is removed, and no more."""

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

from tests.node.support import eventually, fake_model
from yibu.node.fleet import Fleet
from yibu.node.leftovers import remove_unused, shared_files, temporary_directory

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
    await eventually(lambda: fleet._replicas["smol-0"].restarts == 1)
    await eventually(lambda: fleet._models["smol"].state == "ready")
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


async def test_temporary_files_go_with_their_engine(make_fleet: MakeFleet) -> None:
    plan = {"env": {"TMPDIR": "{temporary}"}, "leaves_files": True}
    async with make_fleet() as fleet:
        await fleet.up(fake_model("smol", options={"plan": plan}))
        process = fleet._replicas["smol-0"].process
        assert process is not None
        directory = temporary_directory(process.marker)
        assert directory.stat().st_mode & 0o777 == 0o700
        environment = Path(f"/proc/{process.pid}/environ").read_bytes()
        assert f"TMPDIR={directory}\0".encode() in environment
        (directory / "vllm_dist_1").write_text("left")
        await _killed(fleet)
        assert not directory.exists()
        again = fleet._replicas["smol-0"].process
        assert again is not None
        assert temporary_directory(again.marker).is_dir()
    assert not temporary_directory(again.marker).exists()


async def test_an_engine_that_cannot_be_spawned_leaves_no_directory(make_fleet: MakeFleet) -> None:
    before = set(Path(temporary_directory("x")).parent.glob("yibu-*"))
    plan = {"leaves_files": True, "argv": ("/no/such/program", "{port}")}
    async with make_fleet() as fleet:
        with pytest.raises(Exception, match="not found"):
            await fleet.up(fake_model("smol", options={"plan": plan}))
    after = set(Path(temporary_directory("x")).parent.glob("yibu-*"))
    assert not [path for path in after - before if len(path.name) == len("yibu-") + 16]
