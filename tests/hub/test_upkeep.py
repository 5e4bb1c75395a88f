"""ls, verify, rm, gc, --cache-dir and reading headers."""

from __future__ import annotations

import json
import os
import struct
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.hub.conftest import FILES, REPO, WEIGHTS, Home, until
from tests.hub.wheel import make_wheel
from yibu.errors import (
    HubError,
    HubNotFoundError,
    HubUnreachableError,
    OfflineError,
    SourceError,
    VerificationError,
)
from yibu.hub.types import Source
from yibu.hub.upkeep import require_ok

BIG = "model.safetensors"
MODELSCOPE = Source("modelscope", REPO)
HF = Source("hf", REPO)
PACKAGE = Source("pypi", "tiny==1.0", None, "m.bin")


@pytest.fixture
def package(home: Home) -> Source:
    home.hub.packages["tiny-1.0-py3-none-any.whl"] = make_wheel("tiny", "1.0", {"t/m.bin": WEIGHTS})
    return PACKAGE


def test_list(home: Home, source: Source, package: Source) -> None:
    assert home.store.list() == []
    home.store.pull(source)
    home.store.pull(package)
    listed = {model.source: model for model in home.store.list()}
    assert set(listed) == {source, package}
    assert listed[source].size == sum(map(len, FILES.values()))
    assert listed[source].changed == ()
    (listed[source].path / "config.json").unlink()
    assert home.store.list()[0].changed == ("config.json",)


def test_verify_finds_a_changed_byte_and_a_pull_repairs_it(home: Home, source: Source) -> None:
    path = home.store.pull(source).path / BIG
    results = home.store.verify()
    assert [result.ok for result in results] == [True]
    require_ok(results)
    status = path.stat()
    with path.resolve().open("r+b") as file:
        file.write(b"\0")
    # Neither its size nor its time gives it away.
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert home.store.find(source) is not None
    results = home.store.verify(source)
    assert not results[0].ok
    assert BIG in results[0].problems[0]
    assert home.store.find(source) is None
    with pytest.raises(VerificationError, match=r"found sha256 .*, expected ") as caught:
        require_ok(results)
    assert f"yibu pull '{source}'" in caught.value.hint
    assert (home.store.pull(source).path / BIG).read_bytes() == WEIGHTS
    require_ok(home.store.verify())


def test_verify_what_is_gone_or_unknown(home: Home, source: Source) -> None:
    with pytest.raises(HubNotFoundError, match="not in the store"):
        home.store.verify(source)
    (home.store.pull(source).path / BIG).unlink()
    assert BIG in home.store.verify(source)[0].problems[0]


def test_a_path_is_recorded_by_its_first_verify(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "m.bin").write_bytes(b"1234")
    source = Source("local", str(folder))
    assert home.store.pull(source).path == folder
    assert home.store.verify(source)[0].ok
    (folder / "m.bin").write_bytes(b"4321")
    assert "found sha256" in home.store.verify(source)[0].problems[0]
    with pytest.raises(SourceError, match="does not delete"):
        home.store.remove(source)
    assert (folder / "m.bin").exists()


def test_a_path_that_is_not_there(home: Home, tmp_path: Path) -> None:
    (tmp_path / "Qwen").mkdir()
    with pytest.raises(HubNotFoundError, match="does not exist") as caught:
        home.store.pull(Source("local", str(tmp_path / "Qwem")))
    assert "Qwen" in caught.value.hint
    assert home.store.find(Source("local", str(tmp_path / "Qwen"))) is None


def test_remove_frees_the_disk(home: Home, source: Source, package: Source) -> None:
    for each in (source, package):
        model = home.store.pull(each)
        removed = home.store.remove(each)
        assert removed.freed_bytes == model.size
        assert home.store.find(each) is None
        assert not model.path.exists()
    left = [path for path in home.root.rglob("*") if path.is_file() and path.stat().st_size > 4000]
    assert left == []
    with pytest.raises(HubNotFoundError):
        home.store.remove(source)


def test_remove_leaves_what_another_model_shares(home: Home, source: Source) -> None:
    one = replace(source, file=BIG)
    home.store.pull(source)
    home.store.pull(one)
    assert home.store.remove(source).freed_bytes == sum(map(len, FILES.values())) - len(WEIGHTS)
    found = home.store.find(one)
    assert found is not None
    assert found.path.read_bytes() == WEIGHTS
    assert home.store.remove(one).freed_bytes == len(WEIGHTS)


def test_a_model_in_use_stays(home: Home, source: Source) -> None:
    home.store.pull(source)
    with home.store.lease(source):
        assert home.store.list()[0].in_use
        with pytest.raises(HubError, match="in use") as caught:
            home.store.remove(source)
        assert "yibu down" in caught.value.hint
    assert not home.store.list()[0].in_use
    home.store.remove(source)


def test_gc_removes_the_leases_of_the_dead(home: Home, source: Source) -> None:
    home.store.pull(source)
    leases = home.paths.store / "leases"
    leases.mkdir(exist_ok=True)
    (leases / "killed.lock").touch()
    with home.store.lease(source):
        home.store.gc(dry_run=True)
        assert len(list(leases.iterdir())) == 2
        home.store.gc()
        (held,) = leases.iterdir()
        assert held.name != "killed.lock"
    assert list(leases.iterdir()) == []


