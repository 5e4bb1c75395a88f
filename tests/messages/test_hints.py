"""Hints are written alike: a capital letter at the beginning, no full stop at the end.

What is typed stays as it is typed, and a command at the end can be copied.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.messages.hints import hints

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import messages as script

PROGRAMS = {"yibu", "pip", "ffmpeg", "curl", "export", "chmod", "ps"}
SETTINGS = {"models:", "options:"}


def typed(word: str) -> bool:
    """A command, a path, a flag, a setting, a value, or a name such as vLLM."""
    return word in PROGRAMS | SETTINGS or bool(re.search(r"[-./_=\d{`A-Z]", word))


def test_they_are_all_found() -> None:
    assert len(hints()) > 450
    assert {"See why: yibu logs {model}", "Its whole output is in {log}"} <= hints().keys()


def test_they_begin_with_a_capital_letter_or_with_what_is_typed() -> None:
    wrong = [(text, at) for text, at in hints().items() if not typed(text.split()[0])]
    assert not wrong


def test_they_end_without_a_full_stop() -> None:
    chinese = script.catalogue()
    for text, at in hints().items():
        translated = str(chinese.get(text).string)
        assert not re.search(r"[^.]\.$|。$", text + "\n" + translated, re.MULTILINE), at
