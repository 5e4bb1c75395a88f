"""Every engine has a temporary directory of its own, which goes when it has gone, however it went."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.node.support import FAKE, fake_model
from tests.support.polling import eventually
from yibu.errors import EngineStartError
from yibu.node.fleet.fleet import Fleet
from yibu.node.launch.directories import TemporaryDirectories, temporary_directories
from yibu.paths import Paths

MakeFleet = Callable[..., Fleet]
MARKER = "home/smol-0/0123456789abcdef"


@pytest.fixture
def directories(tmp_path: Path) -> TemporaryDirectories:
    return TemporaryDirectories(tmp_path / "temporary")


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A TMPDIR with a path that is short enough for sockets."""
    parent = Path(tempfile.mkdtemp(prefix="ty", dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(parent))
    yield parent
    shutil.rmtree(parent)


def test_made_and_removed(directories: TemporaryDirectories, parent: Path) -> None:
    directory = directories.make(MARKER)
    assert directory.parent == parent
    assert directory.stat().st_mode & 0o777 == 0o700
    assert directories.path(MARKER) == directory
    (directory / "deep").mkdir()
    (directory / "deep" / "file").touch()
    directories.remove(MARKER)
    assert list(parent.iterdir()) == []
    assert list(directories.registry.iterdir()) == []
    directories.remove(MARKER)


def test_found_though_tmpdir_is_another_now(
    directories: TemporaryDirectories, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = directories.make(MARKER)
    living = directories.make("home/other-0/fedcba9876543210")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert directories.sweep({"home/other-0/fedcba9876543210"}) == 1
    assert not dead.exists()
    assert living.is_dir()
    assert directories.sweep(()) == 1
    assert list(parent.iterdir()) == []


def test_a_path_that_is_too_long_for_sockets_is_not_taken(
    directories: TemporaryDirectories, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    directory = directories.make(MARKER)
    assert directory.parent == Path("/tmp")
    directories.remove(MARKER)
    assert not directory.exists()


def test_what_took_its_name_stays(
    directories: TemporaryDirectories, parent: Path, tmp_path: Path
) -> None:
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "file").touch()
    directory = directories.make(MARKER)
    directory.rmdir()
    directory.symlink_to(treasure)
    directories.sweep(())
    assert (treasure / "file").exists()


async def test_it_goes_with_its_engine(make_fleet: MakeFleet, paths: Paths, parent: Path) -> None:
    async with make_fleet() as fleet:
        await fleet.up(fake_model("smol"))
        process = fleet._runner.supervisors["smol-0"].process
        assert process is not None
        directory = temporary_directories(paths).path(process.marker)
        assert directory is not None
        assert psutil.Process(process.pid).environ()["TMPDIR"] == str(directory)
        (directory / "vllm_dist_1").write_text("left")
        os.kill(process.pid, signal.SIGKILL)
        await eventually(lambda: fleet._runner.supervisors["smol-0"].restarts == 1)
        await eventually(lambda: fleet.route("smol").state == "ready")
        again = fleet._runner.supervisors["smol-0"].process
        assert again is not None
        assert list(parent.iterdir()) == [temporary_directories(paths).path(again.marker)]
    assert list(parent.iterdir()) == []
    assert list((paths.state / "temporary").iterdir()) == []


async def test_the_models_own_tmpdir_wins(
    make_fleet: MakeFleet, tmp_path: Path, parent: Path
) -> None:
    async with make_fleet() as fleet:
        await fleet.up(fake_model("smol", env={"TMPDIR": str(tmp_path)}))
        process = fleet._runner.supervisors["smol-0"].process
        assert process is not None
        assert psutil.Process(process.pid).environ()["TMPDIR"] == str(tmp_path)
    assert tmp_path.is_dir()


async def test_a_users_command_has_the_systems(make_fleet: MakeFleet, parent: Path) -> None:
    argv = (sys.executable, "-u", "-S", str(FAKE), "--port", "{port}")
    async with make_fleet() as fleet:
        plan = {"environment": None, "argv": argv}
        await fleet.up(fake_model("smol", options={"plan": plan}))
        process = fleet._runner.supervisors["smol-0"].process
        assert process is not None
        assert psutil.Process(process.pid).environ().get("TMPDIR") == os.environ.get("TMPDIR")
        assert list(parent.iterdir()) == []


async def test_an_engine_that_cannot_be_spawned_leaves_none(
    make_fleet: MakeFleet, parent: Path
) -> None:
    plan = {"argv": ("/no/such/program", "{port}")}
    async with make_fleet() as fleet:
        with pytest.raises(EngineStartError, match="not found"):
            await fleet.up(fake_model("smol", options={"plan": plan}))
        assert list(parent.iterdir()) == []


async def test_without_room_only_who_needs_it_is_refused(
    make_fleet: MakeFleet, parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(parent / "gone"))
    async with make_fleet() as fleet:
        await fleet.up(fake_model("smol"))
        needs = fake_model("vllm", options={"plan": {"needs_temporary": True}})
        with pytest.raises(EngineStartError, match="no directory for temporary files") as refused:
            await fleet.up(needs)
        assert "TMPDIR=" in refused.value.hint
