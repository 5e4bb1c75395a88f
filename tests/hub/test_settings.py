from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from tests.hub.conftest import Machine
from yibu.errors import ConfigError
from yibu.hub.reachability import check_reachability
from yibu.hub.settings import HubSettings, IndexSettings, moved_caches


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
    assert {scheme: proxy.url for scheme, proxy in settings.proxies.by_scheme.items()} == {
        "https": "http://me:proxy-secret@proxy:3128",
        "http": "http://proxy:3128",
    }
    assert settings.proxies.bypass == ("localhost", ".corp.example")
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


@pytest.mark.parametrize(
    "kept",
    ["t0k-en.42\n", "t0k-en.42\r\n", "  t0k-en.42\t", "\ufefft0k-en.42", '"t0k-en.42"', "'t0k-en.42'\n",
     "\u201ct0k-en.42\u201d", "Bearer t0k-en.42", "t0k-en.42\0", "\u00a0t0k-en.42\u200b"],
)  # fmt: skip
@pytest.mark.parametrize(
    "place", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MODELSCOPE_API_TOKEN", "file"]
)
def test_a_token_is_taken_as_people_keep_it(tmp_path: Path, kept: str, place: str) -> None:
    env = {"HOME": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null"}
    if place == "file":
        login = tmp_path / ".cache/huggingface/token"
        login.parent.mkdir(parents=True)
        login.write_text(kept, encoding="utf-8")
    else:
        env[place] = kept
    settings = HubSettings.from_env(env)
    token = settings.modelscope_token if place.startswith("MODEL") else settings.hf_token
    assert token == "t0k-en.42"


def test_where_hugging_faces_login_keeps_its_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of-hf-home")
    (tmp_path / "other").write_bytes("of-a-path\r\n".encode("utf-16"))
    env = {"HF_HOME": str(tmp_path), "YIBU_HOME": str(tmp_path / "home")}
    assert HubSettings.from_env(env).hf_token == "of-hf-home"
    env["HF_TOKEN_PATH"] = str(tmp_path / "other")
    assert HubSettings.from_env(env).hf_token == "of-a-path"
    env["HF_TOKEN"] = "of-the-variable"
    assert HubSettings.from_env(env).hf_token == "of-the-variable"


@pytest.mark.parametrize("bad", ["one two", "one\ntwo", "one\x1b[0m", "t\u00f6ken", "one\0two"])
def test_a_token_that_no_header_can_carry_is_refused_unshown(tmp_path: Path, bad: str) -> None:
    with pytest.raises(ConfigError, match=r"HF_TOKEN.*character \d+ of \d+ is U\+") as refused:
        HubSettings.from_env({"HOME": str(tmp_path), "HF_TOKEN": bad})
    assert bad not in str(refused.value)
    (tmp_path / "token").write_text(bad, encoding="utf-8")
    with pytest.raises(ConfigError, match=str(tmp_path / "token")):
        HubSettings.from_env({"HF_HOME": str(tmp_path)})
    (tmp_path / "token").write_bytes(b"\x80\x81")
    with pytest.raises(ConfigError, match="no text"):
        HubSettings.from_env({"HF_HOME": str(tmp_path)})


def test_yibus_home_moves_the_hubs_files_unless_their_own_variables_place_them(
    tmp_path: Path,
) -> None:
    env = {"HOME": "/home/me", "YIBU_HOME": str(tmp_path), "XDG_CACHE_HOME": "/cache"}
    moved = HubSettings.from_env(env)
    assert moved.modelscope_cache == tmp_path / "hub/modelscope"
    assert moved.hf_cache == tmp_path / "hub/huggingface/hub"
    placed = HubSettings.from_env({**env, "MODELSCOPE_CACHE": "/ms", "HF_HUB_CACHE": "/hf"})
    assert (placed.modelscope_cache, placed.hf_cache) == (Path("/ms"), Path("/hf"))
    assert HubSettings.from_env({**env, "HF_HOME": "/data"}).hf_cache == Path("/data/hub")
    # What engines are told, whose SDKs look at their own variables alone.
    assert HubSettings.from_env({**env, **moved_caches(env)}).hf_cache == moved.hf_cache
    assert moved_caches({**env, "HF_HOME": "/data"}) == {
        "MODELSCOPE_CACHE": str(tmp_path / "hub/modelscope")
    }
    assert moved_caches({"HOME": "/home/me"}) == {}
