"""Proxies: the hubs' SDKs, the downloads, the package index and uv go through the same one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.environments.tiny_wheels import LocalSpec, build_wheel, locked
from tests.fakes.hub_server import HubServer
from tests.fakes.socks import SocksServer
from tests.hub.conftest import WEIGHTS, Machine
from tests.hub.wheel import make_wheel
from yibu.environments.manager import EnvironmentManager
from yibu.environments.uv_settings import UvSettings
from yibu.errors import ConfigError, EnvironmentSetupError, HubUnreachableError
from yibu.hub.reachability import check_reachability
from yibu.hub.settings import IndexSettings
from yibu.hub.types import Source
from yibu.proxies import Proxies

INTERNAL = "http://hub.internal:80"
"""Nobody but the proxy knows this host."""
LOGIN = ("me", "pr0xy-p4ss")


@pytest.fixture(params=[None, LOGIN], ids=["open", "login"])
def socks(request: pytest.FixtureRequest, hub: HubServer) -> Iterator[SocksServer]:
    host, port = hub.url.removeprefix("http://").split(":")
    with SocksServer((host, int(port)), request.param) as server:
        yield server


@pytest.fixture
def dead() -> str:
    """An address where nothing listens."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{closed.getsockname()[1]}"


def url_of(socks: SocksServer, kind: str) -> str:
    login = f"{LOGIN[0]}:{LOGIN[1]}@" if socks.login else ""
    return f"{kind}://{login}{socks.address}"


def behind(machine: Machine, **variables: str) -> Machine:
    return machine.with_settings(
        proxies=Proxies.from_env(variables),
        modelscope_endpoint=INTERNAL, hf_endpoint=INTERNAL,
        index=IndexSettings((f"{INTERNAL}/simple",)),
    )  # fmt: skip


@pytest.mark.parametrize("variable", ["ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"])
def test_a_model_comes_through_a_socks_proxy(
    machine: Machine, source: Source, socks: SocksServer, variable: str
) -> None:
    here = behind(machine, **{variable: url_of(socks, "socks5h")})
    assert (here.store.pull(source).path / "model.safetensors").read_bytes() == WEIGHTS
    assert ("hub.internal", 80) in socks.asked
    # The redirect to another host goes through it too.
    assert {host for host, _ in socks.asked} == {"hub.internal", "localhost"}


def test_so_does_a_package(machine: Machine, socks: SocksServer) -> None:
    machine.hub.packages["tiny-1.0-py3-none-any.whl"] = make_wheel(
        "tiny", "1.0", {"m.bin": WEIGHTS}
    )
    here = behind(machine, ALL_PROXY=url_of(socks, "socks5h"))
    source = Source("pypi", "tiny==1.0", None, "m.bin")
    assert here.store.pull(source).path.read_bytes() == WEIGHTS
    assert {host for host, _ in socks.asked} == {"hub.internal"}


def test_socks_as_desktops_spell_it(machine: Machine, source: Source, hub: HubServer) -> None:
    host, port = hub.url.removeprefix("http://").split(":")
    with SocksServer((host, int(port))) as socks:
        proxies = Proxies.from_env({"ALL_PROXY": f"socks://{socks.address}/"})
        machine.with_settings(proxies=proxies).store.pull(source)
        assert socks.asked


def test_no_proxy_holds_for_each_request_of_its_own(
    machine: Machine, source: Source, hub: HubServer
) -> None:
    host, port = hub.url.removeprefix("http://").split(":")
    with SocksServer((host, int(port))) as socks:
        variables = {"ALL_PROXY": f"socks5h://{socks.address}", "NO_PROXY": "localhost"}
        behind(machine, **variables).store.pull(source)
        assert {asked for asked, _ in socks.asked} == {"hub.internal"}


@pytest.mark.parametrize("kind", ["http", "https", "socks5", "socks5h"])
def test_a_dead_proxy_is_named_as_the_cause(
    machine: Machine, source: Source, dead: str, kind: str
) -> None:
    variables = {"HTTP_PROXY": f"{kind}://me:pr0xy-p4ss@{dead}"}
    here = behind(machine, **variables).with_settings(backoff=600)  # at once, or never
    with pytest.raises(HubUnreachableError) as said:
        here.store.pull(source)
    assert f"the proxy {kind}://{dead} (HTTP_PROXY) cannot be reached: connection refused" in str(
        said.value
    )
    assert "pr0xy" not in str(said.value)
    assert machine.hub.requests == []


