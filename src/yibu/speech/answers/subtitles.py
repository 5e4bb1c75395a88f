"""SubRip (srt) and WebVTT: segments cut into cues that fit on a screen.

A segment may be half a minute long. Where the words have times, it is cut after punctuation, at
pauses and before a cue grows too long; otherwise as if every character took equally long. No cue is
empty or without length, and none begins before the last one ended: players drop such cues.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from unicodedata import east_asian_width

from yibu.speech.types import Recognized, Word

_MAX_SECONDS = 7.0
_MAX_COLUMNS = 80
"""Two lines of forty; a full-width character takes two columns."""
_MIN_SECONDS = 0.1
_PAUSE_SECONDS = 0.8
_SENTENCE_ENDS = frozenset(".!?。！？…")
_CLAUSE_ENDS = frozenset(",;:，、；：")


@dataclass(frozen=True, slots=True)
class Cue:
    """A caption with its times in seconds."""

    start: float
    end: float
    text: str


def cues(segments: Iterable[Recognized]) -> list[Cue]:
    """Captions of every segment, in order."""
    found: list[Cue] = []
    for segment in segments:
        for cue in _cut(segment):
            start = max(cue.start, found[-1].end if found else 0.0)
            found.append(Cue(start, max(cue.end, start + _MIN_SECONDS), cue.text))
    return found


def srt(captions: Sequence[Cue]) -> str:
    """SubRip: numbered, times with a comma."""
    return "".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{cue.text}\n\n"
        for number, cue in enumerate(captions, 1)
    )


def vtt(captions: Sequence[Cue]) -> str:
    """WebVTT; ``&`` and ``<`` would be markup in it, and ``-->`` ends a cue's text."""
    blocks = (
        f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{_escaped(cue.text)}\n\n"
        for cue in captions
    )
    return "WEBVTT\n\n" + "".join(blocks)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(seconds: float, point: str) -> str:
    milliseconds = max(0, round(seconds * 1000))
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{point}{rest % 1000:03}"


def _cut(segment: Recognized) -> Iterator[Cue]:
    words = segment.words
    spans = _spans(segment.text, words)
    if spans is None:
        words = tuple(_guessed(segment))
        spans = _spans(segment.text, words) or []
    first = 0
    for index, word in enumerate(words):
        following = words[index + 1] if index + 1 < len(words) else None
        end = spans[index + 1] if following else len(segment.text)
        text = segment.text[spans[first] : end].strip()
        if following is None or _ends_here(text, words[first], word, following):
            yield Cue(words[first].start, word.end, " ".join(text.split()))
            first = index + 1


def _guessed(segment: Recognized) -> list[Word]:
    """Estimated word times, proportional to the columns of the text; each wide character is a word."""
    texts = re.findall(
        r"[\u2e80-\u9fff\uf900-\ufaff][^\w\s]*|[^\s\u2e80-\u9fff\uf900-\ufaff]+", segment.text
    )
    step = (segment.end - segment.start) / max(1, sum(map(_columns, texts)))
    words: list[Word] = []
    at = segment.start
    for text in texts:
        words.append(Word(text, at, at + step * _columns(text)))
        at = words[-1].end
    return words


def _ends_here(text: str, first: Word, last: Word, following: Word) -> bool:
    seconds = following.end - first.start
    if seconds > _MAX_SECONDS or _columns(text) + _columns(following.text) > _MAX_COLUMNS:
        return True
    if following.start - last.end > _PAUSE_SECONDS or text[-1:] in _SENTENCE_ENDS:
        return True
    return text[-1:] in _CLAUSE_ENDS and (
        seconds > _MAX_SECONDS / 2 or _columns(text) > _MAX_COLUMNS / 2
    )


def _spans(text: str, words: Sequence[Word]) -> list[int] | None:
    """Where each word begins in the text, or None where the words do not spell it: cues are slices of
    the text, so that no character is lost."""
    starts: list[int] = []
    position = 0
    for word in words:
        found = text.find(word.text.strip(), position) if word.text.strip() else -1
        if found < 0:
            return None
        starts.append(found)
        position = found + len(word.text.strip())
    if starts:
        starts[0] = 0
    return starts or None


def _columns(text: str) -> int:
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)
