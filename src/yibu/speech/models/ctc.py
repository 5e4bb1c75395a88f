"""Greedy CTC decoding, and words with times from its alignment."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from yibu.speech.models.vocabulary import SPACE, Kind, Vocabulary
from yibu.speech.types import Word

BLANK = 0
FRAME_SECONDS = 0.06
"""Seconds per output frame: six frames of the filter bank."""


@dataclass(frozen=True, slots=True)
class Emission:
    """A token and the output frames [start, end) that carry it."""

    token: int
    start: int
    end: int


def greedy(best: npt.NDArray[np.integer]) -> list[Emission]:
    """Collapse the best class of each frame [T]: repeats are one token, blanks are none."""
    if len(best) == 0:
        return []
    changes = np.flatnonzero(np.diff(best)) + 1
    starts = np.concatenate(([0], changes))
    ends = np.append(changes, len(best))
    return [
        Emission(int(best[start]), int(start), int(end))
        for start, end in zip(starts, ends, strict=True)
        if best[start] != BLANK
    ]


def words(
    emissions: Sequence[Emission], vocabulary: Vocabulary, *, origin: float, duration: float
) -> tuple[Word, ...]:
    """Words with times: a word of spaced scripts, a single character of Chinese and Japanese.

    ``origin`` is the segment's start in the file and ``duration`` its length, in seconds.
    Frame i lasts from 60 i - 30 ms to 60 i + 30 ms, as FunASR counts. Tags such as ``<|en|>``
    are no words, and punctuation belongs to the word before it.
    """
    found: list[Word] = []
    for text, start, end, fresh in _characters(emissions, vocabulary):
        left = min(max(start * FRAME_SECONDS - FRAME_SECONDS / 2, 0.0), duration)
        right = min(max(end * FRAME_SECONDS - FRAME_SECONDS / 2, left), duration)
        joins = bool(found) and (
            _is_mark(text) or (not fresh and not _is_wide(text) and not _is_wide(found[-1].text))
        )
        if joins:
            last = found[-1]
            finish = last.end if _is_mark(text) else origin + right
            found[-1] = Word(last.text + text, last.start, max(last.end, finish))
        else:
            found.append(Word(text, origin + left, origin + right))
    return tuple(found)


def _characters(
    emissions: Sequence[Emission], vocabulary: Vocabulary
) -> Iterator[tuple[str, float, float, bool]]:
    """Each emission's text with its frames, split where it holds several wide characters.

    The last value says that a space stood before it. Bytes of one character that came as
    several tokens are put together first.
    """
    pending, since = b"", 0
    for emission in emissions:
        piece = vocabulary.pieces[emission.token]
        if piece.startswith("<|") or vocabulary.kinds[emission.token] is Kind.UNKNOWN:
            continue
        pending += vocabulary.bytes_of(emission.token, first=False)
        since = since if vocabulary.kinds[emission.token] is Kind.BYTE and since else emission.start
        try:
            text = pending.decode()
        except UnicodeDecodeError:
            if len(pending) < 4:
                continue
            text = pending.decode(errors="replace")
        start, pending, since = since, b"", 0
        fresh = text.startswith((" ", SPACE))
        parts = _parts(text.strip())
        step = (emission.end - start) / max(len(parts), 1)
        for n, part in enumerate(parts):
            yield part, start + n * step, start + (n + 1) * step, fresh and n == 0


def _parts(text: str) -> list[str]:
    """``text`` cut at every wide character and space: 你好 is two parts, "ok" is one."""
    parts: list[str] = []
    run = ""
    for character in text:
        if _is_wide(character) or character.isspace():
            parts += [run, character.strip()]
            run = ""
        else:
            run += character
    return [part for part in [*parts, run] if part]


def _is_wide(text: str) -> bool:
    """Whether ``text`` begins in a script that writes no spaces (Chinese, Japanese)."""
    name = unicodedata.name(text[0], "")
    return name.startswith(("CJK UNIFIED", "CJK COMPAT", "HIRAGANA", "KATAKANA"))


def _is_mark(text: str) -> bool:
    return all(unicodedata.category(character).startswith("P") for character in text)
