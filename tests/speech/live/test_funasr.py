"""FunASR's websocket protocol on a real engine, as its clients speak it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

pytest.importorskip("av", reason="run with a speech environment's Python")
pytest.importorskip("aiohttp", reason="the client of files")
pytest.importorskip("hypothesis")

import websockets
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.speech.live.conftest import SECONDS, Clip, address, pcm
from tests.speech.live.test_realtime import JSON, as_file, sendable
from tests.speech.server.conftest import Running
from tests.speech.server.media import wav

PYTHON = {"subprotocols": ["binary"]}
"""How the client of FunASR's Python server connects; the others ask for no subprotocol."""


def first(mode: str, **fields: Any) -> str:
    """The message that the public Python client begins with."""
    message = {
        "mode": mode,
        "chunk_size": [5, 10, 5],
        "chunk_interval": 10,
        "encoder_chunk_look_back": 4,
        "decoder_chunk_look_back": 0,
        "audio_fs": 16000,
        "wav_name": "demo",
        "wav_format": "pcm",
        "is_speaking": True,
        "hotwords": "",
        "itn": True,
    }
    return json.dumps(message | fields, ensure_ascii=False)


async def said(socket: Any, *, ack: bool) -> list[dict[str, Any]]:
    """The messages up to the last one: the acknowledgement, or the final result."""
    messages = []
    while True:
        messages.append(json.loads(await asyncio.wait_for(socket.recv(), SECONDS)))
        if messages[-1].get("is_end" if ack else "is_final"):
            return messages


async def speak(socket: Any, data: bytes, *, is_end: bool = True, **fields: Any) -> None:
    await socket.send(first(**fields))
    for at in range(0, len(data), 1920):
        await socket.send(data[at : at + 1920])
    await socket.send(json.dumps({"is_speaking": False, **({"is_end": True} if is_end else {})}))


@pytest.mark.parametrize("mode", ["2pass", "online", "offline"])
async def test_as_the_python_client_does(engine: Running, clips: list[Clip], mode: str) -> None:
    for number in (0, 1, 3):
        clip = clips[number]
        expected = await as_file(engine, pcm(clip, 0))
        async with websockets.connect(address(engine, "/ws"), **PYTHON) as socket:
            assert socket.subprotocol == "binary"
            await speak(socket, pcm(clip, 0), mode=mode)
            messages = await said(socket, ack=True)
        *results, acknowledged = messages
        assert acknowledged == {
            "mode": mode, "wav_name": "demo", "is_final": True, "is_end": True,
        }  # fmt: skip
        assert {message["wav_name"] for message in results} == {"demo"}
        last = "2pass-offline" if mode == "2pass" else mode
        assert [m["mode"] for m in results if m["is_final"]] == [last]
        finals = "".join(m["text"] for m in results if m["mode"] == last)
        assert finals == expected
        if mode == "2pass":
            shown = "".join(m["text"] for m in results if m["mode"] == "2pass-online")
            assert expected.startswith(shown)
        if mode != "online":
            stamps = results[-1]["timestamp"]
            assert len(stamps) == len(clip.marks if number == 0 else clip.text)
            assert abs(stamps[0][0] - clip.marks[0][1] * 1000) < 150
            sentence = results[-1]["stamp_sents"][0]
            assert sentence["punc"] in (".", "。")
            assert sentence["ts_list"] == stamps


async def test_as_the_other_clients_do(engine: Running, clips: list[Clip]) -> None:
    """They close at the first final message, so that only the last one of the audio is; and read
    the time stamps out of a string."""
    data = pcm(clips[1], 1.5) + pcm(clips[5], 1.5) + pcm(clips[7], 0)
    texts = [await as_file(engine, pcm(clips[n], 0)) for n in (1, 5, 7)]
    async with websockets.connect(address(engine, "/ws")) as socket:
        assert socket.subprotocol is None
        await speak(socket, data, is_end=False, mode="2pass", chunk_size="5,10,5")
        messages = await said(socket, ack=False)
    sentences = [message for message in messages if message["mode"] == "2pass-offline"]
    assert [message["text"] for message in sentences] == texts
    assert [message["is_final"] for message in messages if message["is_final"]] == [True]
    assert messages[-1] is sentences[-1]
    for message, text in zip(sentences, texts, strict=True):
        assert len(json.loads(message["timestamp"])) >= len(text.rstrip("。"))


async def test_the_web_pages_file_mode(engine: Running, clips: list[Clip]) -> None:
    """A WAV with its header is sent as PCM."""
    expected = await as_file(engine, pcm(clips[1], 0))
    async with websockets.connect(address(engine, "/ws")) as socket:
        request = {
            "chunk_size": [5, 10, 5], "wav_name": "h5", "is_speaking": True, "chunk_interval": 10,
            "itn": True, "mode": "offline", "wav_format": "PCM", "audio_fs": 16000,
        }  # fmt: skip
        await socket.send(json.dumps(request))
        await socket.send(wav(clips[1].samples))
        await socket.send(json.dumps(request | {"is_speaking": False}))
        (message,) = await said(socket, ack=False)
    assert (message["mode"], message["text"], message["wav_name"]) == ("offline", expected, "h5")


