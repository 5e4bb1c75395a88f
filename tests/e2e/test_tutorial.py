"""The tutorial's whole way by its model's own name: ModelScope, vLLM, a chat, in one command.

The hub is ours and speaks ModelScope's protocol to its real SDK; the weights are random, of the
class that the tutorial's model is of. All else is real.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.e2e.home import Home
from tests.e2e.vllm_models import VllmModels
from tests.fakes.hub_server import HubServer

pytestmark = [pytest.mark.engine, pytest.mark.vllm, pytest.mark.timeout(900)]

MODEL = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
_START = 300.0


@pytest.fixture
def hub(engine_cache: Path) -> Iterator[HubServer]:
    models = VllmModels.of(engine_cache)
    files = {path.name: path.read_bytes() for path in models.qwen2().iterdir()}
    with HubServer() as server:
        server.repos[MODEL] = files
        yield server


@pytest.fixture
def tutorial_home(tmp_path: Path, engine_cache: Path, hub: HubServer) -> Iterator[Home]:
    """Engines out of the cache, models of its own."""
    settings = {
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "MODELSCOPE_CACHE": str(tmp_path / "modelscope"),
        "MODELSCOPE_ENDPOINT": hub.url,
        "NO_PROXY": "*",
    }
    with Home(tmp_path, engine_cache, settings) as home:
        yield home


def test_one_command_by_the_models_name(tutorial_home: Home, hub: HubServer) -> None:
    planned = tutorial_home.yibu("plan", MODEL)
    assert "fits" in planned.stdout
    weights = len(hub.repos[MODEL]["model.safetensors"])
    assert hub.bodies("model.safetensors") < weights, "a plan needs the headers alone"

    done = tutorial_home.yibu("up", MODEL, "-d", "--port", "0", timeout=_START)
    assert re.search(r"--reasoning-parser deepseek_r1: a DeepSeek-R1 distill", done.stderr)
    name = tutorial_home.ps()["models"][0]["name"]
    with openai.OpenAI(base_url=f"{tutorial_home.url()}/v1", api_key="-", max_retries=0) as client:
        assert name in {model.id for model in client.models.list()}
        answer = client.chat.completions.create(
            model=name, max_tokens=16, messages=[{"role": "user", "content": "Who are you?"}]
        )
    # Such a model thinks until it says </think>, which random weights never do: all sixteen
    # tokens are thoughts, and none of them stands in the answer.
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16
    assert not answer.choices[0].message.content
    assert answer.choices[0].message.model_extra is not None
    assert answer.choices[0].message.model_extra["reasoning"]

    before = hub.bodies("model.safetensors")
    assert before >= weights
    tutorial_home.yibu("down")
    directory = Path(tutorial_home.yibu("pull", MODEL).stdout.strip())
    assert (directory / "model.safetensors").stat().st_size == weights
    assert hub.bodies("model.safetensors") == before, "what is on disk is not fetched again"
