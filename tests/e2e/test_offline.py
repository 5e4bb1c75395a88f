"""`--offline` reaches a node that already runs: the model itself carries it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.home import Home, fake
from tests.fakes.hub_server import HubServer
from tests.planner.planner_files import gguf_bytes

REPO = "org/tiny"


def _tiny() -> bytes:
    """A GGUF file, as far as its header."""
    sizes = {
        "block_count": 1,
        "embedding_length": 64,
        "attention.head_count": 2,
        "context_length": 64,
    }
    return gguf_bytes(
        {"general.architecture": "llama", **{f"llama.{k}": n for k, n in sizes.items()}}
    )


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.repos[REPO] = {"config.json": b"{}", "config.yaml": b"a: b"}
        yield hub


@pytest.fixture
def online(tmp_path: Path, hub: HubServer) -> Iterator[Home]:
    """A home whose node was started with a network, and runs a model already."""
    settings = {
        "HF_ENDPOINT": hub.url, "MODELSCOPE_ENDPOINT": hub.url, "NO_PROXY": "*",
        "UV_DEFAULT_INDEX": f"{hub.url}/simple", "PIP_CONFIG_FILE": "/dev/null",
        "UV_CACHE_DIR": str(tmp_path / "uv"), "YIBU_HOME": str(tmp_path),
    }  # fmt: skip
    with Home(tmp_path, settings=settings) as home:
        home.write([fake("fake")])
        home.yibu("up", "-d")
        yield home


@pytest.mark.parametrize("scheme", ["hf", "modelscope"])
def test_nothing_is_asked_of_a_hub(online: Home, hub: HubServer, scheme: str) -> None:
    done = online.yibu("up", "-d", f"{scheme}:{REPO}", "--offline", code=1)
    assert "only local files are allowed (offline), and nothing of it is here" in done.stderr
    assert hub.requests == []


def test_nor_of_a_package_index(online: Home, hub: HubServer, tmp_path: Path) -> None:
    model = tmp_path / "tiny.gguf"
    model.write_bytes(_tiny())
    done = online.yibu("up", "-d", str(model), "--offline", code=1)
    assert "not all of its packages are in uv's cache, and only local files" in done.stderr
    assert hub.requests == []


def test_the_hubs_own_switch_counts_too(online: Home, hub: HubServer) -> None:
    here = dataclasses.replace(online, settings={**online.settings, "HF_HUB_OFFLINE": "1"})
    assert "(offline)" in here.yibu("up", "-d", f"hf:{REPO}", code=1).stderr
    assert hub.requests == []


def test_without_it_the_same_node_asks(online: Home, hub: HubServer) -> None:
    done = online.yibu("up", "-d", f"hf:{REPO}", code=None)
    assert done.returncode  # no engine serves it
    assert hub.asked(f"/api/models/{REPO}")


@pytest.mark.parametrize("scheme", ["hf", "modelscope"])
def test_what_is_here_whole_is_served_though_its_hub_has_it_no_longer(
    online: Home, hub: HubServer, scheme: str
) -> None:
    hub.repos["org/kept"] = {"tiny.gguf": _tiny()}
    online.write([fake("fake"), fake("kept", source=f"{scheme}:org/kept#tiny.gguf")])
    online.yibu("up", "-d")
    online.yibu("down")
    hub.repos.clear()
    assert "What is here already is used" in online.yibu("up", "-d").stderr
    assert online.model("kept")["state"] == "ready"
    done = online.yibu("pull", f"{scheme}:org/kept#tiny.gguf", code=1)
    assert "org/kept" in done.stderr  # who asks for it himself is told
