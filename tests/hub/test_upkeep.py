"""ls, verify, rm, gc, --cache-dir and reading headers."""

from __future__ import annotations

import json
import os
import re
import struct
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.hub.conftest import FILES, REPO, WEIGHTS, Machine
from tests.hub.wheel import make_wheel
from tests.support.polling import until
from yibu.errors import (
    HubError,
    HubNotFoundError,
    HubUnreachableError,
    OfflineError,
    SourceError,
)
from yibu.hub.types import Source

BIG = "model.safetensors"
MODELSCOPE = Source("modelscope", REPO)
HF = Source("hf", REPO)
PACKAGE = Source("pypi", "tiny==1.0", None, "m.bin")


@pytest.fixture
def package(machine: Machine) -> Source:
    machine.hub.packages["tiny-1.0-py3-none-any.whl"] = make_wheel(
        "tiny", "1.0", {"t/m.bin": WEIGHTS}
    )
    return PACKAGE


def test_list(machine: Machine, source: Source, package: Source) -> None:
    assert machine.store.list() == []
    machine.store.pull(source)
    machine.store.pull(package)
    listed = {model.source: model for model in machine.store.list()}
    assert set(listed) == {source, package}
    assert listed[source].model.size == sum(map(len, FILES.values()))
    assert listed[source].changed() == []
    (listed[source].model.path / "config.json").unlink()
    assert machine.store.list()[0].changed() == ["config.json"]


def test_verify_finds_a_changed_byte_and_a_pull_repairs_it(
    machine: Machine, source: Source
) -> None:
    path = machine.store.pull(source).path / BIG
    results = machine.store.verify()
    assert [result.ok for result in results] == [True]
    status = path.stat()
    with path.resolve().open("r+b") as file:
        file.write(b"\0")
    # Neither its size nor its time gives it away.
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert machine.store.find(source) is not None
    results = machine.store.verify(source)
    assert not results[0].ok
    assert BIG in results[0].problems[0]
    assert machine.store.find(source) is None
    assert re.search(r"found sha256 .*, expected ", results[0].problems[0])
    assert (machine.store.pull(source).path / BIG).read_bytes() == WEIGHTS
    assert all(result.ok for result in machine.store.verify())


def test_verify_what_is_gone_or_unknown(machine: Machine, source: Source) -> None:
    with pytest.raises(HubNotFoundError, match="not in the store"):
        machine.store.verify(source)
    (machine.store.pull(source).path / BIG).unlink()
    assert BIG in machine.store.verify(source)[0].problems[0]


def test_a_path_is_recorded_by_its_first_verify(machine: Machine, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "m.bin").write_bytes(b"1234")
    source = Source("local", str(folder))
    assert machine.store.pull(source).path == folder
    assert machine.store.verify(source)[0].ok
    (folder / "m.bin").write_bytes(b"4321")
    assert "found sha256" in machine.store.verify(source)[0].problems[0]
    with pytest.raises(SourceError, match="does not delete"):
        machine.store.remove(source)
    assert (folder / "m.bin").exists()


def test_a_path_that_is_not_there(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "Qwen").mkdir()
    with pytest.raises(HubNotFoundError, match="does not exist") as caught:
        machine.store.pull(Source("local", str(tmp_path / "Qwem")))
    assert "Qwen" in caught.value.hint
    assert machine.store.find(Source("local", str(tmp_path / "Qwen"))) is None


def test_remove_frees_the_disk(machine: Machine, source: Source, package: Source) -> None:
    for each in (source, package):
        model = machine.store.pull(each)
        removed = machine.store.remove(each)
        assert removed == model.size
        assert machine.store.find(each) is None
        assert not model.path.exists()
    left = [
        path for path in machine.root.rglob("*") if path.is_file() and path.stat().st_size > 4000
    ]
    assert left == []
    with pytest.raises(HubNotFoundError):
        machine.store.remove(source)


def test_remove_leaves_what_another_model_shares(machine: Machine, source: Source) -> None:
    one = replace(source, file=BIG)
    machine.store.pull(source)
    machine.store.pull(one)
    assert machine.store.remove(source) == sum(map(len, FILES.values())) - len(WEIGHTS)
    found = machine.store.find(one)
    assert found is not None
    assert found.path.read_bytes() == WEIGHTS
    assert machine.store.remove(one) == len(WEIGHTS)


def test_a_model_in_use_stays(machine: Machine, source: Source) -> None:
    machine.store.pull(source)
    with machine.store.lease(source):
        with pytest.raises(HubError, match="in use") as caught:
            machine.store.remove(source)
        assert "yibu down" in caught.value.hint
    machine.store.remove(source)


def test_gc_removes_the_leases_of_the_dead(machine: Machine, source: Source) -> None:
    machine.store.pull(source)
    leases = machine.paths.store / "leases"
    leases.mkdir(exist_ok=True)
    (leases / "killed.lock").touch()
    with machine.store.lease(source):
        machine.store.gc(dry_run=True)
        assert len(list(leases.iterdir())) == 2
        machine.store.gc()
        (held,) = leases.iterdir()
        assert held.name != "killed.lock"
    assert list(leases.iterdir()) == []


