"""A text knows its template and values, and is made anew in each reader's language."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest

from yibu import messages
from yibu.errors import YibuError, safe
from yibu.messages import Message, accepted, filled, joined, language_of, pack, render, tr, unpack
from yibu.redaction import register


@pytest.mark.parametrize(
    ("env", "language"),
    [
        ({}, "en"),
        ({"LANG": "C"}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh_CN"),
        ({"LANG": "zh_CN.GBK"}, "zh_CN"),
        ({"LANG": "zh_TW.UTF-8"}, "zh_CN"),
        ({"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "en_US.UTF-8"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "zh_CN"}, "zh_CN"),
        ({"LC_ALL": "", "LANG": "zh_CN"}, "zh_CN"),
        ({"LANG": "zh_CN.UTF-8", "YIBU_LANG": "en"}, "en"),
        ({"LANG": "C", "YIBU_LANG": "zh"}, "zh_CN"),
        ({"YIBU_LANG": "zh-Hans-CN"}, "zh_CN"),
        ({"LANG": "zhu_XX"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
    ],
)
def test_the_environment_says_the_language(env: dict[str, str], language: str) -> None:
    assert language_of(env) == language


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh_CN"),
        ("en-US,en;q=0.9,zh;q=0.8", "en"),
        ("de, zh;q=0.3", "zh_CN"),
        ("zh;q=0", "en"),
        ("zh;q=x, en;q=0.1", "en"),
        ("*", "en"),
        ("fr", "en"),
    ],
)
def test_accept_language(header: str, language: str) -> None:
    assert accepted(header) == language


def test_a_text_is_english_until_it_is_rendered() -> None:
    text = tr("model {model!r}: the flag {flag}", model="m", flag="-c")
    assert text == "model 'm': the flag -c"
    assert isinstance(text, Message)
    assert render(text, "en") == text
    assert render("as it is", "zh_CN") == "as it is"


def test_braces_stand_for_themselves_where_no_value_fills_them() -> None:
    assert tr("options: {a: 1}") == "options: {a: 1}"
    assert tr("options: {{a: {n:,}}}", n=1234) == "options: {a: 1,234}"
    assert tr("{known} and {unknown}", known=1) == "1 and {unknown}"


def test_a_value_is_text_never_a_template() -> None:
    assert tr("found {text}", text="{text} {0.__class__}") == "found {text} {0.__class__}"


def test_an_empty_value_takes_its_punctuation_along() -> None:
    assert tr("It is too large (found: {size}).", size="") == "It is too large."
    assert tr("The file is damaged: {reason}.", reason="") == "The file is damaged."
    assert tr("a {x} b", x="") == "a b"


def test_what_is_no_text_is_shown_as_it_shows_itself() -> None:
    text = tr(
        "{error!r} after {head!r}: {error2}", error=KeyError("k"), head=b"PK", error2=KeyError("k")
    )
    assert text == "KeyError('k') after b'PK': 'k'"
    assert unpack(json.loads(json.dumps(pack(text)))) == text


def test_values_known_later() -> None:
    later = filled(tr("needs {what} in {where}"), what="room")
    assert later == "needs room in {where}"
    assert filled(later, where="/tmp") == "needs room in /tmp"


def test_nothing_is_lost_on_the_way(chinese: None) -> None:
    inner = tr("The disk is full.")
    text = joined(" ", [tr("{name}: {why}", name="m", why=inner), "!"])
    carried = unpack(json.loads(json.dumps(pack({"error": {"message": text, "n": [1, None]}}))))
    assert carried["error"] == {"message": text, "n": [1, None]}
    assert render(carried["error"]["message"], "en") == "m: The disk is full. !"
    for same in (copy.deepcopy(text), pickle.loads(pickle.dumps(text))):
        assert same == text


def test_secrets_leave_the_values_too() -> None:
    register("s3cret-of-a-test")
    error = YibuError(tr("the hub said: {said}", said="no to s3cret-of-a-test"))
    assert error.message == "the hub said: no to ***"
    assert isinstance(error.message, Message)
    assert "s3cret" not in json.dumps(pack(error.message))


def test_json_is_english_in_every_language(
    chinese: None, capsys: pytest.CaptureFixture[str]
) -> None:
    from yibu.cli import output

    output.data_json({"state": tr("The disk is full."), "list": [tr("now")]})
    assert json.loads(capsys.readouterr().out) == {"state": "The disk is full.", "list": ["now"]}


def test_columns_stand_under_each_other(chinese: None, capsys: pytest.CaptureFixture[str]) -> None:
    from yibu.cli import output

    output.table([["千问", "1"], ["qwen-coder", "2"]], ("MODEL", "MEMORY"))
    lines = capsys.readouterr().out.splitlines()
    starts = {output.cell_width(line[: -len(line.split()[-1])]) for line in lines}
    assert len(starts) == 1, lines


def test_no_translation_is_needed_for_english(tmp_path: Path) -> None:
    assert messages.active() == "en"
    assert tr("a text that no catalogue has") == "a text that no catalogue has"


def test_an_error_of_the_system_is_its_reason_and_the_file_that_no_other_value_names() -> None:
    error = FileNotFoundError(2, "No such file or directory", "/keys")
    named = tr("the key file {path} cannot be read: {error}", path="/keys", error=error)
    assert named == "the key file /keys cannot be read: No such file or directory"
    assert (
        tr("cannot be made: {error}", error=error)
        == "cannot be made: /keys: No such file or directory"
    )
    assert tr("{error}", error=TimeoutError("too late")) == "too late"


def test_marks_between_texts_are_those_of_the_language() -> None:
    several = messages.joined("; ", [tr("none"), tr("nothing"), tr("none")])
    assert (several, messages.render(several, "zh_CN")) == ("none; nothing; none", "无；空；无")
    assert messages.render(messages.joined(" or ", ["a", "b"]), "zh_CN") == "a 或 b"
    assert messages.render(messages.joined("\n  ", ["a", "b"]), "zh_CN") == "a\n  b"


def test_a_chinese_value_has_no_spaces_around_it() -> None:
    shown = [
        messages.render(tr("in {where} is not set", where=where), "zh_CN")
        for where in (tr("every interface"), "a.yaml", "甲")
    ]
    assert shown == ["在所有网络接口中没有设置", "在 a.yaml 中没有设置", "在甲中没有设置"]


def test_what_is_wrong_with_json_is_translated() -> None:
    with pytest.raises(json.JSONDecodeError) as wrong:
        json.loads("{a")
    said = tr("The body is not JSON: {error}", error=wrong.value)
    assert said.startswith("The body is not JSON: line 1, column 2: Expecting property name")
    chinese = messages.render(said, "zh_CN")
    assert chinese.endswith(" JSON：第 1 行，第 2 列：应为双引号括起的键名")


def test_the_first_line_of_a_text_is_still_translated() -> None:
    assert messages.render(messages.brief(tr("none")), "zh_CN") == "无"


def test_a_message_that_only_looks_like_a_secret_stays_one() -> None:
    text = tr("In {parent} there is: {near}", parent="/models", near="key.txt, model.gguf")
    assert render(safe(text), "zh_CN") == "/models 中有：key.txt, model.gguf"
    hidden = safe(tr("In {parent} there is: {near}", parent="/m", near="api_key=sk-very-secret1"))
    assert "very-secret" not in render(hidden, "zh_CN")
