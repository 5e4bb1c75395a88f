"""Word times in the form of FunASR's servers."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from yibu.speech.answers.formats import speaker_of_most
from yibu.speech.models.speakers import number_of
from yibu.speech.types import Recognized, Word

_PUNCTUATION = re.compile(r"[^\w\s]+")


def times_of(text: str, segments: Sequence[Recognized], *, as_list: bool) -> dict[str, Any]:
    """``timestamp``, ``stamp_sents`` and, where speakers are told apart, ``spk_name`` of a text; nothing
    where the model tells no times of words. ``as_list``: a string of JSON is not what the client reads.
    """
    stamps = [_milliseconds(word) for segment in segments for word in segment.words]
    fields: dict[str, Any] = {}
    if stamps and as_list:
        fields["timestamp"] = stamps
    elif stamps and _looked_up(text) <= len(stamps):
        fields["timestamp"] = json.dumps(stamps)
    if stamps:
        fields["stamp_sents"] = [clause for segment in segments for clause in sentences(segment)]
    if speaker := speaker_of_most(segments):
        fields["spk_name"] = speaker
    return fields


def sentences(segment: Recognized) -> list[dict[str, Any]]:
    """Clauses with their times: ``{"text_seg", "punc", "start", "end", "ts_list"}``, and ``spk``, a number
    from 0, where speakers are told apart. A clause ends at a punctuation mark of the text."""
    text = segment.text
    found: list[dict[str, Any]] = []
    clause: list[Word] = []
    at = 0
    for word in segment.words:
        plain = _PUNCTUATION.sub("", word.text).strip()
        clause.append(word)
        place = text.find(plain, at)
        if place < 0:
            continue
        at = place + len(plain)
        if mark := _PUNCTUATION.match(text, at):
            found.append(_clause(clause, mark[0], segment.speaker))
            clause = []
            at = mark.end()
    return [*found, _clause(clause, "", segment.speaker)] if clause else found


def _looked_up(text: str) -> int:
    """How many times the web page looks up for a text: one a word of letters, else one a character."""
    parts = re.split(r"[。？，、?. ,]", text)
    return sum(1 if re.fullmatch("[a-zA-Z]+", part) else len(part) for part in parts)


def _clause(words: list[Word], mark: str, speaker: str | None) -> dict[str, Any]:
    times = [_milliseconds(word) for word in words]
    clause: dict[str, Any] = {
        "text_seg": " ".join(_PUNCTUATION.sub("", word.text).strip() for word in words),
        "punc": mark,
        "start": times[0][0],
        "end": times[-1][1],
        "ts_list": times,
    }
    return clause if speaker is None else {**clause, "spk": number_of(speaker)}


def _milliseconds(word: Word) -> list[int]:
    return [round(word.start * 1000), round(word.end * 1000)]
