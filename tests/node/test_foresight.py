"""A model that is still downloaded is planned with the others: its headers come first."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.hub_server import HubServer
from tests.node.support import fake_model, fake_pull, placing
from yibu.config import ModelConfig
from yibu.errors import HubError
from yibu.hub.types import LocalModel, ProgressCallback
from yibu.management.context import Context
from yibu.management.deployer import deployer
from yibu.node.fleet.fleet import Fleet
from yibu.node.machine import hardware
from yibu.paths import Paths
from yibu.planner.ledger import Beside, Coming, Reservation
from yibu.planner.types import MemoryNeed, ModelFacts, Placement

MakeFleet = Callable[..., Fleet]
GIB = 1024**3
LARGE = ModelFacts("safetensors", "LlamaForCausalLM", 40 * GIB)
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
    "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 4, "vocab_size": 128, "max_position_embeddings": 2048,
    "torch_dtype": "bfloat16",
}  # fmt: skip


def safetensors(rows: int) -> bytes:
    """One matrix of zeros, a megabyte and more."""
    header = json.dumps({"w": {"dtype": "BF16", "shape": [rows, 1024],
                               "data_offsets": [0, rows * 2048]}}).encode()  # fmt: skip
    return len(header).to_bytes(8, "little") + header + bytes(rows * 2048)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        files = {"config.json": json.dumps(CONFIG).encode()}
        server.repos["org/small"] = {**files, "model.safetensors": safetensors(1000)}
        server.repos["iic/SenseVoiceSmall"] = {"config.yaml": b"model: SenseVoiceSmall",
                                               "model.pt": bytes(5000)}  # fmt: skip
        yield server


def environment(hub: HubServer, paths: Paths, tmp_path: Path) -> dict[str, str]:
    return {
        "HF_ENDPOINT": hub.url, "MODELSCOPE_ENDPOINT": hub.url, "NO_PROXY": "*",
        "HF_HUB_CACHE": str(tmp_path / "hf"), "MODELSCOPE_CACHE": str(tmp_path / "ms"),
    }  # fmt: skip


def test_headers_say_what_a_model_needs(hub: HubServer, paths: Paths, tmp_path: Path) -> None:
    real = deployer(Context(environment(hub, paths, tmp_path), paths, tmp_path))
    facts = real.foresee("hf:org/small")
    assert facts is not None
    assert (facts.weight_bytes, facts.layers, facts.estimated) == (2_048_000, 2, False)
    assert hub.bodies("model.safetensors") < 200_000  # its weights were not fetched
    speech = real.foresee("modelscope:iic/SenseVoiceSmall")
    assert speech is not None
    assert (speech.format, speech.weight_bytes) == ("sensevoice", 5000)
    real.pull("hf:org/small", lambda _progress: None)
    assert real.foresee("hf:org/small") is None  # its files are read instead
    with pytest.raises(HubError):
        real.foresee("hf:org/nothing")


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, (False, False)),
        ({"chat_template.jinja": b"{{ messages }}"}, (True, False)),
        ({"chat_template.jinja": b"{{ tools }}"}, (True, True)),
        ({"tokenizer_config.json": b'{"chat_template": "{{ tools }}"}'}, (True, True)),
        ({"tokenizer_config.json": b"{}"}, (False, False)),
    ],
)
def test_headers_say_what_its_chat_template_takes(
    hub: HubServer, paths: Paths, tmp_path: Path, files: dict[str, bytes], found: tuple[bool, bool]
) -> None:
    hub.repos["org/small"] |= files
    facts = deployer(Context(environment(hub, paths, tmp_path), paths, tmp_path)).foresee(
        "hf:org/small"
    )
    assert facts is not None
    assert (facts.chat_template, facts.template_takes_tools) == found


def test_it_has_its_share_of_cores_and_memory(
    hub: HubServer, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from yibu.planner.types import Machine

    machine = Machine("m", 8, 8, 64 * GIB, 20 * GIB)
    monkeypatch.setattr(hardware, "probe", lambda *_: machine)
    real = deployer(Context(environment(hub, paths, tmp_path), paths, tmp_path))
    facts = real.foresee("hf:org/small")
    config = ModelConfig(name="a", source="hf:org/small")

    def threads(**beside: Any) -> int:
        placement = real.place(real.prepare(config, facts), 0, machine, Beside(**beside)).placement
        assert placement is not None
        return placement.threads

    coming = Coming(replace(config, name="b"), facts)
    assert threads() == 7
    assert threads(coming=(coming,)) == 3
    assert threads(coming=(replace(coming, facts=None),)) == 7  # nothing is known of it
    assert threads(held=(Reservation("b-0", (), GIB),)) == 3
    assert threads(starting=(Reservation("b-0", (), GIB), Reservation("c-0", (), GIB))) == 2
    assert threads(held=(Reservation("b-0", (0,), GIB),)) == 7  # on a GPU


def place_noting(seen: dict[str, Beside]) -> Callable[..., Placement]:
    def place(config: Any, facts: Any, number: int, beside: Beside) -> Placement:
        seen[config.name] = beside
        return Placement((), 1, None, 1, MemoryNeed(1, 1, 1))

    return place


async def test_others_are_placed_with_it_while_it_is_downloaded(make_fleet: MakeFleet) -> None:
    seen: dict[str, Beside] = {}
    asked, answer, arrive = threading.Event(), threading.Event(), threading.Event()

    def foresee(source: str) -> ModelFacts | None:
        if source != "/far":
            return None
        asked.set()
        answer.wait(60)
        return LARGE

    def pull(source: str, progress: ProgressCallback) -> LocalModel:
        if source == "/far":
            arrive.wait(60)
        return fake_pull(source, progress)

    async with make_fleet(place=placing(place_noting(seen)), foresee=foresee, pull=pull) as fleet:
        far = asyncio.create_task(fleet.up(fake_model("far", source="/far")))
        near = asyncio.create_task(fleet.up(fake_model("near", source="/near")))
        assert await asyncio.to_thread(asked.wait, 60)
        assert seen == {}  # what the other needs is not known yet
        answer.set()
        await near
        assert [(c.config.name, c.facts) for c in seen["near"].coming] == [("far", LARGE)]
        assert fleet.route("far").state == "downloading"
        arrive.set()
        await far
        assert seen["far"].coming == ()
        assert [p.replica for p in seen["far"].held] == ["near-0"]


@pytest.mark.parametrize("hub_is", ["down", "silent"])
async def test_a_hub_that_says_nothing_holds_nobody_up(make_fleet: MakeFleet, hub_is: str) -> None:
    seen: dict[str, Beside] = {}
    over = threading.Event()

    def foresee(source: str) -> ModelFacts | None:
        if source == "/far":
            if hub_is == "down":
                raise HubError("no route to the hub")
            over.wait(60)
        return None

    def pull(source: str, progress: ProgressCallback) -> LocalModel:
        if source == "/far":
            over.wait(60)
        return fake_pull(source, progress)

    timings = {"foresight": 0.2}
    placed = placing(place_noting(seen))
    async with make_fleet(place=placed, foresee=foresee, pull=pull, timings=timings) as fleet:
        far = asyncio.create_task(fleet.up(fake_model("far", source="/far")))
        await fleet.up(fake_model("near", source="/near"))
        assert [(c.config.name, c.facts) for c in seen["near"].coming] == [("far", None)]
        over.set()
        await far
