"""The shapes of answers, against OpenAI's published specification where it is at hand."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

import pytest

pytest.importorskip("numpy", reason="run with a speech environment's Python")

from hypothesis import given
from hypothesis import strategies as st

from tests.speech.server.conftest import SHARED
from yibu.errors import InvalidRequestError
from yibu.speech.answers.formats import (
    Transcript,
    body,
    delta_event,
    done_event,
    pieces,
    script_text,
    separated,
)
from yibu.speech.answers.languages import NAMES, normalized
from yibu.speech.answers.subtitles import cues
from yibu.speech.audio.tracks import Heard
from yibu.speech.types import RecognitionOptions, Recognized, Word

SPECIFICATION = SHARED / "openai" / "openapi.json"

ENGLISH = Recognized(
    text="Hello there. How are you?",
    start=1.0,
    end=4.5,
    language="en",
    emotion="HAPPY",
    events=("Speech", "BGM"),
    words=(
        Word("Hello", 1.0, 1.4),
        Word("there.", 1.4, 2.0),
        Word("How", 2.5, 2.8),
        Word("are", 2.8, 3.0),
        Word("you?", 3.0, 3.5),
    ),
    tokens=(1, 2, 3),
)
CHINESE = Recognized(text="你好，世界。", start=5.0, end=7.25, language="zh", emotion="NEUTRAL")
SILENT = Recognized(text="", start=8.0, end=9.0, language="nospeech")
TRANSCRIPT = Transcript([ENGLISH, CHINESE, SILENT], Heard(10.0), RecognitionOptions(words=True))
BOTH = frozenset({"word", "segment"})


def valid(answer: dict[str, Any], schema: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    if not SPECIFICATION.is_file():
        pytest.skip("OpenAI's specification is not at ../shared/openai/openapi.json")
    specification = json.loads(SPECIFICATION.read_text())
    specification["$ref"] = f"#/components/schemas/{schema}"
    jsonschema.Draft202012Validator(specification).validate(answer)


def test_json() -> None:
    answer = body(TRANSCRIPT, "json", frozenset())
    assert answer["text"] == "Hello there. How are you?你好，世界。"
    valid(answer, "CreateTranscriptionResponseJson")


def test_text() -> None:
    assert body(TRANSCRIPT, "text", frozenset()) == "Hello there. How are you?你好，世界。\n"


def test_verbose_json() -> None:
    answer = body(TRANSCRIPT, "verbose_json", BOTH)
    assert answer["language"] == "english"
    assert answer["duration"] == 10.0
    assert [segment["id"] for segment in answer["segments"]] == [0, 1]
    assert answer["segments"][0]["emotion"] == "HAPPY"
    assert answer["segments"][0]["events"] == ["Speech", "BGM"]
    assert [word["word"] for word in answer["words"]][:2] == ["Hello", "there."]
    valid(answer, "CreateTranscriptionResponseVerboseJson")


def test_verbose_json_of_the_whole() -> None:
    short = Recognized("oh", 0.0, 1.0, "en", emotion="sad", events=("speech", "cough"))
    long = Recognized("well", 1.0, 5.0, "en", emotion="happy", events=("speech",))
    unspoken = Recognized("", 5.0, 60.0, emotion="neutral", events=("bgm",))
    answer = body(
        Transcript([short, long, unspoken], Heard(60.0), RecognitionOptions()), "verbose_json", BOTH
    )
    assert answer["emotion"] == "happy"
    assert answer["events"] == ["speech", "cough", "bgm"]
    valid(answer, "CreateTranscriptionResponseVerboseJson")
    # Whisper hears neither.
    plain = body(
        Transcript([Recognized("oh", 0.0, 1.0)], Heard(1.0), RecognitionOptions()),
        "verbose_json",
        BOTH,
    )
    assert not {"emotion", "events"} & set(plain)


def test_verbose_json_without_what_was_not_asked_for() -> None:
    assert "words" not in body(TRANSCRIPT, "verbose_json", frozenset({"segment"}))
    assert "segments" not in body(TRANSCRIPT, "verbose_json", frozenset({"word"}))


def test_a_translation_is_english() -> None:
    translated = Transcript([ENGLISH], Heard(5.0), RecognitionOptions(task="translate"))
    answer = body(translated, "verbose_json", frozenset({"segment"}))
    assert (answer["language"], answer["task"]) == ("english", "translate")
    valid(answer, "CreateTranslationResponseVerboseJson")


def test_recognize_words_tagged_text_as_funasr_does() -> None:
    pytest.importorskip("yibu.speech.models.richtext")
    tagged = "<|en|><|HAPPY|><|Speech|><|withitn|>"
    segments = [Recognized(f"{n} 😊", 0.0, 1.0, raw=f"{tagged}{n}") for n in ("one", "two")]
    assert script_text(Transcript(segments, Heard(2.0), RecognitionOptions())) == "onetwo😊"
    assert script_text(TRANSCRIPT) == TRANSCRIPT.text


def test_silence_in_every_format() -> None:
    silent = Transcript([], Heard(3.0), RecognitionOptions())
    assert body(silent, "json", frozenset())["text"] == ""
    assert body(silent, "srt", frozenset()) == ""
    assert body(silent, "vtt", frozenset()) == "WEBVTT\n\n"
    verbose = body(silent, "verbose_json", BOTH)
    assert (verbose["segments"], verbose["words"], verbose["language"]) == ([], [], "unknown")
    valid(verbose, "CreateTranscriptionResponseVerboseJson")


def test_events() -> None:
    valid(delta_event("hello"), "TranscriptTextDeltaEvent")
    valid(done_event(TRANSCRIPT), "TranscriptTextDoneEvent")


def test_srt() -> None:
    assert body(TRANSCRIPT, "srt", frozenset()) == (
        "1\n00:00:01,000 --> 00:00:02,000\nHello there.\n\n"
        "2\n00:00:02,500 --> 00:00:03,500\nHow are you?\n\n"
        "3\n00:00:05,000 --> 00:00:07,250\n你好，世界。\n\n"
    )


def test_vtt_escapes_markup() -> None:
    text = Transcript(
        [Recognized("a <b> & c --> d", 3725.5, 3726.0)], Heard(1.0), RecognitionOptions()
    )
    assert body(text, "vtt", frozenset()) == (
        "WEBVTT\n\n01:02:05.500 --> 01:02:06.000\na &lt;b&gt; &amp; c --&gt; d\n\n"
    )


def test_a_long_segment_becomes_cues_that_fit_a_screen() -> None:
    words = tuple(Word(f"word{n}", n * 0.5, n * 0.5 + 0.4) for n in range(60))
    text = " ".join(word.text for word in words)
    captions = cues([Recognized(text, 0.0, 30.0, words=words)])
    assert " ".join(caption.text for caption in captions) == text
    assert all(caption.end - caption.start <= 7.0 for caption in captions)
    assert all(len(caption.text) <= 80 for caption in captions)
    assert all(a.end <= b.start for a, b in pairwise(captions))


def test_words_that_do_not_spell_the_text_make_one_cue() -> None:
    odd = Recognized("I owe 20 dollars.", 0.0, 3.0, words=(Word("twenty", 1.0, 2.0),))
    assert [caption.text for caption in cues([odd])] == ["I owe 20 dollars."]


@pytest.mark.parametrize(
    "text", ["so many words " * 40, "今天天气很好，我们去公园。" * 12, "安全OK " * 60]
)
def test_a_long_segment_without_times_is_cut_too(text: str) -> None:
    captions = cues([Recognized(text.strip(), 5.0, 35.0)])
    assert len(captions) > 4
    assert all(sum(2 if ch > "\u2e80" else 1 for ch in caption.text) <= 80 for caption in captions)
    assert all(caption.end - caption.start <= 7.0 for caption in captions)
    assert (captions[0].start, captions[-1].end) == (5.0, pytest.approx(35.0))
    joined = "".join(caption.text for caption in captions)
    assert joined.replace(" ", "") == text.replace(" ", "")


TIMES = st.lists(st.floats(0, 60), min_size=2, max_size=12).map(sorted)


@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8")), TIMES), max_size=5), st.booleans())
def test_no_cue_is_empty_overlaps_or_has_no_length(spoken: list, spelled: bool) -> None:
    segments = []
    for text, times in spoken:
        pairs = list(zip(text.split() if spelled else [text], pairwise(times), strict=False))
        words = tuple(Word(word, start, end) for word, (start, end) in pairs)
        segments.append(Recognized(text, times[0], times[-1], words=words))
    captions = cues(segments)
    assert all(caption.text for caption in captions)
    assert all(caption.end - caption.start >= 0.099 for caption in captions)
    assert all(a.end <= b.start for a, b in pairwise(captions))
    said = "".join("".join(caption.text.split()) for caption in captions)
    assert said == "".join("".join(segment.text.split()) for segment in segments)


@pytest.mark.parametrize(
    ("before", "text", "joined"),
    [
        ("", " Hello", "Hello"),
        ("Hello.", "World", " World"),
        ("你好", "世界", "世界"),
        ("你好", "world", "world"),
        ("안녕", "세계", " 세계"),
        ("テスト", "です", "です"),
        ("a", "", ""),
    ],
)
def test_joining(before: str, text: str, joined: str) -> None:
    assert separated(before, text) == joined


@given(st.lists(st.text(max_size=20), max_size=8))
def test_deltas_join_to_the_whole_text(texts: list[str]) -> None:
    segments = [Recognized(text.strip(), 0.0, 1.0) for text in texts]
    whole = Transcript(segments, Heard(1.0), RecognitionOptions()).text
    assert "".join(pieces(segments)) == whole
    bare = re.sub(r"\s", "", "".join(texts))
    assert re.sub(r"\s", "", whole) == bare


KNOWN = frozenset({"auto", "zh", "en", "yue", "ja", "ko", "nospeech"})


@pytest.mark.parametrize(
    ("written", "code"),
    [
        (None, "auto"),
        ("", "auto"),
        ("auto", "auto"),
        ("zn", "zh"),
        ("zh", "zh"),
        ("ZH", "zh"),
        ("zh-CN", "zh"),
        ("zh_TW", "zh"),
        ("en-US", "en"),
        ("Chinese", "zh"),
        ("cantonese", "yue"),
        ("nospeech", "nospeech"),
    ],
)
def test_languages(written: str | None, code: str) -> None:
    assert normalized(written, KNOWN) == code


@pytest.mark.parametrize("written", ["xx", "fr", "klingon", "zh,en", "-", "z" * 500])
def test_an_unknown_language_is_refused(written: str) -> None:
    with pytest.raises(InvalidRequestError, match="not one this model knows") as caught:
        normalized(written, KNOWN)
    assert caught.value.param == "language"
    assert len(caught.value.message) < 200


def test_every_language_of_whisper_has_a_name() -> None:
    tokenizer = pytest.importorskip("faster_whisper.tokenizer")
    assert set(tokenizer._LANGUAGE_CODES) == set(NAMES)
