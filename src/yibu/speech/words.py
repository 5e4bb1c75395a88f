"""Words found again in the text that they were made of."""

from __future__ import annotations

from collections.abc import Iterable

from yibu.speech.types import Word


def behind(text: str, at: int, words: Iterable[Word]) -> int:
    """Where ``text`` goes on behind as many letters and marks, from ``at`` on, as ``words`` have."""
    letters = sum(not character.isspace() for word in words for character in word.text)
    while at < len(text) and letters:
        letters -= not text[at].isspace()
        at += 1
    return at