def test_gc(home: Home, source: Source, package: Source) -> None:
    home.store.pull(package)
    home.store.pull(source)
    home.hub.fault(f"cdn.*{BIG}", "cut", value=10_000)
    other = Source("hf" if source.scheme == "modelscope" else "modelscope", REPO)
    with pytest.raises(HubUnreachableError):
        home.with_settings(attempts=1).store.pull(other)
    store = home.paths.store
    orphan = store / "packages" / "orphan" / "x.bin"
    orphan.parent.mkdir()
    orphan.write_bytes(bytes(1000))
    (store / "records" / "bad.json").write_text("{")
    planned = home.store.gc(dry_run=True)
    assert {item.reason for item in planned.garbage} == {
        "an unfinished download",
        "a package that no record names",
        "a record that cannot be read",
    }
    assert orphan.exists()
    done = home.store.gc()
    assert done.garbage == planned.garbage
    assert done.freed_bytes >= 1000
    assert not orphan.exists()
    assert home.store.gc().garbage == ()
    assert home.store.find(package) is not None
    assert home.store.find(source) is not None


def test_gc_leaves_a_running_pull_alone(home: Home) -> None:
    home.hub.fault("cdn", "gate")
    thread = threading.Thread(target=home.store.pull, args=(MODELSCOPE,))
    thread.start()
    until(lambda: list(home.root.rglob("*.part")))
    assert home.store.gc().garbage == ()
    home.hub.gate.set()
    thread.join()
    assert home.store.find(MODELSCOPE) is not None


def test_gc_forgets_records_of_what_is_gone(home: Home, package: Source) -> None:
    home.store.pull(package).path.unlink()
    assert "which is gone" in home.store.gc().garbage[0].reason
    assert home.store.list() == []


def test_cache_dir_is_where_scripts_look(home: Home, source: Source, tmp_path: Path) -> None:
    models = tmp_path / "models"
    model = home.store.pull(source, cache_dir=models)
    assert model.path == models / "org" / "Tiny-1.5B"
    for path, data in FILES.items():
        assert (model.path / path).read_bytes() == data
    # Where ModelScope's SDK of 2025 put it.
    assert (models / "org" / "Tiny-1___5B" / BIG).read_bytes() == WEIGHTS
    sent = dict(home.hub.sent)
    assert home.store.pull(source, cache_dir=models) == model
    assert home.hub.sent == sent


def test_cache_dir_never_overwrites_what_it_did_not_put_there(
    home: Home, source: Source, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    mine = models / "org" / "Tiny-1.5B" / "config.json"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(FILES["config.json"])
    home.store.pull(source, cache_dir=models)  # the same bytes: nobody loses anything
    mine.unlink()
    mine.write_text("mine")
    with pytest.raises(HubError, match=r"config\.json is in the way"):
        home.store.pull(source, cache_dir=models)
    assert mine.read_text() == "mine"


def test_cache_dir_follows_a_newer_file(home: Home, source: Source, tmp_path: Path) -> None:
    models = tmp_path / "models"
    home.store.pull(source, cache_dir=models)
    home.hub.repos[REPO]["config.json"] = b'{"model_type": "newer"}'
    model = home.store.pull(source, cache_dir=models)
    assert (model.path / "config.json").read_bytes() == b'{"model_type": "newer"}'
    mine = model.path / "mine.txt"
    mine.write_text("mine")
    home.store.remove(source)
    assert [path for path in models.rglob("*") if path.is_file()] == [mine]


def test_headers_without_weights(home: Home, source: Source) -> None:
    table = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    weights = struct.pack("<Q", len(table)) + table + WEIGHTS
    home.hub.repos[REPO][BIG] = weights
    with home.store.fetch_config(source) as headers:
        assert headers.files[BIG] == len(weights)
        assert headers.json("config.json") == {"model_type": "tiny"}
        assert headers.json("generation_config.json") is None
        (length,) = struct.unpack("<Q", headers.read(BIG, 0, 8))
        assert headers.read(BIG, 8, length) == table
        assert not headers.local
        with pytest.raises(HubNotFoundError):
            headers.read("absent")
    until(lambda: home.hub.bodies(BIG) == 8 + length)
    assert home.store.find(source) is None
    with pytest.raises(OfflineError):
        home.with_settings(offline=True).store.fetch_config(source)


def test_headers_of_a_server_without_ranges(home: Home, source: Source) -> None:
    home.hub.fault(BIG, "ignore-range")
    with home.store.fetch_config(source) as headers:
        assert headers.read(BIG, 100, 50) == WEIGHTS[100:150]


def test_headers_of_what_is_here(home: Home, source: Source, package: Source) -> None:
    home.store.pull(source)
    asked = len(home.hub.requests)
    with home.store.fetch_config(source) as headers:
        assert headers.local
        assert headers.read(BIG, 5, 10) == WEIGHTS[5:15]
        assert headers.read("sub/tokenizer.json", 4990) == b"x" * 10
    assert len(home.hub.requests) == asked
    with pytest.raises(HubNotFoundError, match="before it is here"):
        home.store.fetch_config(package)
    home.store.pull(package)
    assert home.store.fetch_config(package).read("m.bin", 1, 2) == WEIGHTS[1:3]
