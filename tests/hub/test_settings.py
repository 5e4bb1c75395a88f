from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from tests.hub.conftest import Machine
from yibu.errors import ConfigError
from yibu.hub.http import _bypassed
from yibu.hub.index_settings import IndexSettings
from yibu.hub.reachability import check_reachability
from yibu.hub.settings import HubSettings


def test_an_empty_environment(tmp_path: Path) -> None:
    settings = HubSettings.from_env({"HOME": str(tmp_path)})
    assert settings.modelscope_cache == tmp_path / ".cache/modelscope"
    assert settings.hf_cache == tmp_path / ".cache/huggingface/hub"
    assert settings.modelscope_endpoint is None
    assert not settings.offline


def test_the_hubs_own_variables(tmp_path: Path) -> None:
    settings = HubSettings.from_env(
        {
            "HOME": str(tmp_path),
            "MODELSCOPE_CACHE": "~/ms",
            "MODELSCOPE_ENDPOINT": "mirror.example/",
            "MODELSCOPE_API_TOKEN": "ms-secret",
            "HF_HOME": "/data/hf",
            "HF_ENDPOINT": "https://hf-mirror.example/",
            "HF_TOKEN": "hf-secret",
            "https_proxy": "http://me:proxy-secret@proxy:3128",
            "HTTP_PROXY": "proxy:3128",
            "NO_PROXY": "localhost,.corp.example",
        }
    )
    assert settings.modelscope_cache == tmp_path / "ms"
    assert settings.modelscope_endpoint == "https://mirror.example"
    assert settings.hf_cache == Path("/data/hf/hub")
    assert settings.hf_endpoint == "https://hf-mirror.example"
    assert settings.proxies == {
        "https": "http://me:proxy-secret@proxy:3128",
        "http": "http://proxy:3128",
    }
    assert "secret" not in repr(settings)


@pytest.mark.parametrize("name", ["YIBU_OFFLINE", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize(
    ("value", "offline"), [("1", True), ("TRUE", True), ("0", False), ("", False)]
)
def test_offline(name: str, value: str, offline: bool) -> None:
    assert HubSettings.from_env({name: value}).offline is offline


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("YIBU_OFFLINE", "maybe"),
        ("YIBU_DOWNLOAD_CONNECTIONS", "0"),
        ("YIBU_DOWNLOAD_CONNECTIONS", "x"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}.*{value}"):
        HubSettings.from_env({name: value})


@pytest.mark.parametrize(
    ("url", "no_proxy", "bypassed"),
    [
        ("http://localhost:8000/x", "localhost", True),
        ("http://localhost:8000/x", "localhost:8000", True),
        ("http://localhost:8000/x", "localhost:9000", False),
        ("https://a.corp.example/x", ".corp.example", True),
        ("https://a.corp.example/x", "corp.example", True),
        ("https://evilcorp.example/x", "corp.example", False),
        ("https://hub.example/x", "*", True),
        ("https://hub.example/x", "", False),
    ],
)
def test_no_proxy(url: str, no_proxy: str, bypassed: bool) -> None:
    assert _bypassed(url, no_proxy) is bypassed


def test_pips_configuration(tmp_path: Path) -> None:
    config = tmp_path / ".config/pip/pip.conf"
    config.parent.mkdir(parents=True)
    config.write_text(
        "[global]\nindex-url = https://mirror.example/simple\n"
        "extra_index_url = https://one.example/simple\n    https://two.example/simple\n"
        "find-links = /wheels\ncert = /ca.pem\n[download]\nfind-links = /more\n"
    )
    settings = IndexSettings.from_env({"HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path)})
    assert settings.indexes == (
        "https://mirror.example/simple",
        "https://one.example/simple",
        "https://two.example/simple",
    )
    assert settings.find_links == ("/more",)
    assert settings.ca_bundle == "/ca.pem"
    stronger = IndexSettings.from_env(
        {
            "HOME": str(tmp_path),
            "XDG_CONFIG_DIRS": str(tmp_path),
            "PIP_INDEX_URL": "https://env.example/simple",
            "UV_INDEX": "corp=https://uv.example/simple",
        }
    )
    assert stronger.indexes[0] == "https://env.example/simple"
    assert stronger.indexes[-1] == "https://uv.example/simple"


def test_without_an_index(tmp_path: Path) -> None:
    env = {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels"}
    assert IndexSettings.from_env(env) == IndexSettings((), ("/wheels",), None)
    assert IndexSettings.from_env({"PIP_CONFIG_FILE": "/dev/null"}).indexes == (
        "https://pypi.org/simple",
    )


def test_reachability(machine: Machine) -> None:
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    settings = replace(machine.settings, hf_endpoint=f"http://127.0.0.1:{port}")
    modelscope, hf, index = check_reachability(settings)
    assert modelscope.reachable
    assert index.reachable
    assert not hf.reachable
    assert "refused" in hf.detail
