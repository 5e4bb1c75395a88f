"""SenseVoice through the whole house: the small trained model of the tests, the real FSMN-VAD."""

from __future__ import annotations

import json
import re
import tarfile
import wave
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.e2e.home import REPOSITORY, Home, scrape
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


def test_the_engines_own_metrics_through_the_gateway(home: Home, clip: Path) -> None:
    of = {"model": "sense", "replica": "sense-0"}
    before = scrape(home)
    Api(home.url()).upload("/recognize/", clip, {})
    after = scrape(home)

    def grown(name: str) -> float:
        return after.value(name, **of) - before.value(name, **of)

    with wave.open(str(clip)) as file:
        seconds = file.getnframes() / file.getframerate()
    assert grown("yibu_speech_audio_seconds_in_total") == pytest.approx(seconds, abs=0.1)
    assert 0 < grown("yibu_speech_audio_seconds_out_total") <= seconds
    for histogram in ("batch_size", "real_time_factor", "time_to_first_segment_seconds"):
        assert grown(f"yibu_speech_{histogram}_count") >= 1, histogram
    assert after.value("yibu_speech_queue_seconds", **of) == 0
    assert after.value("yibu_engine_scrape_up", **of) == 1
    assert after.value("yibu_engine_scrape_dropped_lines", **of) == 0
    document = (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8")
    ours = re.findall(r"^# TYPE yibu_speech_(\w+)", after.text, re.MULTILINE)
    assert {name for name in ours if f"`{name}`" not in document} == set()


def test_bench_compares_precisions(home: Home, clip: Path) -> None:
    done = home.yibu("bench", "./sensevoice", str(clip), "--precisions", "fp32,int8", "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["precision"] for row in rows] == ["fp32", "int8"]
