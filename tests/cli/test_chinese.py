"""The command line speaks the terminal's language; what a program reads is the same in every one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
    return subprocess.run(
        [sys.executable, "-m", "yibu", *words],
        env=env, cwd=home, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


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


def test_ours_is_the_first_word(tmp_path: Path) -> None:
    assert _HAN.search(run(tmp_path, "C", "ps", YIBU_LANG="zh").stderr)
    assert not _HAN.search(run(tmp_path, "zh_CN.UTF-8", "ps", YIBU_LANG="en").stderr)
    assert not _HAN.search(run(tmp_path, "zh_CN.UTF-8", "ps", LC_ALL="C.UTF-8").stderr)


def test_a_terminal_of_gbk_gets_chinese_in_gbk(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "yibu", "ps"],
        env={
            "PATH": os.environ["PATH"], "HOME": str(tmp_path), "YIBU_LANG": "zh_CN",
            "PYTHONIOENCODING": "gbk",
        },
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 5
    assert "没有节点在运行" in done.stderr.decode("gbk")


def test_doctor_without_a_network(tmp_path: Path) -> None:
    """What to do is found by what was asked, not by its name, which is translated."""
    dead = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    for language, advice in (
        ("zh_CN.UTF-8", "把 pip 的 index-url 设为镜像"),
        ("C", "Set pip's index-url"),
    ):
        done = run(
            tmp_path, language, "doctor", YIBU_OFFLINE="0", PIP_CONFIG_FILE="/dev/null", **dead
        )
        assert done.returncode == 0, done.stderr
        assert advice in done.stdout
