"""The spellings of a language that clients send."""

from __future__ import annotations

import pytest

from yibu.errors import InvalidRequestError
from yibu.speech.answers.languages import _CODES, NAMES, name_of, normalized

WHISPER = frozenset({"auto", *NAMES})
SENSEVOICE = frozenset({"auto", "zh", "en", "yue", "ja", "ko", "nospeech"})
SPELLINGS = {
    "zh": "zh zho chi cmn ZH zn cn zh-CN zh_TW zh-Hans-CN mandarin Chinese 中文 普通话 "
    "chinese_(simplified) simplified_chinese mandarin_chinese cmn-Hans-CN",
    "yue": "yue cantonese zh-yue yue-Hant-HK chinese_(cantonese) 粤语",
    "en": "en eng EN en-US en_GB english American_English English_(US)",
    "ja": "ja jpn jp japanese ja-JP 日本語",
    "ko": "ko kor kr korean ko-KR 한국어",
    "he": "he iw heb hebrew iw-IL",
    "no": "no nb nor nob norwegian nb-NO norwegian_bokmål",
    "nn": "nn nno nynorsk norwegian_nynorsk",
    "ht": "ht hat haitian haitian_creole haitian-creole",
    "jw": "jw jv jav javanese",
    "tl": "tl fil filipino tagalog fil-PH",
    "id": "id in ind indonesian",
    "de": "de deu ger german Deutsch de-AT",
    "ro": "ro mo rum ron moldavian moldovan",
    "my": "my mya bur burmese myanmar",
    "pt": "pt por pt-BR portuguese brazilian_portuguese portuguese_(brazil)",
    "es": "es spa castilian español",
    "nl": "nl nld dut flemish",
    "fa": "fa fas per farsi persian",
}


@pytest.mark.parametrize("code", SPELLINGS)
def test_every_common_spelling_is_known(code: str) -> None:
    for spelling in SPELLINGS[code].split():
        for written in {spelling, spelling.upper(), spelling.replace("_", " "), f" {spelling} "}:
            assert normalized(written, WHISPER) == code
            if code in SENSEVOICE:
                assert normalized(written, SENSEVOICE) == code


def test_every_language_is_known_by_its_code_and_its_name() -> None:
    for code in NAMES:
        assert normalized(code, WHISPER) == normalized(name_of(code), WHISPER) == code
    assert not set(_CODES) & set(NAMES) - {name for code, name in NAMES.items() if code == name}


@pytest.mark.parametrize("nothing", [None, "", " ", "auto", "AUTO", "null", "undefined", "und"])
def test_nothing_is_heard_by_the_model(nothing: str | None) -> None:
    assert normalized(nothing, SENSEVOICE) == "auto"


@pytest.mark.parametrize("unknown", ["xx", "klingon", "e", "de"])
def test_what_the_model_does_not_know_is_refused(unknown: str) -> None:
    with pytest.raises(InvalidRequestError, match="auto, en, ja, ko, nospeech, yue, zh"):
        normalized(unknown, SENSEVOICE)
