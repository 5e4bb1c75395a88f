"""What people type: other names of verbs, the catalogue, and models by their names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from yibu.cli import exits
from yibu.cli.main import run


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YIBU_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def test_the_catalogue_has_sizes_and_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search", "smollm2", "--json"]) == exits.DONE
    (model, *_) = json.loads(capsys.readouterr().out)["models"]
    assert model["size"] == 98_362_432
    assert model["fits"] in ("in memory", "on a GPU", "on the GPUs", "no")
    assert run(["catalogue"]) == exits.DONE
    assert "qwen3-0.6b" in capsys.readouterr().out
    assert run(["search", "no-such-model"]) == exits.USAGE


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["list"], exits.DONE),
        (["status"], exits.NOT_RUNNING),
        (["stop"], exits.NOT_RUNNING),
        (["serve", "--port", "99999"], exits.USAGE),
        (["rm", "smollm2"], exits.FAILED),
        (["show", "smollm2"], exits.USAGE),
    ],
)
def test_what_others_call_our_verbs(words: list[str], code: int) -> None:
    assert run(words) == code


def test_a_directory_called_like_a_catalogue_entry_is_meant(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("smollm2").mkdir()
    assert run(["plan", "smollm2"]) == exits.FAILED
    said = capsys.readouterr().err
    assert (
        f"smollm2: {Path.cwd() / 'smollm2'} is meant, because it exists; the model is pypi:" in said
    )
