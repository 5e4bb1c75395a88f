"""The command line's manners: data on stdout, talk on stderr, exit codes, messages."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.main import get_command

from yibu import __version__, errors
from yibu.cli import exits
from yibu.cli.main import app, only, run
from yibu.cli.mistyped import typer_texts
from yibu.config.engines import EngineName
from yibu.config.schema import GatewaySchema


@pytest.fixture(autouse=True)
def own_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty home and an empty working directory for every test."""
    for name in list(os.environ):
        if name.startswith("YIBU_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("YIBU_HOME", str(tmp_path / "home"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == exits.DONE
    assert capsys.readouterr().out == f"yibu {__version__}\n"


def test_every_option_has_a_help_and_engine_names_all() -> None:
    def options(command: Any) -> list[Any]:
        below = getattr(command, "commands", {}).values()
        return [*command.params, *(each for one in below for each in options(one))]

    found = options(get_command(app))
    assert [each.name for each in found if not each.help] == []
    engines = [each.help for each in found if each.name == "engine" and "speech" in each.help]
    assert engines
    for text in engines:
        assert re.findall(r"[a-z.]+[a-z]", text.replace(" or ", ", ")) == list(get_args(EngineName))


def test_a_wrong_number_is_said_of_every_spelling_of_its_option(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def numbers(command: Any, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], list[str]]]:
        below = getattr(command, "commands", {}).items()
        own = [(path, each.opts) for each in command.params if "int" in each.type.name]
        return [*own, *(found for name, one in below for found in numbers(one, (*path, name)))]

    found = [(path, opts) for path, opts in numbers(get_command(app), ()) if opts[0][0] == "-"]
    assert any(len(opts) > 1 for _, opts in found)
    for path, opts in found:
        assert run([*path, opts[0], "x"]) == exits.USAGE
        assert f"Invalid value for {' / '.join(opts)}: 'x'" in capsys.readouterr().err


def test_a_verb_is_the_same_when_it_is_made_alone() -> None:
    def shape(command: Any) -> Any:
        below = getattr(command, "commands", {})
        params = [(type(each), each.name, each.opts, each.default) for each in command.params]
        return (
            command.help,
            command.hidden,
            params,
            {name: shape(each) for name, each in below.items()},
        )

    every = get_command(app)
    assert shape(get_command(only(["nothing"]))) == shape(every)
    assert shape(get_command(only(["--help", "ps"]))) == shape(every)
    verbs = every.commands  # type: ignore[attr-defined]
    assert len(verbs) > 30
    for name, command in verbs.items():
        alone = get_command(only([name, "--help"])).commands  # type: ignore[attr-defined]
        assert {name: shape(command)} == {name: shape(each) for name, each in alone.items()}


