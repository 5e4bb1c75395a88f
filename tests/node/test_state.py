"""State on disk, and the lock of a home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.node.support import fake_model, fake_spec
from yibu.config import ModelConfig
from yibu.config.wire import model_config, plain_config
from yibu.errors import AlreadyRunningError
from yibu.node.launch.leftovers import SharedFile
from yibu.node.lock import node_lock
from yibu.node.machine.processes import Identity
from yibu.node.state import (
    SavedModel,
    SavedReplica,
    StateFile,
    boot_id,
    home_id,
)
from yibu.paths import Paths


def saved() -> SavedModel:
    config = ModelConfig(
        name="smol",
        source="/m",
        engine="command",
        options={"context": 4096, "nested": {"a": [1, None]}},
        flags=("--x",),
        env={"TOKEN": "secret"},
        gpus=(0, 1),
        replicas=2,
    )
    shared = (SharedFile("/dev/shm/psm_1", 26, 4711),)
    spec, process = fake_spec("--x"), Identity(7, 99)
    running = SavedReplica("smol-0.2", 0, spec, 20001, "key", 3, "home/smol-0.2/1", process, shared)
    idle = SavedReplica("smol-1.2", 1, spec, None, "key", 0, None, None)
    return SavedModel(config, 1700000000, 2, started=False, replicas=(running, idle))


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "node.json")
    assert file.load() is None
    assert file.save([saved()])
    loaded = file.load()
    assert loaded is not None
    assert loaded.boot == boot_id() != ""
    assert loaded.models == (saved(),)
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["node.json"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{half", b"[]", b"null", b'{"version": 99}', b"\xff\x00", b'{"version":1,"boot":""}'],
)
def test_what_cannot_be_read_is_set_aside(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file = StateFile(tmp_path / "node.json")
    file.path.write_bytes(content)
    assert file.load() is None
    (aside,) = tmp_path.iterdir()
    assert aside.name.startswith("node.json.corrupt-")
    assert aside.read_bytes() == content
    assert "set aside" in caplog.text


def test_an_unknown_field_is_not_guessed_at(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "node.json")
    file.save([saved()])
    data = json.loads(file.path.read_bytes())
    data["models"][0]["replicas"][0]["colour"] = "blue"
    file.path.write_text(json.dumps(data))
    assert file.load() is None


def test_a_failed_write_keeps_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = StateFile(tmp_path / "node.json")
    file.save([saved()])

    def no_room(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    assert not file.save([])
    monkeypatch.undo()
    loaded = file.load()
    assert loaded is not None
    assert loaded.models == (saved(),)
    assert "No space left" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["node.json"]


def test_a_config_crosses_the_socket_unchanged() -> None:
    for config in (saved().config, fake_model("plain")):
        assert model_config(json.loads(json.dumps(plain_config(config)))) == config
    with pytest.raises(TypeError, match="colour"):
        model_config({"name": "x", "colour": "blue"})


def test_homes_are_told_apart(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    assert home_id(one) != home_id(two)
    link = tmp_path / "link"
    link.symlink_to(one)
    assert home_id(link) == home_id(one)


def test_the_lock_names_its_holder_and_goes_with_it(paths: Paths) -> None:
    code = (
        "import sys; from pathlib import Path; from yibu.node.lock import node_lock\n"
        "with node_lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()\n"
    )
    lock = paths.node_lock
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(AlreadyRunningError, match=f"pid {holder.pid}"), node_lock(lock):
            pytest.fail("two hold it")
        holder.kill()
        holder.wait()
    with node_lock(lock):
        assert lock.read_text().strip() == str(os.getpid())