def test_gc(machine: Machine, source: Source, package: Source) -> None:
    machine.store.pull(package)
    machine.store.pull(source)
    machine.hub.fault(f"cdn.*{BIG}", "cut", value=10_000)
    other = Source("hf" if source.scheme == "modelscope" else "modelscope", REPO)
    with pytest.raises(HubUnreachableError):
        machine.with_settings(attempts=1).store.pull(other)
    store = machine.paths.store
    orphan = store / "packages" / "orphan" / "x.bin"
    orphan.parent.mkdir()
    orphan.write_bytes(bytes(1000))
    (store / "records" / "bad.json").write_text("{")
    planned = machine.store.gc(dry_run=True)
    assert {item.reason for item in planned} == {
        "an unfinished download",
        "a package that no record names",
        "a record that cannot be read",
    }
    assert orphan.exists()
    done = machine.store.gc()
    assert done == planned
    assert sum(item.size for item in done) >= 1000
    assert not orphan.exists()
    assert machine.store.gc() == []
    assert machine.store.find(package) is not None
    assert machine.store.find(source) is not None


def test_gc_leaves_a_running_pull_alone(machine: Machine) -> None:
    machine.hub.fault("cdn", "gate")
    thread = threading.Thread(target=machine.store.pull, args=(MODELSCOPE,))
    thread.start()
    until(lambda: list(machine.root.rglob("*.part")))
    assert machine.store.gc() == []
    machine.hub.gate.set()
    thread.join()
    assert machine.store.find(MODELSCOPE) is not None


def test_gc_forgets_records_of_what_is_gone(machine: Machine, package: Source) -> None:
    machine.store.pull(package).path.unlink()
    assert "which is gone" in machine.store.gc()[0].reason
    assert machine.store.list() == []


def test_cache_dir_is_where_scripts_look(machine: Machine, source: Source, tmp_path: Path) -> None:
    models = tmp_path / "models"
    model = machine.store.pull(source, cache_dir=models)
    assert model.path == models / "org" / "Tiny-1.5B"
    for path, data in FILES.items():
        assert (model.path / path).read_bytes() == data
    # Where ModelScope's SDK of 2025 put it.
    assert (models / "org" / "Tiny-1___5B" / BIG).read_bytes() == WEIGHTS
    sent = dict(machine.hub.sent)
    assert machine.store.pull(source, cache_dir=models) == model
    assert machine.hub.sent == sent


def test_cache_dir_never_overwrites_what_it_did_not_put_there(
    machine: Machine, source: Source, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    mine = models / "org" / "Tiny-1.5B" / "config.json"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(FILES["config.json"])
    machine.store.pull(source, cache_dir=models)  # the same bytes: nobody loses anything
    mine.unlink()
    mine.write_text("mine")
    with pytest.raises(HubError, match=r"config\.json is in the way"):
        machine.store.pull(source, cache_dir=models)
    assert mine.read_text() == "mine"


def test_cache_dir_follows_a_newer_file(machine: Machine, source: Source, tmp_path: Path) -> None:
    models = tmp_path / "models"
    machine.store.pull(source, cache_dir=models)
    machine.hub.repos[REPO]["config.json"] = b'{"model_type": "newer"}'
    model = machine.store.pull(source, cache_dir=models)
    assert (model.path / "config.json").read_bytes() == b'{"model_type": "newer"}'
    mine = model.path / "mine.txt"
    mine.write_text("mine")
    machine.store.remove(source)
    assert [path for path in models.rglob("*") if path.is_file()] == [mine]


def test_headers_without_weights(machine: Machine, source: Source) -> None:
    table = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    weights = struct.pack("<Q", len(table)) + table + WEIGHTS
    machine.hub.repos[REPO][BIG] = weights
    with machine.store.fetch_config(source) as headers:
        assert headers.files[BIG] == len(weights)
        assert headers.json("config.json") == {"model_type": "tiny"}
        assert headers.json("generation_config.json") is None
        (length,) = struct.unpack("<Q", headers.read(BIG, 0, 8))
        assert headers.read(BIG, 8, length) == table
        assert not headers.local
        with pytest.raises(HubNotFoundError):
            headers.read("absent")
    until(lambda: machine.hub.bodies(BIG) == 8 + length)
    assert machine.store.find(source) is None
    with pytest.raises(OfflineError):
        machine.with_settings(offline=True).store.fetch_config(source)


def test_headers_of_a_server_without_ranges(machine: Machine, source: Source) -> None:
    machine.hub.fault(BIG, "ignore-range")
    with machine.store.fetch_config(source) as headers:
        assert headers.read(BIG, 100, 50) == WEIGHTS[100:150]


def test_headers_of_what_is_here(machine: Machine, source: Source, package: Source) -> None:
    machine.store.pull(source)
    asked = len(machine.hub.requests)
    with machine.store.fetch_config(source) as headers:
        assert headers.local
        assert headers.read(BIG, 5, 10) == WEIGHTS[5:15]
        assert headers.read("sub/tokenizer.json", 4990) == b"x" * 9 + b'"'
    assert len(machine.hub.requests) == asked
    with pytest.raises(HubNotFoundError, match="before it is here"):
        machine.store.fetch_config(package)
    machine.store.pull(package)
    assert machine.store.fetch_config(package).read("m.bin", 1, 2) == WEIGHTS[1:3]
