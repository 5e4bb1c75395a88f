"""Every verb under every condition that a terminal, a pipe or a disk can bring: never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.commands.forked import CLOSED, ENCODINGS, FULL, GONE, TERMINALS
from yibu.cli import exits
from yibu.cli.main import app

ROOT = Path(__file__).parents[2]
VERBS: dict[str, list[str]] = {
    "up": ["-d", "./nothing.gguf"],
    "down": [],
    "ps": [],
    "logs": ["nothing"],
    "top": [],
    "support": ["--offline", "-n", "10", "-o", "support.tar.gz"],
    "diff": [],
    "apply": ["--yes"],
    "rollback": ["--yes"],
    "load": ["nothing"],
    "unload": ["nothing"],
    "scale": ["nothing", "2"],
    "restart": ["nothing"],
    "test": [],
    "demo": ["--port", "99999"],
    "plan": ["./nothing.gguf"],
    "adopt": ["-c", "vllm serve 千问/千问"],
    "run": ["nothing", "hello"],
    "chat": ["nothing"],
    "transcribe": ["nothing.wav"],
    "bench": ["nothing"],
    "pull": ["smollm2", "--offline"],
    "ls": [],
    "rm": ["smollm2"],
    "verify": [],
    "gc": [],
    "init": ["--print"],
    "search": ["qwen"],
    "show": ["nothing"],
    "export systemd": [],
    "export compose": [],
    "export k8s": [],
    "export grafana": [],
    "docs": ["speech"],
    "config check": [],
    "config show": [],
    "config schema": [],
    "engine ls": [],
    "engine install": ["llama.cpp", "--wheels", "nothing"],
    "engine rm": ["llama.cpp"],
    "doctor": [],
    "usage": [],
    "key add": ["somebody"],
    "key ls": [],
    "key list": [],
    "key show": ["somebody"],
    "key set": ["somebody", "--rpm", "1"],
    "key rotate": ["somebody"],
    "key rm": ["somebody"],
    "node upgrade": [],
    "service install": ["--print"],
    "service status": [],
    "service remove": [],
}
MORE = (["--help"], ["--version"], [], ["nothing"], ["ps", "--json"], ["up", "--help"])
HOMES = {
    "home is a file": "{work}/file",
    "home below a file": "{work}/file/below",
    "home cannot be made": "/proc/nothing/home",
    "home is not known": "~nobody-of-that-name/yibu",
}
SURROUNDINGS = {
    "no HOME": {"HOME": None},
    "HOME is a file": {"HOME": "{work}/file", "YIBU_HOME": None},
    "TMPDIR is none": {"TMPDIR": "/proc/nothing"},
    "no colour": {"NO_COLOR": "1"},
    "locale of nowhere": {"LC_ALL": "xx_YY.GBK"},
}
CONDITIONS = [
    *("as usual", "working directory removed"),
    *CLOSED, *GONE, *FULL, *TERMINALS, *ENCODINGS, *HOMES, *SURROUNDINGS,
]  # fmt: skip


def commands() -> set[str]:
    """Every verb that there is."""
    found = set()
    root = typer.main.get_command(app)
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        if command.hidden:  # another name of a verb
            continue
        below = getattr(command, "commands", None)
        found |= {f"{name} {verb}" for verb in below} if below else {name}
    return found


_PARTS = 8
"""Each has its own time limit."""


def test_no_verb_is_left_out() -> None:
    assert commands() == set(VERBS)


def environment(condition: str, work: Path) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("YIBU_")}
    env |= {"YIBU_HOME": str(work / "home"), "YIBU_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    env["PAGER"] = "cat"  # less waits at a terminal for the key that leaves it
    if condition in HOMES:
        env["YIBU_HOME"] = HOMES[condition].format(work=work)
    for name, value in SURROUNDINGS.get(condition, {}).items():
        if value is None:
            env.pop(name, None)
        else:
            env[name] = value.format(work=work)
    return env


def cases(condition: str, work: Path) -> list[dict[str, Any]]:
    verbs = dict(VERBS)
    if condition not in (*HOMES, *SURROUNDINGS, "as usual", "working directory removed"):
        verbs["up"] = ["--port", "99999"]  # so that a node's process is not started for each
    words = [*([*verb.split(), *rest] for verb, rest in verbs.items()), *MORE]
    env = environment(condition, work)
    return [{"argv": argv, "condition": condition, "env": env, "cwd": str(work)} for argv in words]


def test_verbs_end_in_words_whatever_the_condition(tmp_path: Path) -> None:
    """Each verb under some of the conditions, each condition with some verbs; all beside real engines."""
    check([case for case in walk(tmp_path) if case["turn"] % 24 == 0], tmp_path)


@pytest.mark.engine
@pytest.mark.parametrize("part", range(_PARTS))
def test_every_verb_under_every_condition(part: int, tmp_path: Path) -> None:
    check(walk(tmp_path)[part::_PARTS], tmp_path)


@pytest.mark.parametrize("home", ["named", "none"])
def test_a_user_that_the_system_does_not_know(tmp_path: Path, home: str) -> None:
    """As containers run programs, by a number alone: there is no home directory then."""
    other = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
    if subprocess.run([*other, "true"], capture_output=True, check=False).returncode:
        pytest.skip("users cannot be mapped here")
    env = environment("no HOME", tmp_path)
    env = {name: env[name] for name in env if name not in ("LOGNAME", "USER", "HOME")}
    if home == "none":
        del env["YIBU_HOME"]
    words = [["ls"], ["pull", "hf:a/b"], ["plan", "~nobody-here/x"], ["engine", "ls"]]
    for argv in (*words, ["adopt", "~nobody-here/x.sh"], ["key", "ls"]):
        done = subprocess.run(
            [*other, sys.executable, "-m", "yibu", *argv],
            env=env, cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, argv
        assert (done.returncode == 0 and home == "named") or done.stderr.startswith(
            ("yibu: ", "hf:a/b  listing\nyibu: ")
        ), (argv, done)


def walk(work: Path) -> list[dict[str, Any]]:
    found = []
    for number, condition in enumerate(CONDITIONS):
        for turn, case in enumerate(cases(condition, work)):
            always = case["argv"] == ["--version"] and condition in (*FULL, *GONE)
            found.append(case | {"turn": 0 if always else turn + number})
    return found


def check(every: list[dict[str, Any]], work: Path) -> None:
    (work / "file").touch()
    (work / "yibu.yaml").write_text("models: [{name: 千问, source: ./nothing.gguf}]")
    done = subprocess.run(
        [sys.executable, "-m", "tests.commands.forked"],
        input=json.dumps({"cases": every}),
        capture_output=True,
        text=True,
        check=True,
        timeout=280,
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(every)
    faults = []
    for case, result in zip(every, results, strict=True):
        condition, first = case["condition"], case["argv"] == ["--version"]
        unsaid = "Traceback" in result["err"] or "defect" in result["err"]
        if unsaid or result["code"] not in (*range(6), exits.READER_GONE):
            faults.append((condition, case["argv"], result))
        if condition == "stdout on a full disk" and first:
            assert (result["code"], "No space left" in result["err"]) == (1, True)
        if condition == "reader of stdout gone" and first:
            assert result == {"code": exits.READER_GONE, "out": "", "err": ""}
    assert faults == []