@pytest.mark.parametrize(
    "steps",
    [
        [  # each after those before it, which import less
            ("yibu.cli.main", "asyncio concurrent.futures http.client pydantic rich yaml"),
            ("yibu.cli.session", "asyncio concurrent.futures http.client pydantic rich yaml"),
        ],
        [
            ("yibu.management.planning", "asyncio fastapi yibu.node yibu.gateway"),
            ("yibu.cli.takeover", "yibu.gateway.app yibu.gateway.schemas fastapi"),
        ],
        [("yibu.daemon", "fastapi huggingface_hub modelscope_hub requests rich yaml")],
    ],
)
def test_a_verb_imports_only_what_it_needs(steps: list[tuple[str, str]]) -> None:
    code = "".join(
        f"import sys, {module}; print('{module}:', *set({heavy.split()}) & set(sys.modules))\n"
        for module, heavy in steps
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{module}:" for module, _ in steps]


def test_unknown_verb_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["nope"]) == exits.USAGE
    assert run(["ps", "--nope"]) == exits.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "No such command 'nope'" in captured.err
    assert "yibu --help" in captured.err
    assert "yibu ps --help" in captured.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["kill", "smol"], "Did you mean 'down'?"),
        (["start", "smol"], "Did you mean 'up'?"),  # not 'restart', which is spelt more alike
        (["deploy", "Qwen/Qwen3-0.6B"], "Did you mean 'up'?"),
        (["restrat"], "Did you mean 'restart'"),
        (["up", "smol", "--max-model-len", "1024"], "yibu up smol -- --max-model-len …"),
        (["up", "smol", "--dtype=half"], "yibu up smol -- --dtype=half …"),
        (["up", "smol", "--prot", "8001"], "--port"),  # our own, misspelt
        (["plan", "smolm2"], "Did you mean smollm2-135m, of the catalogue?"),
        (["restart"], "yibu restart --help"),
        (["create", "smol"], "Did you mean 'up'?"),  # not 'chat'
        (["version"], "Did you mean '--version'?"),  # not 'verify'
        (["service", "uninstall"], "Did you mean 'service remove'?"),  # not 'install'
        (["key", "create", "me"], "Did you mean 'key add'?"),  # not 'rotate'
        (["up", "--model", "Qwen/Qwen3-0.6B"], "Did you mean 'yibu up MODEL'?"),  # not '--help'
        (["bench", "smol", "--qps", "3"], "Did you mean '--rate'?"),  # not '--slo'
        (["logs", "--tail", "5"], "Did you mean '--lines'?"),
        (["support", "--out", "x"], "Did you mean '--output'?"),
        (["logs", "-f", "--lines"], "yibu logs --help"),
        (["apply", "prod.yaml"], "yibu apply -f prod.yaml"),
        (["config", "check", "./prod.yml"], "yibu config check -f ./prod.yml"),
        (["engine", "install", "vllm", "--wheels", "no-such"], "There is no folder no-such"),
    ],
)
def test_what_was_probably_meant(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == exits.USAGE
    assert said in capsys.readouterr().err


def test_no_verb_is_taken_for_one_that_it_has_little_in_common_with(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for word in ("cp", "signin", "attach", "exec", "nonsense", "registrations"):
        assert run([word]) == exits.USAGE
        assert "Did you mean" not in capsys.readouterr().err


def test_what_others_call_it_leads_to_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Each word of the table is none of ours, and what it leads to is."""
    for path, table in typer_texts()["meant"].items():
        before = path.split()[1:]
        for ours, others in table.items():
            verbs = [] if ours.startswith("-") else ours.removeprefix("yibu ").lower().split()
            assert run([*(verbs or before), "--help"]) == exits.DONE, ours
            assert verbs or ours in capsys.readouterr().out, ours
            for other in others:
                assert run([*before, other]) == exits.USAGE
                assert f"Did you mean {ours!r}?" in capsys.readouterr().err, other


def test_init_writes_a_file_that_check_accepts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init"]) == exits.DONE
    assert run(["config", "check"]) == exits.DONE
    assert "Models: smol." in capsys.readouterr().err
    assert run(["init"]) == exits.USAGE
    assert "yibu init yibu.yaml --force" in capsys.readouterr().err


def test_config_check_names_the_fault(capsys: pytest.CaptureFixture[str]) -> None:
    Path("yibu.yaml").write_text("modles: []")
    assert run(["config", "check"]) == exits.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "did you mean models?" in captured.err


def test_config_show_says_where_a_value_came_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YIBU_PORT", "9123")
    monkeypatch.setenv("YIBU_API_KEYS", "s3cret")
    assert run(["config", "show", "--json"]) == exits.DONE
    out = capsys.readouterr().out
    rows = {row["setting"]: row for row in json.loads(out)["settings"]}
    assert rows["gateway.port"] == {"setting": "gateway.port", "value": 9123, "from": "environment"}
    assert rows["gateway.host"]["from"] == "default"
    assert "s3cret" not in out
    shown = {name.removeprefix("gateway.") for name in rows}
    assert shown == set(GatewaySchema.model_fields) - {"keep"}  # which the models have


def test_config_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "schema"]) == exits.DONE
    assert json.loads(capsys.readouterr().out)["title"] == "yibu.yaml"


@pytest.mark.parametrize("verb", [["ps"], ["ps", "--json"], ["restart", "m"], ["test"], ["down"]])
def test_without_a_node_the_exit_code_is_5(
    verb: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(verb) == exits.NOT_RUNNING
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "yibu up" in captured.err


def test_pull_without_a_model_says_what_to_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pull"]) == exits.USAGE
    assert "--model_id" in capsys.readouterr().err


def test_up_without_anything_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["up"]) == exits.USAGE
    assert "yibu init" in capsys.readouterr().err


def test_flags_for_one_model_with_several_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["up", "a/b", "c/d", "--name", "x"]) == exits.USAGE
    assert run(["up", "a/b", "c/d", "--", "--top-k", "5"]) == exits.USAGE
    assert "belong to one model" in capsys.readouterr().err


def test_an_interrupt_exits_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("yibu.cli.output.data", interrupted)
    assert run(["config", "schema"]) == exits.INTERRUPTED


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.YibuError("x"), 1),
        (errors.HubError("x"), 1),
        (errors.EngineStartError("x"), 1),
        (errors.ConfigError("x"), 2),
        (errors.SourceError("x"), 2),
        (errors.DoesNotFitError("x"), 3),
        (errors.VerificationError("x"), 4),
        (errors.NotRunningError("x"), 5),
    ],
)
def test_exit_codes(error: errors.YibuError, code: int) -> None:
    assert exits.exit_code(error) == code


def test_the_light_verbs_import_nothing_heavy() -> None:
    """fastapi, pydantic and the hubs' SDKs take 0.2 to 0.7 s each: only where they are used."""
    script = (
        "import sys; from yibu.cli.main import run; run(['ps']); "
        "print(','.join(name for name in ('fastapi', 'pydantic', 'aiohttp', 'uvicorn', "
        "'huggingface_hub', 'modelscope_hub', 'yaml', 'requests', 'asyncio', 'rich') "
        "if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("language", ["en", "zh_CN"])
def test_the_reference_is_current(language: str) -> None:
    root = Path(__file__).parents[2]
    script = (
        f"import json; from yibu.messages import use; use({language!r}); from generate_docs import PAGES; "
        "print(json.dumps({name: make() for name, make in PAGES.items()}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=root / "scripts",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    pages = json.loads(done.stdout)
    for name, text in pages.items():
        assert text == (root / "docs" / name).read_text(encoding="utf-8"), f"{name}: make docs"


QWEN3_32B = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 5120,
    "intermediate_size": 25600, "num_hidden_layers": 64, "num_attention_heads": 64,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
    "max_position_embeddings": 40960, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip


def test_hardware_is_sized_from_a_config_alone(capsys: pytest.CaptureFixture[str]) -> None:
    directory = Path("Qwen3-32B")
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(QWEN3_32B))
    assert run(["plan", "./Qwen3-32B", "--machine", "1x80g"]) == exits.DONE
    out = capsys.readouterr().out
    assert "32,762,123,264 × bfloat16, from config.json alone" in out
    assert run(["plan", "./Qwen3-32B", "--machine", "rtx3070-8g"]) == exits.DOES_NOT_FIT
    out = capsys.readouterr().out
    assert "a machine such as 1x80g holds it: `yibu plan --machine 1x80g`" in out
    assert run(["plan", "./Qwen3-32B", "--machine", "rtx370"]) == exits.USAGE
    assert "Did you mean rtx3070-8g, rtx3070" in capsys.readouterr().err
    # Weights only as pickles are no config alone: the refusal says what they are.
    (directory / "pytorch_model.bin").touch()
    assert run(["plan", "./Qwen3-32B", "--machine", "1x80g"]) == exits.FAILED
    assert "weights only as pickles" in capsys.readouterr().err


def test_ctrl_c_while_the_program_is_imported_says_nothing() -> None:
    script = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "yibu.cli.main":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
from yibu.__main__ import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
