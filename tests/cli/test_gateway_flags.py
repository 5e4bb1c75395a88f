"""Flags after ``--`` that are about the gateway, lifted out of the engine's."""

from __future__ import annotations

from pathlib import Path

import pytest

from yibu.cli.gateway_flags import GatewayFlags, split_flags
from yibu.cli.selection import Overrides
from yibu.config import Config, GatewayConfig
from yibu.errors import ConfigError, UsageError

FLAGS = (
    "--served-model-name", "r1", "other", "--api-key", "sk-one-key", "--host", "0.0.0.0",
    "--port=8001", "--max-num-seqs", "64", "--disable-log-requests",
)  # fmt: skip


def lifted(*flags: str, models: tuple[str, ...] = ("ORG/NAME",), **given: object) -> GatewayFlags:
    overrides = Overrides(flags=flags, engine="vllm", name=given.pop("name", None))  # type: ignore[arg-type]
    values = {"host": None, "port": None, "directory": Path("/"), **given}
    return split_flags(models, overrides, **values)  # type: ignore[arg-type]


def test_the_door_is_lifted_and_the_rest_stays() -> None:
    typed = lifted(*FLAGS)
    assert typed.overrides.flags == ("--max-num-seqs", "64", "--disable-log-requests")
    assert (typed.host, typed.port, typed.overrides.name) == ("0.0.0.0", 8001, "r1")
    assert typed.api_keys == ("sk-one-key",)
    assert not any("sk-one-key" in note for note in typed.notes)
    assert "sk-one-key" not in repr(typed)
    assert any("every user of the machine can read it" in note for note in typed.notes)
    assert typed.overrides.aliases == ("other",)
    assert any("'r1', 'other'" in note for note in typed.notes)


def test_yibus_own_flags_win() -> None:
    typed = lifted(*FLAGS, host="127.0.0.1", port=1, name="mine")
    assert (typed.host, typed.port, typed.overrides.name) == ("127.0.0.1", 1, "mine")
    assert typed.overrides.aliases == ("r1", "other")
    assert not any("--port" in note or "--host" in note for note in typed.notes)


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
    with pytest.raises(ConfigError, match="which takes a value, has none"):
        lifted("--model")


def test_a_command_keeps_its_flags() -> None:
    typed = split_flags(["x"], Overrides(flags=FLAGS, engine="command"), None, None, Path("/"))
    assert typed.overrides.flags == FLAGS
    assert typed.port is None
