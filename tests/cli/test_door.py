"""Flags after ``--`` that are about the gateway, lifted out of the engine's."""

from __future__ import annotations

from pathlib import Path

import pytest

from yibu.cli.door import Door, lift
from yibu.cli.selection import Overrides
from yibu.config import Config, GatewayConfig
from yibu.errors import ConfigError, UsageError

FLAGS = (
    "--served-model-name", "r1", "other", "--api-key", "sk-one-key", "--host", "0.0.0.0",
    "--port=8001", "--max-num-seqs", "64", "--disable-log-requests",
)  # fmt: skip


def lifted(*flags: str, models: tuple[str, ...] = ("ORG/NAME",), **given: object) -> Door:
    overrides = Overrides(flags=flags, engine="vllm", name=given.pop("name", None))  # type: ignore[arg-type]
    values = {"host": None, "port": None, "directory": Path("/"), **given}
    return lift(models, overrides, **values)  # type: ignore[arg-type]


def test_the_door_is_lifted_and_the_rest_stays() -> None:
    door = lifted(*FLAGS)
    assert door.overrides.flags == ("--max-num-seqs", "64", "--disable-log-requests")
    assert (door.host, door.port, door.overrides.name) == ("0.0.0.0", 8001, "r1")
    assert door.api_keys == ("sk-one-key",)
    assert not any("sk-one-key" in note for note in door.notes)
    assert "sk-one-key" not in repr(door)
    assert any("every user of the machine can read it" in note for note in door.notes)
    assert door.overrides.aliases == ("other",)
    assert any("'r1', 'other'" in note for note in door.notes)


def test_yibus_own_flags_win() -> None:
    door = lifted(*FLAGS, host="127.0.0.1", port=1, name="mine")
    assert (door.host, door.port, door.overrides.name) == ("127.0.0.1", 1, "mine")
    assert door.overrides.aliases == ("r1", "other")
    assert not any("--port" in note or "--host" in note for note in door.notes)


def test_keys_are_added_to_those_of_the_file() -> None:
    config = Config(gateway=GatewayConfig(api_keys=("of-the-file",)))
    assert lifted().lay_over(config) is config
    laid = lifted("--api-key", "sk-one-key").lay_over(config)
    assert laid.gateway.api_keys == ("of-the-file", "sk-one-key")
    assert laid.origins["gateway.api_keys"] == "flag"
    assert lifted("--seed", "1").notes == ()


def test_the_model_may_stand_among_the_flags(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    assert lifted("--model", "ORG/NAME", models=()).models == ("ORG/NAME",)
    assert lifted("--model", "weights", models=(), directory=tmp_path).models == ("./weights",)
    assert lifted("--model", "ORG/NAME").models == ("ORG/NAME",)
    with pytest.raises(UsageError, match="--model ORG/OTHER"):
        lifted("--model", "ORG/OTHER")
    with pytest.raises(ConfigError, match="lacks its value"):
        lifted("--model")


def test_a_command_keeps_its_flags() -> None:
    door = lift(["x"], Overrides(flags=FLAGS, engine="command"), None, None, Path("/"))
    assert door.overrides.flags == FLAGS
    assert door.port is None
