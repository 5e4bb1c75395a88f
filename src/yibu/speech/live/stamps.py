"""Times of words as FunASR's servers tell them."""

from __future__ import annotations

import re
from typing import Any

from yibu.speech.types import Word

_PUNCTUATION = re.compile(r"[^\w\s]+")


def sentences(text: str, words: list[Word]) -> list[dict[str, Any]]:
    """Clauses with their times: ``{"text_seg", "punc", "start", "end", "ts_list"}``. A clause ends at
    a punctuation mark of ``text``."""
    found: list[dict[str, Any]] = []
    clause: list[Word] = []
    at = 0
    for word in words:
        plain = _PUNCTUATION.sub("", word.text).strip()
        clause.append(word)
        place = text.find(plain, at)
        if place < 0:
            continue
        at = place + len(plain)
        if mark := _PUNCTUATION.match(text, at):
            found.append(_clause(clause, mark[0]))
            clause = []
            at = mark.end()
    return [*found, _clause(clause, "")] if clause else found


def looked_up(text: str) -> int:
    """How many times the web page looks up for a text: one a word of letters, else one a character."""
    parts = re.split(r"[。？，、?. ,]", text)
    return sum(1 if re.fullmatch("[a-zA-Z]+", part) else len(part) for part in parts)


def _clause(words: list[Word], mark: str) -> dict[str, Any]:
    times = [[round(word.start * 1000), round(word.end * 1000)] for word in words]
    return {
        "text_seg": " ".join(_PUNCTUATION.sub("", word.text).strip() for word in words),
        "punc": mark,
        "start": times[0][0],
        "end": times[-1][1],
        "ts_list": times,
    }
