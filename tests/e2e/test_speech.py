"""SenseVoice through the whole house: the small trained model of the tests, the real FSMN-VAD."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.e2e.home import REPOSITORY, Home
from yibu.cli.api import Api

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, engine_cache: Path) -> Iterator[Home]:
    home = Home(tmp_path_factory.mktemp("home"), engine_cache)
    with tarfile.open(REPOSITORY / "tests/speech/fixture/sensevoice.tar.xz") as archive:
        archive.extractall(home.root, filter="data")
    home.write([{"name": "sense", "source": "./sensevoice"}])
    try:
        home.yibu("up", "-d", timeout=900)
        yield home
    finally:
        home.stop()


@pytest.fixture
def clip(home: Home) -> Path:
    return home.root / "sensevoice" / "clips" / "0-en.wav"


@pytest.fixture
def said(home: Home) -> str:
    clips = json.loads((home.root / "sensevoice" / "clips" / "clips.json").read_text())
    return " ".join(word for word, _, _ in clips[0]["marks"])


def test_the_command_line_transcribes(home: Home, clip: Path, said: str) -> None:
    assert home.yibu("transcribe", str(clip)).stdout.strip().lower().rstrip(".") == said
    home.yibu("transcribe", str(clip), str(clip), "--format", "srt", "-o", str(home.root / "out"))
    assert "00:00:0" in (home.root / "out" / "0-en.srt").read_text()


def test_the_official_client(home: Home, clip: Path, said: str) -> None:
    with openai.OpenAI(base_url=f"{home.url()}/v1", api_key="none", max_retries=0) as client:
        answer = client.audio.transcriptions.create(
            model="sense",
            file=clip,
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
        )
        assert answer.text.lower().rstrip(".") == said
        assert answer.words is not None
        assert [word.word.lower().rstrip(".") for word in answer.words] == said.split()
        with pytest.raises(openai.BadRequestError):
            client.audio.transcriptions.create(model="sense", file=clip, language="klingon")
        with pytest.raises(openai.BadRequestError):
            client.audio.transcriptions.create(model="sense", file=Path(__file__))
        with pytest.raises(openai.NotFoundError, match=r"engine is speech.*transcriptions"):
            client.chat.completions.create(
                model="sense", messages=[{"role": "user", "content": "hello"}]
            )


def test_recognize_answers_as_the_script_does(home: Home, clip: Path, said: str) -> None:
    for fields in ({}, {"model": "sense", "language": "auto"}):
        answer = json.loads(Api(home.url()).upload("/recognize/", clip, fields))
        assert set(answer) == {"result"}
        assert said in answer["result"].lower()


def test_bench_compares_precisions(home: Home, clip: Path) -> None:
    done = home.yibu("bench", "./sensevoice", str(clip), "--precisions", "fp32,int8", "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["precision"] for row in rows] == ["fp32", "int8"]
