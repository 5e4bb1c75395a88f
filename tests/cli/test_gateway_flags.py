"""Flags after ``--`` that are about the gateway, lifted out of the engine's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from yibu.config import Config, GatewayConfig, ModelConfig
from yibu.errors import ConfigError, UsageError
from yibu.management.entries import Chosen, TypedOptions, choose

SHOWN = {"CUDA_VISIBLE_DEVICES": "1"}
FLAGS = (
    "--served-model-name", "r1", "other", "--api-key", "sk-one-key", "--host", "0.0.0.0",
    "--port=8001", "--max-num-seqs", "64", "--disable-log-requests",
)  # fmt: skip


def typed(*flags: str, models: Sequence[str] = ("ORG/NAME",), **given: Any) -> Chosen:
    given = {"config": Config(), "directory": Path("/"), "engine": "vllm", **given}
    config, directory = given.pop("config"), given.pop("directory")
    return choose(models, config, directory, TypedOptions(flags=flags, **given))


def test_the_gateways_are_lifted_and_the_rest_stays() -> None:
    found = typed(*FLAGS)
    (model,) = found.models
    assert model.flags == ("--max-num-seqs", "64", "--disable-log-requests")
    gateway = found.config.gateway
    assert (gateway.host, gateway.port, gateway.api_keys) == ("0.0.0.0", 8001, ("sk-one-key",))
    assert found.config.origins["gateway.port"] == "flag"
    assert (model.name, model.aliases) == ("r1", ("other",))
    assert not any("sk-one-key" in note for note in found.notes)
    assert "sk-one-key" not in repr(found)
    assert any("every user of the machine can read it" in note for note in found.notes)
    assert any("'r1', 'other'" in note for note in found.notes)


def test_yibus_own_flags_win() -> None:
    found = typed(*FLAGS, host="127.0.0.1", port=1, name="mine")
    (model,) = found.models
    assert (found.config.gateway.host, found.config.gateway.port) == ("127.0.0.1", 1)
    assert (model.name, model.aliases) == ("mine", ("r1", "other"))
    assert not any("--port" in note or "--host" in note for note in found.notes)


def test_keys_are_added_to_those_of_the_file() -> None:
    config = Config(gateway=GatewayConfig(api_keys=("of-the-file",)))
    assert typed(config=config).config is config
    found = typed("--api-key", "sk-one-key", config=config).config
    assert found.gateway.api_keys == ("of-the-file", "sk-one-key")
    assert found.origins["gateway.api_keys"] == "flag"
    assert typed("--seed", "1").notes == ()


def test_the_model_may_stand_among_the_flags(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()

    def source(*flags: str, **given: Any) -> str:
        return typed(*flags, **given).models[0].source

    assert source("--model", "ORG/NAME", models=()) == "modelscope:ORG/NAME"
    weights = str(tmp_path / "weights")
    assert source("--model", "weights", models=(), directory=tmp_path) == weights
    assert source("--model", "ORG/NAME") == "modelscope:ORG/NAME"
    with pytest.raises(UsageError, match="--model ORG/OTHER"):
        typed("--model", "ORG/OTHER")
    with pytest.raises(ConfigError, match="lacks its value"):
        typed("--model")


@pytest.mark.parametrize("by_name", [True, False])
def test_a_command_keeps_its_flags(by_name: bool) -> None:
    command = ModelConfig("x", engine="command", options={"command": "y {port}"}, env=SHOWN)
    config = Config(models=(command,))
    given = {"models": ["x"] if by_name else (), "engine": None, "config": config}
    found = typed(*FLAGS, **given)
    (model,) = found.models
    assert (model.flags, model.env, model.gpus) == (FLAGS, SHOWN, None)
    assert (found.config.gateway.port, found.notes) == (8000, ())
