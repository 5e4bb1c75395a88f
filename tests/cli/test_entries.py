"""The gateway's flags in yibu.yaml: taken as after ``--``, or refused with the line to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from yibu.config import Config
from yibu.config import file as config_file
from yibu.errors import ConfigError
from yibu.management.entries import Chosen, TypedOptions, choose
from yibu.node.machine import hardware
from yibu.planner.types import Gpu


def load(text: str, tmp_path: Path, **flags: object) -> Config:
    path = tmp_path / "yibu.yaml"
    path.write_text(text, encoding="utf-8")
    return config_file.load(path, env={"KEY": "sk-of-the-file"}, flags=flags)


def chosen(text: str, tmp_path: Path, **typed: Any) -> Chosen:
    return choose((), load(text, tmp_path), tmp_path, TypedOptions(**typed))


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "gpus", lambda: (Gpu(3, "x", 1, 1, uuid="GPU-1a2b"),))


WHOLE = """
models:
  - name: r1
    source: /weights
    engine: vllm
    flags: [--served-model-name, r1, gpt, --model, /weights, --host, 0.0.0.0, --port, "8102",
            --api-key, "${env.KEY}", --max-num-seqs, "64"]
    env: {CUDA_VISIBLE_DEVICES: "2,0", NCCL_DEBUG: INFO}
"""


def test_everything_goes_where_it_belongs(tmp_path: Path) -> None:
    found = chosen(WHOLE, tmp_path)
    config, notes = found.config, found.notes
    gateway = config.gateway
    assert (gateway.host, gateway.port, gateway.api_keys) == ("0.0.0.0", 8102, ("sk-of-the-file",))
    assert config.origins["gateway.port"] == config.origins["gateway.api_keys"] == "file"
    (model,) = found.models
    assert (model.names, model.source, model.gpus) == (("r1", "gpt"), "/weights", (2, 0))
    assert model.flags == ("--max-num-seqs", "64")
    assert dict(model.env) == {"NCCL_DEBUG": "INFO"}
    said = "\n".join(notes)
    assert "r1: --port 8102: the gateway listens there" in said
    assert "sk-of" not in said


def test_options_are_read_like_flags(tmp_path: Path) -> None:
    text = """
models:
  - name: a
    source: /w
    options: {port: 8102, api-key: "${env.KEY}", served_model_name: [b, c], max_num_seqs: 4}
    env: {VLLM_API_KEY: another-key, CUDA_VISIBLE_DEVICES: ""}
"""
    found = chosen(text, tmp_path)
    (model,) = found.models
    assert (model.aliases, model.gpus, model.options) == (("b", "c"), (), {"max_num_seqs": 4})
    assert found.config.gateway.port == 8102
    assert set(found.config.gateway.api_keys) >= {"another-key"}


def test_lora_modules_become_names_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    text = """
models:
  - name: a
    source: /w
    aliases: [sql]
    flags: [--enable-lora, --lora-modules, sql=/adapters/sql, here=here]
    options: {lora: {hub: "hf:org/one"}}
"""
    found = chosen(text, tmp_path)
    (model,) = found.models
    here = str(tmp_path / "here")
    assert model.options["lora"] == {"hub": "hf:org/one", "sql": "/adapters/sql", "here": here}
    assert model.names == ("a", "hub", "sql", "here")
    assert model.flags == ("--enable-lora",)
    assert any("'sql', 'here'" in note for note in found.notes)
    twins = text + "  - {name: here, source: /other}"
    with pytest.raises(ConfigError, match="both claim the name 'here'"):
        chosen(twins, tmp_path)
    with pytest.raises(ConfigError, match="name=path was expected"):
        chosen("models: [{name: a, source: /w, flags: [--lora-modules, x]}]", tmp_path)


def test_what_was_typed_wins(tmp_path: Path) -> None:
    config = chosen(WHOLE, tmp_path, port=1, host="127.0.0.1").config
    assert (config.gateway.host, config.gateway.port) == ("127.0.0.1", 1)
    assert config.origins["gateway.port"] == "flag"


def test_a_command_keeps_its_flags(tmp_path: Path) -> None:
    text = "models: [{name: a, engine: command, options: {command: x}, flags: [--port, '1']}]"
    found = chosen(text, tmp_path)
    assert found.models[0].flags == ("--port", "1")
    assert (found.config.gateway.port, found.notes) == (8000, ())


@pytest.mark.usefixtures("one_gpu")
@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("gateway: {port: 9}\nmodels: [{name: a, source: /a, flags: [--port, '8']}]",
         "gateway.port is 9, and the flags of a say --port 8", "gateway: {port: 8}"),
        (("models: [{name: a, source: /a, flags: [--port=8]}, {name: b, source: /b,"
         " flags: [--port=7]}]"), "a --port 8, b --port 7", "gateway: {port: 8}"),
        ("models: [{name: a, source: /a, flags: [--model, /b]}]",
         "has the source /a, and its flags say --model /b", "source: /b"),
        ("models: [{name: a, source: /a, gpus: [0], env: {CUDA_VISIBLE_DEVICES: '1'}}]",
         "gpus: [0], and its env CUDA_VISIBLE_DEVICES=1", "gpus: [1]"),
        ("models: [{name: a, source: /a, env: {CUDA_VISIBLE_DEVICES: GPU-9}}]",
         "names no GPU of this machine", "gpus: [0]"),
        (("models: [{name: a, source: /a}, {name: b, source: /b, flags:"
         " [--served-model-name, b, a]}]"), "a and b both claim the name 'a'", "aliases"),
        ("models: [{name: a, source: /a, flags: [--port]}]", "'a': the flag --port lacks its value", ""),
    ],
)  # fmt: skip
def test_contradictions_are_refused(text: str, message: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        chosen(text, tmp_path)
    assert message in refused.value.message
    assert hint in refused.value.hint


@pytest.mark.usefixtures("one_gpu")
def test_gpus_by_uuid(tmp_path: Path) -> None:
    text = "models: [{name: a, source: /a, env: {CUDA_VISIBLE_DEVICES: GPU-1a}}]"
    found = chosen(text, tmp_path)
    assert found.models[0].gpus == (3,)
    assert found.models[0].env == {}


def test_a_relative_vad_begins_where_the_file_is(tmp_path: Path) -> None:
    """The node, which runs elsewhere, gets whole paths."""
    for name in ("models/sense", "models/vad"):
        (tmp_path / name).mkdir(parents=True)
    text = "models: [{name: a, source: ./models/sense, options: {vad: %s}}]"
    elsewhere = tmp_path / "models"
    for written, expected in (
        ("./models/vad", str(tmp_path / "models/vad")),
        ("modelscope:iic/vad", "modelscope:iic/vad"),
    ):
        [model] = choose([], load(text % written, tmp_path), elsewhere).models
        assert model.options["vad"] == expected
