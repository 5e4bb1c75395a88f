"""A running engine with Paraformer, its punctuation and its speakers."""

from __future__ import annotations

import asyncio
import json
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openvino")
pytest.importorskip("av")
pytest.importorskip("uvicorn")
pytest.importorskip("aiohttp", reason="the tests' client")

import aiohttp

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


def ask(engine: Running, file: Path, model: str = "seaco", **fields: str) -> str:
    async def post() -> str:
        form = aiohttp.FormData({"model": model, **fields})
        form.add_field("file", file.read_bytes(), filename=file.name)
        url = f"{engine.url}/v1/audio/transcriptions"
        async with aiohttp.ClientSession() as session, session.post(url, data=form) as answer:
            return await answer.text()

    return asyncio.run(post())


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
    answer = ask(engine, clip, "paraformer", response_format="diarized_json")
    error = json.loads(answer)["error"]
    assert error["param"] == "response_format"
    assert "speakers: iic/speech_campplus_sv_zh-cn_16k-common" in error["message"]


async def test_live_finals_have_punctuation(engine: Running, sensevoice_dir: Path) -> None:
    """Each utterance by itself."""
    websockets = pytest.importorskip("websockets")
    with wave.open(str(sensevoice_dir / "clips" / "0-en.wav")) as file:
        data = file.readframes(1 << 24) + bytes(32_000)
    texts = []
    for itn in (False, True):
        url = engine.url.replace("http", "ws", 1) + "/ws"
        async with websockets.connect(url, subprotocols=["binary"]) as socket:
            first = {"mode": "2pass", "wav_format": "pcm", "audio_fs": 16000, "itn": itn}
            await socket.send(json.dumps(first | {"is_speaking": True}))
            for at in range(0, len(data), 3200):
                await socket.send(data[at : at + 3200])
            await socket.send(json.dumps({"is_speaking": False, "is_end": True}))
            told: list[dict[str, Any]] = []
            while not told or "is_end" not in told[-1]:
                told.append(json.loads(await asyncio.wait_for(socket.recv(), 120)))
        texts.append("".join(each["text"] for each in told if each["mode"] == "2pass-offline"))
    plain, marked = texts
    letters = str.maketrans("", "", "，。？、,.? ")
    assert plain.translate(letters) == plain.replace(" ", "") != ""
    assert marked.rstrip()[-1] in "。？.?"
    assert marked.translate(letters).lower() == plain.translate(letters).lower()
