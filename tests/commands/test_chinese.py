"""The command line speaks the terminal's language; what a program reads is the same in every one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.test_conditions import VERBS, environment
from tests.support.chinese import english
from tests.support.zygote import CHINESE, ZYGOTE
from yibu.cli.help_text import wrapped
from yibu.cli.output import cell_width
from yibu.messages import ENGLISH, language_of

_PROGRAM = """
from yibu.messages import use
use("zh_CN")
import runpy
runpy.run_module("tests.commands.forked", run_name="__main__")
"""
_DATA = ("adopt", "config schema", "docs", "init")
"""Verbs that print a file or a page; `init` and `docs` have tests of their own."""
_VALUES = [
    "all",
    "command",
    "day",
    "debian",
    "demo",
    "down",
    "home",
    "hour",
    "key",
    "lmdeploy",
    "model",
    "modelscope",
    "never",
    "none",
    "search",
    "sglang",
    "support",
    "text",
]
"""Of options, and names of verbs, in help."""
_HAN = re.compile(r"[\u4e00-\u9fff]")
_HELP = (
    "up",
    "down",
    "ps",
    "logs",
    "key",
    "key add",
    "apply",
    "adopt",
    "plan",
    "pull",
    "bench",
    "config",
)


def run(home: Path, language: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "YIBU_HOME": str(home / "yibu"),
        "LANG": language,
        "YIBU_OFFLINE": "1",
        **more,
    }
    zygote = ZYGOTE if language_of(env) == ENGLISH else CHINESE
    return zygote.run(*words, env=env, cwd=home)


@pytest.mark.parametrize("verb", ["", *_HELP])
def test_help(tmp_path: Path, verb: str) -> None:
    chinese = run(tmp_path, "zh_CN.UTF-8", *verb.split(), "--help")
    english = run(tmp_path, "C", *verb.split(), "--help")
    assert chinese.returncode == english.returncode == 0
    assert not _HAN.search(english.stdout)
    assert "用法：" in chinese.stdout
    assert "显示此帮助并退出。" in chinese.stdout
    # What can be typed is the same: options, in the same order.
    assert re.findall(r"--[a-z][a-z-]*", _options(chinese.stdout)) == re.findall(
        r"--[a-z][a-z-]*", _options(english.stdout)
    )


@pytest.mark.parametrize("part", ["help", "run"])
def test_no_verb_speaks_english(part: str, tmp_path: Path) -> None:
    groups = {verb.split()[0] for verb in VERBS if " " in verb}
    if part == "help":
        words = [[*verb.split(), "--help"] for verb in ("", *groups, *VERBS)]
    else:
        words = [[*verb.split(), *rest] for verb, rest in VERBS.items() if verb not in _DATA]
    env = {**environment("as usual", tmp_path), "YIBU_LANG": "zh_CN", "COLUMNS": "100"}
    cases = [
        {"argv": argv, "condition": "as usual", "env": env, "cwd": str(tmp_path)} for argv in words
    ]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], input=json.dumps({"cases": cases}),
        capture_output=True, text=True, check=True, timeout=280,
    )  # fmt: skip
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(words)
    faults = {
        " ".join(argv): lines
        for argv, result in zip(words, results, strict=True)
        if (lines := english(result["out"] + result["err"], *_VALUES, "nothing", "somebody"))
    }
    assert not faults


@pytest.mark.parametrize(
    "words",
    [
        "up --port x", "up --port 99999", "up --port", "up --detach=3", "up --prot 1", "up --zz 1",
        "logs --level loud", "logs -n -1", "ps more", "scale one", "scale one two", "key", "key add",
        "key nothing", "nothing", "start", "--nothing", "bench one --rate fast", "serch", "export",
    ],
)  # fmt: skip
def test_command_lines_that_cannot_be_read(words: str, tmp_path: Path) -> None:
    refused = run(tmp_path, "zh_CN.UTF-8", *words.split())
    assert refused.returncode == 2
    assert _HAN.search(refused.stderr)
    typed = re.findall("[a-z]{3,}", words)
    near = ("service", "serve", "search", "debug", "info", "warning", "error")
    assert english(refused.stdout + refused.stderr, *typed, *near, "replicas", "name") == []


def test_help_is_laid_out_by_the_width_of_its_characters() -> None:
    text = "停止模型，或全部停止。处理中的请求有时间完成；见 `yibu ps`，以及文档。"
    lines = wrapped(text, 20)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(cell_width(line) <= 20 for line in lines)
    assert all(line[0] not in "，。；" for line in lines)
    assert any("`yibu ps`" in line for line in lines)


def _options(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if re.match(r"\s+-", line))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("ps",), 5),
        (("plan", "./nothing.gguf"), 2),
        (("pull", "ORG/NAME/TOO/MANY"), 2),
        (("pull", "some/model"), 1),
        (("config", "check"), 2),
        (("up", "--prot", "1"), 2),
        (("key", "show", "nobody"), 2),
        (("adopt", "no-such-script.sh"), 2),
        (("serch",), 2),
    ],
    ids=str,
)
def test_refusals(tmp_path: Path, words: tuple[str, ...], code: int) -> None:
    (tmp_path / "yibu.yaml").write_text("models: [{name: a}, {name: a, colour: red}]\n")
    chinese, english = run(tmp_path, "zh_CN.UTF-8", *words), run(tmp_path, "C.UTF-8", *words)
    assert chinese.returncode == english.returncode == code, (chinese, english)
    assert _HAN.search(chinese.stderr), chinese.stderr
    assert not _HAN.search(english.stderr)
    assert chinese.stdout == english.stdout or _HAN.search(chinese.stdout)


@pytest.mark.parametrize(
    "words",
    [("config", "check", "--json"), ("engine", "ls", "--json"), ("search", "--json"), ("ls", "--json"),
     ("plan", "--machine", "laptop-16g", "smollm2", "--json")],
    ids=" ".join,
)  # fmt: skip
def test_json_is_the_same_in_every_language(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "yibu.yaml").write_text("models: []\n")
    chinese, english = run(tmp_path, "zh_CN.UTF-8", *words), run(tmp_path, "C.UTF-8", *words)
    assert chinese.returncode == english.returncode
    if english.stdout:
        assert json.loads(chinese.stdout) == json.loads(english.stdout)


def started(home: Path, **env: str) -> subprocess.CompletedProcess[bytes]:
    """``yibu ps`` as a terminal starts it."""
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "YIBU_HOME": str(home / "yibu"), **env}
    words = [sys.executable, "-m", "yibu", "ps"]
    done = subprocess.run(words, env=env, capture_output=True, timeout=120, check=False)
    assert done.returncode == 5
    return done


@pytest.mark.parametrize("verb", ["", "config", "engine", "export", "key", "node", "service"])
@pytest.mark.parametrize("language", ["C", "zh_CN.UTF-8"])
def test_a_list_of_verbs_says_each_whole(tmp_path: Path, verb: str, language: str) -> None:
    done = run(tmp_path, language, *verb.split(), "--help", COLUMNS="80")
    *_, commands = done.stdout.split("Commands:\n" if language == "C" else "命令：\n")
    assert "\n" in commands
    assert not re.search(r"(\.\.\.|…)$", commands, re.MULTILINE)
    assert max(map(cell_width, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("env", "chinese"),
    [
        ({"LANG": "zh_CN.UTF-8"}, True),
        ({"LANG": "C", "YIBU_LANG": "zh"}, True),
        ({"LANG": "zh_CN.UTF-8", "YIBU_LANG": "en"}, False),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C.UTF-8"}, False),
    ],
    ids=str,
)
def test_ours_is_the_first_word(tmp_path: Path, env: dict[str, str], chinese: bool) -> None:
    assert bool(_HAN.search(started(tmp_path, **env).stderr.decode())) == chinese


def test_a_terminal_of_gbk_gets_chinese_in_gbk(tmp_path: Path) -> None:
    done = started(tmp_path, YIBU_LANG="zh_CN", PYTHONIOENCODING="gbk")
    assert "没有节点在运行" in done.stderr.decode("gbk")


def test_doctor_without_a_network(tmp_path: Path) -> None:
    """What to do is found by what was asked, not by its name, which is translated."""
    hosts = ("MODELSCOPE_ENDPOINT", "HF_ENDPOINT", "UV_DEFAULT_INDEX")
    dead = dict.fromkeys(hosts, "http://127.0.0.1:9")
    for language, advice in (
        ("zh_CN.UTF-8", "把 pip 的 index-url 设为镜像"),
        ("C", "Set pip's index-url"),
    ):
        done = run(
            tmp_path, language, "doctor", YIBU_OFFLINE="0", PIP_CONFIG_FILE="/dev/null", **dead
        )
        assert done.returncode == 0, done.stderr
        assert advice in done.stdout


def test_warnings_of_libraries_are_not_for_the_terminal() -> None:
    program = """
import logging, warnings
from yibu import log
log.configure_quiet()
logging.getLogger("modelscope_hub.download").warning("retrying")
warnings.warn("this will go away")
logging.getLogger("yibu.hub").warning("ours")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr == "ours\n"
