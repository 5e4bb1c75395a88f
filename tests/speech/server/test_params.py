"""The fields that the table of requests calls refused, put to the engine's own reader of forms."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytest.importorskip("av", reason="the reader needs PyAV: run with a speech environment's Python")
pytest.importorskip("pydantic", reason="the table of requests needs the core's packages as well")

from yibu.engines.speech.requests import SPEECH_REQUESTS
from yibu.errors import InvalidRequestError
from yibu.speech.http.params import parse
from yibu.speech.http.upload import Form, Upload
from yibu.speech.types import Recognizer

RECOGNIZER = cast(
    "Recognizer",
    SimpleNamespace(
        name="m", tasks=("transcribe", "translate"), languages=("en",), takes_hotwords=False
    ),
)
LISTENER = cast(
    "Recognizer",
    SimpleNamespace(name="s", tasks=("transcribe",), languages=("zh",), takes_hotwords=True),
)
REFUSED = [
    rule.path.partition("[")[0]
    for rule in SPEECH_REQUESTS.rules["/v1/audio/transcriptions"]
    if rule.outcome == "refused"
]


def form(**fields: Any) -> Form:
    upload = Upload(io.BytesIO(), "a.wav", "audio/wav")
    return Form({name: [value] for name, value in fields.items()}, upload)


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("ending", ["", "[]", "[type]", "[0][type]"])
def test_what_the_table_refuses_the_engine_refuses(name: str, ending: str) -> None:
    value = '{"type": "server_vad"}' if name == "chunking_strategy" else "x"
    with pytest.raises(InvalidRequestError) as caught:
        parse(form(**{name + ending: value}), RECOGNIZER, "transcribe")
    assert caught.value.param == name


def test_what_asks_for_nothing_is_taken() -> None:
    assert parse(form(chunking_strategy="auto"), RECOGNIZER, "transcribe").response_format == "json"


@pytest.mark.parametrize("value", ["0_1", "\uff11", "0x1", "inf", "1e", "--1", "1" * 5000, "1.01"])
def test_a_temperature_is_a_number_as_json_has_it(value: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(form(temperature=value), RECOGNIZER, "transcribe")
    assert caught.value.param == "temperature"


@pytest.mark.parametrize("value", ["0", "1", "0.25", " 1e-3 ", "-0", "1.0"])
def test_a_temperature_from_0_to_1(value: str) -> None:
    asked = parse(form(temperature=value), RECOGNIZER, "transcribe")
    assert asked.options.temperature == float(value)


@pytest.mark.parametrize("name", ["keywords", "hotwords", "hotword"])
def test_hotwords_go_to_models_that_take_them(name: str) -> None:
    asked = form(**{name: "阿里巴巴 20\n魔搭 15"})
    assert parse(asked, LISTENER, "transcribe").options.hotwords == ("阿里巴巴", "魔搭")
    with pytest.raises(InvalidRequestError, match="takes no keywords") as caught:
        parse(asked, RECOGNIZER, "transcribe")
    assert caught.value.param == name


def test_a_prompt_holds_hotwords_for_models_that_take_them() -> None:
    asked = form(prompt="魔搭 通义", keywords="魔搭")
    assert parse(asked, LISTENER, "transcribe").options.hotwords == ("魔搭", "通义")
    assert parse(form(prompt="魔搭"), RECOGNIZER, "transcribe").options.hotwords == ()
    with pytest.raises(InvalidRequestError, match="4096 are the limit"):
        parse(form(hotwords="魔" * 4097), LISTENER, "transcribe")