@pytest.mark.parametrize("mode", ["2pass", "online", "offline"])
async def test_no_audio_has_no_text(engine: Running, mode: str) -> None:
    async with websockets.connect(address(engine, "/ws"), **PYTHON) as socket:
        await speak(socket, b"", mode=mode)
        result, acknowledged = await said(socket, ack=True)
        assert (result["text"], result["is_final"]) == ("", True)
        await speak(socket, bytes(64000), mode=mode)
        result, acknowledged = await said(socket, ack=True)
        assert (result["text"], result["is_final"]) == ("", True)
        assert acknowledged["is_final"]


async def test_recordings_one_after_another(engine: Running, clips: list[Clip]) -> None:
    async with websockets.connect(address(engine, "/ws"), **PYTHON) as socket:
        for number in (1, 2, 5):
            await speak(socket, pcm(clips[number], 0), mode="2pass", wav_name=str(number))
            messages = await said(socket, ack=True)
            assert {message["wav_name"] for message in messages} == {str(number)}
            finals = [m["text"] for m in messages if m["mode"] == "2pass-offline"]
            assert finals == [await as_file(engine, pcm(clips[number], 0))]


async def test_a_hundred_at_once(engine: Running, clips: list[Clip]) -> None:
    files = [await as_file(engine, pcm(clip, 0)) for clip in clips]

    async def one(number: int) -> str:
        async with websockets.connect(address(engine, "/ws"), **PYTHON) as socket:
            mode = ("2pass", "offline")[number % 2]
            await speak(socket, pcm(clips[number // 2 % len(clips)], 0), mode=mode)
            messages = await said(socket, ack=True)
            return "".join(
                m["text"] for m in messages if m["mode"].endswith("offline") and "text" in m
            )

    texts = await asyncio.gather(*(one(number) for number in range(100)))
    assert texts == [files[number // 2 % len(clips)] for number in range(100)]


async def test_what_is_wrong_is_said_and_ends_nothing(engine: Running, clips: list[Clip]) -> None:
    async with websockets.connect(address(engine, "/ws"), **PYTHON) as socket:
        for message, about in (
            ("no json", "JSON"),
            (first("3pass"), "mode"),
            (first("2pass", audio_fs="fast"), "audio_fs"),
            (first("2pass", chunk_size=[1]), "chunk_size"),
        ):
            await socket.send(message)
            answer = json.loads(await asyncio.wait_for(socket.recv(), SECONDS))
            assert about in answer["error"]
        await socket.send(json.dumps({"is_speaking": False, "is_end": True}))
        messages = await said(socket, ack=True)
        assert messages[-1]["is_final"] is False
        for garbage, fields in (
            (b"no sound", {"wav_format": "webm"}),
            (bytes(99), {"audio_fs": 7}),
        ):
            await speak(socket, garbage, mode="2pass", **fields)
            assert "error" in (await said(socket, ack=True))[-1]
        await speak(socket, pcm(clips[1], 0), mode="2pass")
        assert (await said(socket, ack=True))[-1]["is_final"]


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        name: JSON | st.sampled_from(values)
        for name, values in {
            "mode": ["2pass", "online", "offline"],
            "wav_name": ["a"],
            "wav_format": ["pcm", "wav", "webm", "mp3", "others"],
            "is_speaking": [True, False],
            "is_end": [True],
            "chunk_size": [[5, 10, 5], "5,10,5", [0, 10**30, 0]],
            "audio_fs": [8000, 16000, 7],
            "itn": [True, "false"],
            "svs_lang": ["zh", "auto"],
            "hotwords": ['{"阿里巴巴":20}'],
        }.items()
    },
)
MESSAGES = (
    st.binary(max_size=4000) | st.text(max_size=30) | JSON.map(json.dumps) | FIELDS.map(json.dumps)
)


@pytest.mark.timeout(900)
async def test_no_message_ends_a_connection(engine: Running, clips: list[Clip]) -> None:
    loop = asyncio.get_running_loop()

    @settings(max_examples=60)
    @given(st.lists(MESSAGES, max_size=6))
    def each(messages: list[str | bytes]) -> None:
        asyncio.run_coroutine_threadsafe(survives(messages), loop).result(SECONDS)

    async def survives(messages: list[str | bytes]) -> None:
        async with websockets.connect(address(engine, "/ws"), **PYTHON) as socket:
            for message in messages:
                await socket.send(sendable(message))
            await socket.send(first("2pass", is_speaking=False, is_end=True, wav_name="the end"))
            while True:
                answer = json.loads(await asyncio.wait_for(socket.recv(), SECONDS))
                if answer.get("is_end") and answer["wav_name"] == "the end":
                    return

    await asyncio.to_thread(each)
    assert "Traceback" not in engine.log.replace("decoding a live stream failed\nTraceback", "")
    assert "a live session failed" not in engine.log
