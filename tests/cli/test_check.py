"""`yibu config check` says what `yibu up` would refuse, and all of it at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from yibu.cli import exits
from yibu.cli.main import run
from yibu.config import Config, ModelConfig
from yibu.errors import UsageError
from yibu.management.entries import TypedOptions, choose


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and an empty working directory for every test."""
    for name in list(os.environ):
        if name.startswith("YIBU_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("YIBU_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


REFUSED = [
    ("options: {contxt: 5}, source: a/b, engine: llama.cpp", "Did you mean 'context'?"),
    ("options: {context: many}, source: a/b, engine: llama.cpp", "option 'context'"),
    ("options: {port: 80}, source: 'a/b#c.gguf'", "found 'port'|gateway.port|--port"),
    ("flags: [--no-such-flag], source: a/b, engine: vllm", "has no flag --no-such-flag"),
    ("flags: [--dtype, fp99], source: a/b, engine: vllm", "--dtype cannot be 'fp99'"),
    ("options: {precision: fp99}, source: a/b, engine: speech", "option 'precision'"),
    ("options: {comand: x}, engine: command", "needs options.command"),
    ("options: {}, engine: command", "→ options: {command: "),
    ("options: {command: x}, engine: command", "has no {port}"),
    ("options: {command: 'x {port}', ready: health}, engine: command", "begins with '/'"),
    ("options: {command: 'x \"{port}'}, engine: command", "No closing quotation"),
    ("engine: llama.cpp", "the entry has no source"),
    ("source: ./nothing-here", "there is nothing at"),
    ("source: 'https://example.com/x'", "is not a source"),
    ("source: a/b, flags: [words]", "begin with 'words'"),
    ("source: a/b, options: {vad: nonsense}, engine: speech", "'nonsense' is not a source"),
    ("source: 'x#a.gguf', options: {contxt: 5}", "is not a source"),
    ("source: 'a/x#a.gguf', options: {contxt: 5}", "Did you mean 'context'?"),
]


@pytest.mark.parametrize(("entry", "said"), REFUSED)
def test_what_up_would_refuse_is_found_by_check(
    entry: str, said: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "yibu.yaml").write_text(f"models: [{{name: m, {entry}}}]")
    code = run(["config", "check"])
    checked = capsys.readouterr().err
    if "|" in said:  # taken out, or refused: either way it is said
        assert any(word in checked for word in said.split("|"))
        return
    assert code != exits.DONE
    assert said in checked
    if "nothing-here" not in entry and "no source" not in said:  # those two the node finds
        assert run(["up", "-d"]) == code
        assert said in capsys.readouterr().err


def test_every_fault_is_said_at_once(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = (
        "{name: a, source: nonsense}",
        "{name: b, source: a/b, engine: llama.cpp, options: {contxt: 5}}",
        "{name: c, engine: command, options: {command: x}}",
    )
    (work / "yibu.yaml").write_text(f"gateway: {{host: 0.0.0.0}}\nmodels: [{', '.join(entries)}]")
    assert run(["config", "check"]) == exits.USAGE
    said = capsys.readouterr().err
    for part in ("4 faults", "'nonsense'", "'context'", "no {port}", "no API key is set"):
        assert part in said


@pytest.mark.parametrize(
    ("gateway", "said"),
    [
        ("host: 0.0.0.0", "no API key is set"),
        ("api_keys: [short]", "API key number 1 cannot be used"),
        ("api_keys: ['${env.EMPTY}']", "API key number 1 cannot be used"),  # not: open to all
        ("api_key_file: nothing", "cannot be read"),
        ("api_key_file: open.keys", "expected 0600"),
    ],
)
def test_the_gateway_is_checked(
    gateway: str,
    said: str,
    work: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EMPTY", "")
    (work / "open.keys").write_text("a-key-of-mine\n")
    (work / "open.keys").chmod(0o644)
    (work / "yibu.yaml").write_text(f"gateway: {{{gateway}}}")
    assert run(["config", "check"]) == exits.USAGE
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["", "# nothing", "{}", "~", "gateway: {port: 0}", "models: []", "models:"]
)
def test_a_file_without_models_is_refused_alike(
    text: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "yibu.yaml").write_text(text)
    said = []
    for words in (["config", "check"], ["up", "-d"], ["service", "install", "--print"]):
        assert run(words) == exits.USAGE
        said.append(capsys.readouterr().err)
    assert said == [said[0]] * 3
    assert str(work / "yibu.yaml") in said[0]


def test_two_sources_do_not_share_a_derived_name(work: Path) -> None:
    for folder in "ab":
        (work / folder).mkdir()
        (work / folder / "千问.gguf").touch()
    named = Config(models=(ModelConfig("千问", source="./b/千问.gguf"),))
    (one,) = choose(["./a/千问.gguf"], Config(), work).models
    assert (one.name, one.name_derived) == ("千问", True)
    assert len(choose(["./a/千问.gguf"] * 2, Config(), work).models) == 1
    for wanted, config in (
        (["./a/千问.gguf", "./b/千问.gguf"], Config()),
        (["./a/千问.gguf"], named),
    ):
        with pytest.raises(UsageError, match="would be named 千问"):
            choose(wanted, config, work)
    (other,) = choose(["./a/千问.gguf"], named, work, TypedOptions(name="甲")).models
    assert (other.name, other.name_derived) == ("甲", False)
    with pytest.raises(UsageError, match="cannot be used"):
        choose(["./a/千问.gguf"], Config(), work, TypedOptions(name="a b"))
