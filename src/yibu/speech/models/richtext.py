"""SenseVoice's tags: what they say, and the text that FunASR makes of them.

The model writes ``<|en|><|HAPPY|><|Speech|><|withitn|>`` before the words of a segment.
``transcript`` gives what FunASR's ``rich_transcription_postprocess`` gives for the same text,
its oddities included: a caller who moves from the script to yibu sees no other characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from yibu.speech.types import Recognized, Segment

_LANGUAGES = ("zh", "en", "yue", "ja", "ko", "nospeech")
_EMOTIONS = {
    "NEUTRAL": "",
    "HAPPY": "😊",
    "SAD": "😔",
    "ANGRY": "😡",
    "FEARFUL": "😰",
    "DISGUSTED": "🤢",
    "SURPRISED": "😮",
}
_EVENTS = {
    "BGM": "🎼",
    "Speech": "",
    "Applause": "👏",
    "Laughter": "😀",
    "Cry": "😭",
    "Sneeze": "🤧",
    "Breath": "",
    "Cough": "🤧",
}
_SILENT = ("EMO_UNKNOWN", "Sing", "Speech_Noise", "withitn", "woitn", "GBG", "Event_UNK")
"""Tags that are taken out and shown as nothing."""

_NOTHING_HEARD = "<|nospeech|><|Event_UNK|>"
_EMOTION_MARKS = frozenset(filter(None, _EMOTIONS.values()))
# FunASR compares beginnings with these, and knows a cough by a mark that it never writes.
_EVENT_MARKS = frozenset("🎼👏😀😭🤧😷")
_LANGUAGE_TAG = re.compile(r"<\|(?:" + "|".join(_LANGUAGES) + r")\|>")
_SHOWN_TAG = re.compile(r"<\|(" + "|".join([*_EMOTIONS, *_EVENTS, *_SILENT]) + r")\|>")
_TAG = re.compile(r"<\|([^|>]+)\|>")
_MARK_SPACES = re.compile(" ?([" + "".join(_EMOTION_MARKS | _EVENT_MARKS) + "]) ?")


def recognized(segment: Segment, raw: str) -> Recognized:
    """The answer for a segment: its words, and the language, emotion and audio events that the tags in
    ``raw`` name, in lower case."""
    names = _TAG.findall(raw)
    known = {*_EMOTIONS, "EMO_UNKNOWN"}
    events = {*_EVENTS, "Sing", "Speech_Noise", "Event_UNK", "GBG"}
    return Recognized(
        text=plain(raw),
        start=segment.start,
        end=segment.end,
        language=next((name for name in names if name in _LANGUAGES), None),
        emotion=next((name.removeprefix("EMO_").lower() for name in names if name in known), None),
        events=tuple(dict.fromkeys(name.lower() for name in names if name in events)),
        raw=raw,
    )


def plain(raw: str) -> str:
    """The words alone: what the tags say has fields of its own in an answer."""
    return _TAG.sub("", raw).strip()


def transcript(raws: Iterable[str]) -> str:
    """The text of a file from the tagged texts of its segments, in order."""
    joined = " ".join(raws).replace(_NOTHING_HEARD, "❓")
    first, *others = (_marked(part) for part in _LANGUAGE_TAG.split(joined))
    text = " " + first
    event = _event(text)
    for part in others:
        if not part:
            continue
        shown = part
        if event is not None and _event(shown) == event:
            shown = shown[1:]
            if not shown:
                continue
        event = _event(shown)
        if shown[-1] in _EMOTION_MARKS and text.endswith(shown[-1]):
            text = text[:-1]
        text += shown.strip()
    return text.replace("The.", " ").strip()


def _marked(text: str) -> str:
    """One stretch of text with marks for its events before it and its emotion after it."""
    names = _SHOWN_TAG.findall(text)
    text = _SHOWN_TAG.sub("", text)
    emotion = "NEUTRAL"
    for name in _EMOTIONS:
        if names.count(name) > names.count(emotion):
            emotion = name
    for name, mark in _EVENTS.items():
        if name in names:
            text = mark + text
    text += _EMOTIONS[emotion]
    return _MARK_SPACES.sub(r"\1", text).strip()


def _event(text: str) -> str | None:
    return text[0] if text[0] in _EVENT_MARKS else None
