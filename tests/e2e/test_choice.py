"""What the commands say of a choice that they made: a quantization, or a path over a hub's name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.home import Home
from tests.fakes.hub_server import HubServer
from tests.planner.planner_files import LLAMA, gguf_bytes

REPO = "org/Tiny-GGUF"


def gguf(size: int) -> bytes:
    return gguf_bytes(LLAMA, [("w", (size // 4,), 0, 0)]) + bytes(size)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with HubServer() as hub:
        hub.repos[REPO] = {
            "Tiny-Q8_0.gguf": gguf(80_000),
            "Tiny-Q4_K_M.gguf": gguf(40_000),
            "mmproj-F16.gguf": gguf(4000),
        }
        settings = {
            "HF_ENDPOINT": hub.url, "MODELSCOPE_ENDPOINT": hub.url, "NO_PROXY": "*",
            "UV_DEFAULT_INDEX": f"{hub.url}/simple", "PIP_CONFIG_FILE": "/dev/null",
            "UV_CACHE_DIR": str(tmp_path / "uv"),
        }  # fmt: skip
        with Home(tmp_path, settings=settings) as home:
            yield home
        assert hub.bodies("Q8_0.gguf") == 0


@pytest.mark.parametrize("scheme", ["hf", "modelscope"])
def test_a_quantization_is_chosen_and_told(home: Home, scheme: str) -> None:
    source = f"{scheme}:{REPO}"
    said = "Q4_K_M (0 MB) is taken, the usual one, and it fits here; there are also Q8_0"
    planned = home.yibu("plan", source)
    assert said in planned.stdout
    pulled = home.yibu("pull", source)
    assert said in pulled.stderr
    assert pulled.stdout.strip().endswith("Tiny-Q4_K_M.gguf")
    # Where YIBU_HOME moves it, with its projector beside it.
    path = Path(pulled.stdout.strip())
    assert path.is_relative_to(home.root / "hub")
    assert path.with_name("mmproj-F16.gguf").exists()
    assert "--mmproj" in home.yibu("plan", source, "--json").stdout


def test_none_that_fits_is_refused_before_a_byte(home: Home) -> None:
    machine = home.root / "small.yaml"
    machine.write_text("cores: 1\nmemory: 64MiB\n")
    done = home.yibu("plan", f"hf:{REPO}", "--machine", str(machine), code=3)
    assert "none of its quantizations fits" in done.stderr
    assert "Q4_K_M (0 MB), Q8_0 (0 MB)" in done.stderr


def test_a_path_that_exists_is_a_path(home: Home) -> None:
    folder = home.root / REPO
    folder.mkdir(parents=True)
    (folder / "mine.gguf").write_bytes(gguf(1000))
    done = home.yibu("plan", REPO)
    assert f"{folder} is meant, because it exists; the model is modelscope:" in done.stderr
    for spelled in (f"{REPO}/mine.gguf", f"./{REPO}", f"{REPO}/", str(folder)):
        assert "fits" in home.yibu("plan", spelled).stdout
