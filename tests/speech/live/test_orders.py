"""Messages in orders that no client of its right mind sends: what began is ended, once."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from typing import Any

import pytest

pytest.importorskip("av", reason="run with a speech environment's Python")

import websockets

from tests.speech.live.conftest import SECONDS, TRANSCRIPTION, Clip, RealtimeClient, address, pcm
from tests.speech.live.test_funasr import PYTHON, first, said
from tests.speech.server.conftest import Running
from tests.speech.server.media import Format, encode

VAD = {"type": "server_vad", "silence_duration_ms": 300}


def events(rng: random.Random, voices: list[bytes]) -> list[tuple[str, dict[str, Any]]]:
    """Realtime events, sound in half of them."""

    def append(data: bytes) -> tuple[str, dict[str, Any]]:
        return "input_audio_buffer.append", {"audio": base64.b64encode(data).decode()}

    def update(**sound: Any) -> tuple[str, dict[str, Any]]:
        return "session.update", {"session": {"audio": {"input": sound}}}

    def speech() -> tuple[str, dict[str, Any]]:
        voice = rng.choice(voices)
        start = rng.randrange(0, len(voice) // 2) * 2
        return append(voice[start : start + rng.choice([3200, 9600, 32_000, 100_000])])

    return [
        rng.choice(
            [
                *(speech() for _ in range(5)),
                append(bytes(32_000)),
                append(b""),
                ("input_audio_buffer.commit", {}),
                ("input_audio_buffer.clear", {}),
                update(turn_detection=None),
                update(turn_detection=VAD),
                update(format={"type": "audio/pcm", "rate": rng.choice([8_000, 16_000])}),
            ]
        )
        for _ in range(rng.randrange(3, 12))
    ] + [append(bytes(64_000))]


async def test_every_item_that_begins_ends_once(engine: Running, clips: list[Clip]) -> None:
    voices = [pcm(clip, 0) for clip in clips[:4]]

    async def session(seed: int) -> None:
        sent = events(random.Random(seed), voices)
        async with websockets.connect(address(engine)) as socket:
            client = RealtimeClient(socket)
            await client.begin()
            for kind, fields in sent:
                await client.send(kind, **fields)
            await client.send("the end", event_id="the end")
            while (await client.until("error"))["error"]["event_id"] != "the end":
                pass
            while waits := unanswered(client.events):
                event = json.loads(await asyncio.wait_for(socket.recv(), SECONDS))
                assert event["item_id"] in waits
                client.events.append(event)
        in_order(client.events)

    for seed in range(0, 40, 8):
        await asyncio.gather(*(session(number) for number in range(seed, seed + 8)))
    assert "Traceback" not in engine.log


def unanswered(told: list[dict[str, Any]]) -> set[str]:
    ends = {TRANSCRIPTION + "completed", TRANSCRIPTION + "failed"}
    committed = [e["item_id"] for e in told if e["type"] == "input_audio_buffer.committed"]
    return set(committed) - {e["item_id"] for e in told if e["type"] in ends}


def in_order(told: list[dict[str, Any]]) -> None:
    open_items: list[str] = []
    ended: list[str] = []
    for event in told:
        kind, item = event["type"], event.get("item_id")
        if kind == "input_audio_buffer.speech_started":
            assert not open_items, "one begins before the last one ends"
            open_items.append(item)
        elif kind == "input_audio_buffer.speech_stopped":
            assert open_items == [item]
        elif kind == "input_audio_buffer.committed":
            assert open_items in ([], [item])
            assert event["previous_item_id"] == (ended[-1] if ended else None)
            open_items.clear()
            ended.append(item)
        elif kind == "input_audio_buffer.cleared":
            open_items.clear()
        elif kind.startswith(TRANSCRIPTION):
            assert item in (*open_items, *ended)
    assert not open_items, "one began and did not end"
    final = [e["item_id"] for e in told if e["type"].endswith((".completed", ".failed"))]
    assert sorted(final) == sorted(set(ended))
    times = [value for e in told for name, value in e.items() if name.endswith("_ms")]
    assert times == sorted(times)


def messages(rng: random.Random, voices: list[bytes], webm: bytes) -> list[str | bytes]:
    """FunASR's, with recordings that begin without a word, end twice, and change in the middle."""

    def speech() -> bytes:
        voice = rng.choice(voices)
        start = rng.randrange(0, len(voice) // 2) * 2
        return voice[start : start + rng.choice([1921, 9600, 32_000])]

    return [
        rng.choice(
            [
                *(speech() for _ in range(4)),
                bytes(16_000),
                b"",
                webm,
                first(rng.choice(["2pass", "online", "offline"])),
                first("2pass", wav_format=rng.choice(["webm", "PCM", "others"])),
                first("2pass", audio_fs=rng.choice([8_000, 48_000])),
                json.dumps({"is_speaking": False}),
                json.dumps({"is_speaking": True}),
                json.dumps({"is_end": True}),
                json.dumps({}),
            ]
        )
        for _ in range(rng.randrange(3, 12))
    ]


@pytest.mark.parametrize("python", [True, False], ids=["python", "others"])
async def test_every_recording_ends_with_a_final_message(
    engine: Running, clips: list[Clip], python: bool
) -> None:
    voices = [pcm(clip, 0) for clip in clips[:4]]
    webm = encode(clips[0].samples, Format("webm", "webm", "libopus", 48_000, "mono"))

    async def session(seed: int) -> None:
        rng = random.Random(seed)
        async with websockets.connect(
            address(engine, "/ws"), **(PYTHON if python else {})
        ) as socket:
            for message in messages(rng, voices, webm):
                await socket.send(message)
            await socket.send(json.dumps({"is_speaking": False, "is_end": True}))
            await said(socket, ack=True)
            # and the next recording is as if nothing had been
            await socket.send(first("2pass", wav_name="next"))
            await socket.send(voices[1])
            await socket.send(json.dumps({"is_speaking": False, "is_end": True}))
            told = await said(socket, ack=True)
            assert {message["wav_name"] for message in told} == {"next"}
            assert told[-1]["is_final"]
            assert [m["is_final"] for m in told if m["mode"] == "2pass-offline"][-1]
            texts[seed] = "".join(m["text"] for m in told if m["mode"] == "2pass-offline")

    texts: dict[int, str] = {}
    for seed in range(0, 40, 8):
        await asyncio.gather(*(session(number) for number in range(seed, seed + 8)))
    assert len(set(texts.values())) == 1
    assert "a live session failed" not in engine.log
