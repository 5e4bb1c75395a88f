"""Codes in the node's data (states, phases) as words in the terminal's language.

The data keep their English codes, which programs read; only what is printed for people is translated.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from yibu.messages import tr


def table() -> Iterator[tuple[str, str]]:
    """Codes and their texts in English."""
    for line in Path(__file__).with_name("words.txt").read_text("utf-8").splitlines():
        if not line.startswith("#"):
            code, _, text = line.partition(": ")
            yield code, text or code


_WORDS = {code: tr(text) for code, text in table()}


def word(code: str) -> str:
    """The word for a code; a code without one is shown as it is."""
    return _WORDS.get(code, code)
