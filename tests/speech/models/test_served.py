"""A running engine with Paraformer, its punctuation and its speakers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openvino")
pytest.importorskip("av")
pytest.importorskip("uvicorn")

from tests.speech.server.conftest import Running

pytestmark = pytest.mark.timeout(600)  # on a busy machine an engine takes a minute to start

Start = Callable[..., Running]


@pytest.fixture
def engine(start_engine: Start, funasr_dir: Path, vad_dir: Path) -> Running:
    return start_engine(
        "--vad", str(vad_dir), "--punctuation", str(funasr_dir / "punctuation"),
        "--speakers", str(funasr_dir / "speakers"), "--precision", "fp32", "--threads", "1",
        program="yibu.speech", model=funasr_dir / "seaco",
    )  # fmt: skip


def ask(engine: Running, file: Path, **fields: str) -> str:
    form = [part for name, value in fields.items() for part in ("-F", f"{name}={value}")]
    return subprocess.run(
        ["curl", "-s", "-F", f"file=@{file}", "-F", "model=seaco", *form,
         f"{engine.url}/v1/audio/transcriptions"],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip


def test_every_answer_of_one_recording(engine: Running, sensevoice_dir: Path) -> None:
    clip = sensevoice_dir / "clips" / "0-en.wav"
    plain = json.loads(ask(engine, clip, use_itn="false"))["text"]
    marked = json.loads(ask(engine, clip))["text"]
    assert marked[-1] in "。？.?"
    letters = str.maketrans("", "", "，。？、,.? ")
    assert marked.translate(letters).lower() == plain.translate(letters).lower()
    hot = json.loads(ask(engine, clip, use_itn="false", hotwords="天气 你好"))["text"]
    assert hot != plain

    verbose = json.loads(
        ask(engine, clip, response_format="verbose_json", **{"timestamp_granularities[]": "word"})
    )
    assert verbose["text"] == marked
    assert all(word["start"] <= word["end"] for word in verbose["words"])
    segments = json.loads(ask(engine, clip, response_format="verbose_json"))["segments"]
    assert [segment["speaker"] for segment in segments] == ["A"] * len(segments)  # under 15 s

    told: dict[str, Any] = json.loads(ask(engine, clip, response_format="diarized_json"))
    assert (told["task"], told["text"]) == ("transcribe", marked)
    assert told["duration"] > 0
    assert told["segments"][0] | {"id": "x"} == {
        "type": "transcript.text.segment", "id": "x", "speaker": "A",
        "start": segments[0]["start"], "end": segments[0]["end"], "text": segments[0]["text"],
    }  # fmt: skip

    lines = ask(engine, clip, response_format="diarized_json", stream="true").splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line]
    assert events[:-1] == told["segments"]
    assert events[-1] == {"type": "transcript.text.done", "text": marked}
    deltas = ask(engine, clip, stream="true").splitlines()
    said = [json.loads(line.removeprefix("data: ")) for line in deltas if line]
    assert "".join(event.get("delta", "") for event in said) == said[-1]["text"] == marked


def test_without_a_model_for_speakers_it_says_so(
    start_engine: Start,
    funasr_dir: Path,
    vad_dir: Path,
    sensevoice_dir: Path,
) -> None:
    engine = start_engine(
        "--vad", str(vad_dir), "--precision", "fp32", program="yibu.speech",
        model=funasr_dir / "paraformer", wait=True,
    )  # fmt: skip
    clip = sensevoice_dir / "clips" / "0-en.wav"
    form = ["-F", "model=paraformer", "-F", "response_format=diarized_json"]
    answer = subprocess.run(
        ["curl", "-s", "-F", f"file=@{clip}", *form, f"{engine.url}/v1/audio/transcriptions"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    error = json.loads(answer.stdout)["error"]
    assert error["param"] == "response_format"
    assert "speakers: iic/speech_campplus_sv_zh-cn_16k-common" in error["message"]
