"""A Chinese terminal before an English node: what the node says comes in the terminal's language."""

from __future__ import annotations

import json
import re
import subprocess
import sys

from tests.e2e.home import Home, fake
from tests.support.chinese import english

_HAN = re.compile(r"[\u4e00-\u9fff]")


def chinese(home: Home, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "yibu", *words],
        env={**home.env, "YIBU_LANG": "zh_CN"},
        cwd=home.root, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_a_failure_is_told_in_the_terminals_language_and_logged_in_english(home: Home) -> None:
    home.write([fake("good"), fake("bad", "--crash-after", "0")])
    up = chinese(home, "up", "-d", "good")
    assert up.returncode == 0, up.stderr
    failed = chinese(home, "up", "-d", "bad")
    assert failed.returncode == 1
    assert "失败：引擎启动 " in failed.stderr
    assert "秒后以退出码 1 结束" in failed.stderr
    assert "查看最后几行：yibu logs bad -n 100" in failed.stderr
    shown = chinese(home, "ps")
    assert "模型" in shown.stdout
    assert "就绪" in shown.stdout
    data = home.yibu("ps", "--json").stdout
    assert not _HAN.search(data)
    assert not _HAN.search((home.root / "logs" / "node.log").read_text(encoding="utf-8"))
    assert chinese(home, "ps", "--json").stdout.count('"state": "ready"') == data.count(
        '"state": "ready"'
    )
    down = chinese(home, "down")
    assert "已全部停止。" in down.stdout + down.stderr


def test_what_runs_is_told_in_chinese(home: Home) -> None:
    """The verbs that need a node, with one whose engine is a fake."""
    file = home.write([fake("good", "--count-words")])
    said = {}

    def told(*words: str, code: int = 0) -> None:
        done = chinese(home, *words)
        assert done.returncode == code, (words, done.stdout, done.stderr)
        said[" ".join(words)] = done.stdout + done.stderr

    told("up", "-d")
    for words in (
        "ps", "top --once", "show good", "config show", "doctor", "usage", "key add somebody",
        "key ls", "scale good 2", "restart good", "unload good", "load good", "service status --user",
        "bench good --requests 4 --output-tokens 4 --prompt-tokens 20", "node upgrade",
    ):  # fmt: skip
        told(*words.split(), code=5 if words.startswith("service") else 0)
    told("test")
    entry = fake("other", autoscale={"min": 2, "max": 1})
    file.write_text(json.dumps({"gateway": {"port": "x"}, "models": [entry, {"name": 3}]}))
    told("config", "check", code=2)
    home.write([fake("good", "--count-words"), fake("other")])
    told("diff")
    told("apply", "--yes")
    told("rollback", "--yes")
    told("logs", "nothing", code=2)
    told("down")
    names = [
        "command",
        "max",
        "min",
        "good",
        "other",
        "somebody",
        "demo",
        "lmdeploy",
        "sglang",
        "nothing",
    ]
    faults = {words: lines for words, text in said.items() if (lines := english(text, *names))}
    assert not faults