def test_doctor_and_a_package_name_it_too(
    machine: Machine, dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda _name: None
    )  # no pip: its words are its own
    here = behind(machine, all_proxy=dead).with_settings(backoff=600)
    assert {
        f"http://{dead} (all_proxy)" in found.detail for found in check_reachability(here.settings)
    } == {True}
    with pytest.raises(HubUnreachableError, match=rf"http://{dead} \(all_proxy\)"):
        here.store.pull(Source("pypi", "tiny==1.0", None, "m.bin"))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("ftp://proxy:21", "'ftp'; known are http, https, socks5, socks5h"),
        ("socks4://proxy:1080", "'socks4'"),
        ("http://", "is no proxy's address"),
        ("proxy:port", "is no proxy's address"),
        ("http://proxy:0", "is no proxy's address"),
    ],
)
def test_what_is_no_proxy_is_refused_in_words(value: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"HTTPS_PROXY.*{said}") as refused:
        Proxies.from_env({"HTTPS_PROXY": value})
    assert "HTTPS_PROXY=http://HOST:PORT or socks5://HOST:PORT" in refused.value.hint


@pytest.mark.parametrize(
    ("url", "bypass", "direct"),
    [
        ("http://localhost:8000/x", "localhost", True),
        ("http://localhost:8000/x", "localhost:8000", True),
        ("http://localhost:8000/x", "localhost:9000", False),
        ("https://a.corp.example/x", ".corp.example", True),
        ("https://a.corp.example/x", "x, corp.example", True),
        ("https://evilcorp.example/x", "corp.example", False),
        ("https://HUB.example/x", "*", True),
        ("https://HUB.example/x", "hub.EXAMPLE", True),
        ("https://hub.example/x", "", False),
        ("https://hub.example/x", "hub.example:443", True),
        ("https://hub.example/x", "hub.example:8443", False),
        ("https://a.hub.example:8443/x", ".hub.example:8443", True),
        ("https://a.hub.example/x", "*.hub.example", True),
        ("http://10.1.2.3:8080/x", "192.168.0.0/16,10.0.0.0/8", True),
        ("http://10.1.2.3/x", "10.1.2.9/8", True),
        ("http://11.1.2.3/x", "10.0.0.0/8", False),
        ("http://hub.example/x", "10.0.0.0/8", False),
        ("http://10.1.2.3/x", "10.0.0.0/99", False),
        ("http://[fd00::5]/x", "fd00::/8", True),
        ("http://[::1]:80/x", "::1", True),
        ("http://[::1]/x", "[::1]:80", True),
        ("http://[::1]:81/x", "[::1]:80", False),
        ("http://[::1]:81/x", ":::,", False),
    ],
)
def test_no_proxy(url: str, bypass: str, direct: bool) -> None:
    proxies = Proxies.from_env({"ALL_PROXY": "proxy:3128", "NO_PROXY": bypass})
    assert (proxies.of(url) is None) is direct


def test_lower_case_wins_and_the_scheme_s_own_over_all() -> None:
    env = {"HTTP_PROXY": "upper", "http_proxy": "lower", "ALL_PROXY": "all", "HTTPS_PROXY": " "}
    proxies = Proxies.from_env(env)
    assert {name: (proxy.url, proxy.variable) for name, proxy in proxies.by_scheme.items()} == {
        "http": ("http://lower", "http_proxy"), "https": ("http://all", "ALL_PROXY"),
    }  # fmt: skip


def test_uv_goes_through_it_and_names_it_when_it_is_dead(
    hub: HubServer, tmp_path: Path, socks: SocksServer, dead: str
) -> None:
    wheel = build_wheel(tmp_path / "wheels", "tiny", "1.0", {"tiny.py": b""})
    hub.packages[wheel.name] = wheel.read_bytes()
    spec = LocalSpec("tiny", locked(wheel, "tiny", "1.0"), "tiny")

    def manager(name: str, **variables: str) -> EnvironmentManager:
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "UV_CACHE_DIR": str(tmp_path / f"{name}-cache"),
               "UV_DEFAULT_INDEX": f"{INTERNAL}/simple", "UV_HTTP_RETRIES": "0", **variables}  # fmt: skip
        return EnvironmentManager(tmp_path / name, UvSettings(), env=env, specs={"tiny": spec})

    assert manager("alive", ALL_PROXY=url_of(socks, "socks5h")).ensure("tiny").exists()
    assert ("hub.internal", 80) in socks.asked
    with pytest.raises(EnvironmentSetupError) as said:
        manager("gone", ALL_PROXY=f"http://me:pr0xy-p4ss@{dead}").ensure("tiny")
    assert f"the proxy http://{dead} (" in said.value.message
    assert "pr0xy" not in str(said.value)
