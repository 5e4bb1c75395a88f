"""Each term has one Chinese word, on the command line and in the console: that of the glossary."""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import messages as script  # noqa: E402

PAGE = (ROOT / "docs" / "zh" / "glossary.md").read_text(encoding="utf-8")
TERMS = dict(re.findall(r"^\| ([A-Za-z ]+) \| (\S+) \|", PAGE, re.MULTILINE))
OTHERS = {
    "fits": ("放不下", "放得进", "放不进", "合适", "一致"),
    "limits": ("上限", "限制", "限额"),
    "key": ("键", "KV", "K 和 V"),  # of a mapping, of attention
    "queue": ("队列",),
    "store": ("存储",),  # OpenAI's field
    "usage": ("用法", "usage"),  # an engine's help; a field of answers
    "prompt": ("提示",),
    "budget": ("预算",),  # what a model may think
    "context": ("context",),
    "slots": ("slot",),
    "source": ("源码", "数据源"),  # of a program; Grafana's
    "embedding": ("embedding", "嵌入"),
}
"""Words for another sense of the same English word."""
_TYPED = re.compile(
    r"`[^`]*`|'[^']*'|\"[^\"]*\"|\{[^}]*\}|https?://\S+|yibu [a-z]+(?: [\w./-]+)?|--[a-z-]+"
    r"|[\w-]*[./=_:@]\S+|\b\w+:"
)
CONSOLE = json.loads((ROOT / "src/yibu/console/locales/zh-CN.json").read_text(encoding="utf-8"))


@cache
def texts() -> list[tuple[str, str]]:
    """English without what is typed, and its Chinese."""
    found = [(m.id, m.string) for m in script.catalogue() if m.id] + list(CONSOLE.items())
    return [
        (_TYPED.sub(" ", english), chinese)
        for english, chinese in found
        if isinstance(chinese, str)
    ]


def test_the_glossary_is_read() -> None:
    assert len(TERMS) > 30
    assert len(texts()) > 1000


@pytest.mark.parametrize("term", [term for term in TERMS if term != "English"])
def test_a_term_has_its_word(term: str) -> None:
    words = (TERMS[term], term, *OTHERS.get(term, ()))  # a field's name stays as it is
    wrong = [
        (english, chinese)
        for english, chinese in texts()
        if re.search(rf"\b{term}\b", english) and not any(word in chinese for word in words)
    ]
    assert not wrong
