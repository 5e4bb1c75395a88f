"""A Chinese terminal before an English node: what the node says comes in the terminal's language."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.e2e.home import Home, fake

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
