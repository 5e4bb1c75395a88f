"""OpenAI's Realtime API on a real engine."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("av", reason="run with a speech environment's Python")
pytest.importorskip("aiohttp", reason="the client of files")
pytest.importorskip("hypothesis")

import aiohttp
import websockets
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.speech.live.conftest import (
    KEY,
    REALTIME,
    SECONDS,
    TRANSCRIPTION,
    Clip,
    RealtimeClient,
    address,
    pcm,
)
from tests.speech.server.conftest import SHARED, Running
from tests.support.polling import eventually


async def as_file(engine: Running, data: bytes, **fields: str) -> str:
    """The text of the same samples as a file."""
    form = aiohttp.FormData({"model": "sensevoice", "sample_rate": "16000", **fields})
    form.add_field("file", data, filename="clip.pcm")
    async with (
        aiohttp.ClientSession() as session,
        session.post(engine.url + "/v1/audio/transcriptions", data=form) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return str((await answer.json())["text"])


async def spoken(engine: Running, clip: Clip) -> tuple[str, RealtimeClient]:
    async with websockets.connect(address(engine)) as socket:
        client = RealtimeClient(socket)
        await client.begin()
        await client.append(pcm(clip))
        done = await client.until(TRANSCRIPTION + "completed")
        return done["transcript"], client


async def test_every_clip_has_the_text_of_its_file(engine: Running, clips: list[Clip]) -> None:
    for clip in clips:
        text, client = await spoken(engine, clip)
        assert text == await as_file(engine, pcm(clip, 0))
        assert "".join(client.texts("delta", "delta")) == text
        kinds = [event["type"] for event in client.events]
        order = [
            "session.created",
            "session.updated",
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.created",
            TRANSCRIPTION + "segment",
            TRANSCRIPTION + "completed",
        ]
        assert [kind for kind in kinds if kind in order] == order
        items = {event["item_id"] for event in client.events if "item_id" in event}
        assert len(items) == 1
        assert len({event["event_id"] for event in client.events}) == len(client.events)


async def test_a_hundred_sessions_are_not_mixed_up(engine: Running, clips: list[Clip]) -> None:
    files = [await as_file(engine, pcm(clip, 0)) for clip in clips]
    assert len(set(files)) == len(files)
    results = await asyncio.gather(*(spoken(engine, clips[n % len(clips)]) for n in range(100)))
    contradicted = 0
    for number, (text, client) in enumerate(results):
        assert text == files[number % len(clips)]
        contradicted += not text.startswith("".join(client.texts("delta", "delta")))
    # A last word may be heard otherwise once it is whole; text of another session would be in most.
    assert contradicted < 50
    await eventually(lambda: engine.metric("live_sessions") == 0, "sessions gone")
    assert engine.metric("queue_segments") == 0


async def test_speech_at_the_speed_of_speech(engine: Running, clips: list[Clip]) -> None:
    """Partial texts come while the speaker speaks."""
    async with websockets.connect(address(engine)) as socket:
        client = RealtimeClient(socket)
        await client.begin()

        async def speak() -> None:
            data = pcm(clips[0])
            for at in range(0, len(data), 3200):
                await client.append(data[at : at + 3200])
                await asyncio.sleep(0.1)

        speaking = asyncio.create_task(speak())
        done = await client.until(TRANSCRIPTION + "completed")
        await speaking
        kinds = [event["type"] for event in client.events]
        stopped = kinds.index("input_audio_buffer.speech_stopped")
        assert TRANSCRIPTION + "delta" in kinds[:stopped]
        assert "".join(client.texts("delta", "delta")) == done["transcript"]


async def test_several_utterances_in_one_session(engine: Running, clips: list[Clip]) -> None:
    texts = []
    async with websockets.connect(address(engine)) as socket:
        client = RealtimeClient(socket)
        await client.begin(turn_detection={"type": "server_vad", "silence_duration_ms": 700})
        for clip in clips[:4]:
            await client.append(pcm(clip, 1.5), piece=50_000)
            texts.append((await client.until(TRANSCRIPTION + "completed"))["transcript"])
        committed = [e for e in client.events if e["type"] == "input_audio_buffer.committed"]
    assert [event["previous_item_id"] for event in committed] == [
        None,
        *[event["item_id"] for event in committed[:-1]],
    ]
    for clip, text in zip(clips, texts, strict=False):
        assert text == await as_file(engine, pcm(clip, 0))
    starts = [e["audio_start_ms"] for e in client.events if "audio_start_ms" in e]
    assert starts == sorted(starts)
    assert starts[1] > 1000 * len(clips[0].samples) / 16000


async def test_the_client_says_where_a_text_ends(engine: Running, clips: list[Clip]) -> None:
    """Without turn detection what was appended is a file: two clips with their pause, in one."""
    async with websockets.connect(address(engine)) as socket:
        client = RealtimeClient(socket)
        await client.begin(turn_detection=None)
        for pair in (clips[:2], clips[2:4]):
            data = b"".join(pcm(clip, 3.0) for clip in pair)
            await client.append(data)
            await client.send("input_audio_buffer.commit")
            done = await client.until(TRANSCRIPTION + "completed")
            assert done["transcript"] == await as_file(engine, data)
            assert done["usage"] == {"type": "duration", "seconds": round(len(data) / 32000, 3)}
        assert "input_audio_buffer.speech_started" not in {e["type"] for e in client.events}
        await client.append(pcm(clips[0]))
        await client.send("input_audio_buffer.clear")
        await client.until("input_audio_buffer.cleared")
        await client.send("input_audio_buffer.commit", event_id="mine")
        error = (await client.until("error"))["error"]
        assert error["code"] == "input_audio_buffer_commit_empty"
        assert error["event_id"] == "mine"


async def test_other_formats_give_the_same_text(engine: Running, clips: list[Clip]) -> None:
    import io

    import av

    clip = clips[2]
    expected = await as_file(engine, pcm(clip, 0))
    samples = (clip.samples * 32767).astype("<i2")

    def frames(rate: int) -> list[Any]:
        frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
        frame.sample_rate = 16000
        resampler = av.AudioResampler("s16", "mono", rate)
        return [*resampler.resample(frame), *resampler.resample(None)]

    def recorded(container: str) -> bytes:
        target = io.BytesIO()
        with av.open(target, "w", format=container) as output:
            stream = output.add_stream("libopus", rate=48000)
            stream.layout = "mono"
            for frame in frames(48000):
                frame.pts = None
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        return target.getvalue()

    at_24k = b"".join(frame.to_ndarray().tobytes() for frame in frames(24000))
    for kind, data in (
        ({"type": "audio/pcm", "rate": 24000}, at_24k),
        ({"type": "audio/webm"}, recorded("webm")),
        ({"type": "audio/ogg"}, recorded("ogg")),
    ):
        async with websockets.connect(address(engine)) as socket:
            client = RealtimeClient(socket)
            await client.begin()
            await client.update(format=kind, turn_detection=None)
            await client.append(data)
            await client.send("input_audio_buffer.commit")
            done = await client.until(TRANSCRIPTION + "completed")
            assert done["transcript"] == expected, kind


async def test_faults_do_not_end_the_session(engine: Running, clips: list[Clip]) -> None:
    async with websockets.connect(address(engine)) as socket:
        client = RealtimeClient(socket)
        await client.begin()

        async def refused(message: Any, code: str, param: str | None) -> None:
            await socket.send(message if isinstance(message, str | bytes) else json.dumps(message))
            error = (await client.until("error"))["error"]
            assert (error["code"], error["param"]) == (code, param), error
            assert error["type"] == "invalid_request_error"

        def turn(**fields: Any) -> dict[str, Any]:
            sound = {"turn_detection": {"type": "server_vad", **fields}}
            return {"type": "session.update", "session": {"audio": {"input": sound}}}

        at = "session.audio.input"
        await refused("no json", "invalid_json", None)
        await refused(b"\x00\x01", "invalid_json", None)
        await refused([], "invalid_json", None)
        await refused({"type": "response.create"}, "invalid_event_type", "type")
        await refused({"type": ["x"]}, "invalid_event_type", "type")
        await refused({"type": "input_audio_buffer.append"}, "missing_required_parameter", "audio")
        await refused({"type": "input_audio_buffer.append", "audio": "?"}, "invalid_value", "audio")
        await refused({"type": "input_audio_buffer.append", "audio": 7}, "invalid_value", "audio")
        await refused(turn(threshold=2), "invalid_value", f"{at}.turn_detection.threshold")
        await refused(turn(threshold="x"), "invalid_type", f"{at}.turn_detection.threshold")
        await refused(turn(type="semantic_vad"), "invalid_value", f"{at}.turn_detection.type")
        await refused(turn(what=1), "unknown_parameter", f"{at}.turn_detection.what")
        session: dict[str, Any] = {"type": "realtime"}
        await refused(
            {"type": "session.update", "session": session}, "invalid_value", "session.type"
        )
        sound = {"transcription": {"model": "gpt-4o-transcribe"}}
        session = {"audio": {"input": sound}}
        await refused(
            {"type": "session.update", "session": session},
            "model_not_found",
            f"{at}.transcription.model",
        )
        sound = {"transcription": {"language": "klingon"}}
        session = {"audio": {"input": sound}}
        await refused(
            {"type": "session.update", "session": session}, "unknown_language", "language"
        )
        await refused(
            {"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty", None
        )
        await client.append(pcm(clips[1]))
        done = await client.until(TRANSCRIPTION + "completed")
        assert done["transcript"] == await as_file(engine, pcm(clips[1], 0))


async def test_the_older_form_of_the_settings(engine: Running, clips: list[Clip]) -> None:
    async with websockets.connect(address(engine)) as socket:
        client = RealtimeClient(socket)
        await client.until("session.created")
        await client.send(
            "transcription_session.update",
            session={
                "input_audio_format": "g711_ulaw",
                "input_audio_transcription": {"model": "sensevoice", "language": "en"},
                "turn_detection": {"type": "server_vad", "threshold": 0.4},
                "input_audio_noise_reduction": {"type": "near_field"},
            },
        )
        told = (await client.until("transcription_session.updated"))["session"]
        assert told["input_audio_format"] == "g711_ulaw"
        assert told["turn_detection"]["threshold"] == 0.4
        assert told["input_audio_transcription"]["language"] == "en"
        await client.append(b"\xff" * 16000)  # two seconds of silence
        await client.send("input_audio_buffer.commit")
        assert (await client.until(TRANSCRIPTION + "completed"))["transcript"] == ""


async def test_the_events_are_those_of_the_specification(
    engine: Running, clips: list[Clip]
) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    document = SHARED / "openai" / "openapi.json"
    if not document.is_file():
        pytest.skip("OpenAI's specification is not beside the repository")
    whole = json.loads(document.read_text("utf-8"))
    _, client = await spoken(engine, clips[0])
    names = {
        kind: name
        for name, schema in whole["components"]["schemas"].items()
        if name.startswith("RealtimeServerEvent")
        for kind in schema.get("properties", {}).get("type", {}).get("enum", ())
    }
    for event in client.events:
        schema = {"$ref": f"#/components/schemas/{names[event['type']]}"} | {
            "components": whole["components"]
        }
        checked = event
        if event["type"].startswith("session."):  # of a oneOf whose parts the document mixes up
            name = "RealtimeTranscriptionSessionCreateResponseGA"
            schema["$ref"] = f"#/components/schemas/{name}"
            checked = event["session"]
            checked["audio"]["input"]["format"]["rate"] = 24000  # OpenAI takes no other
            del checked["audio"]["input"]["noise_reduction"]  # null, which its own answers have
        jsonschema.validate(checked, schema)


async def test_a_key_is_asked_for(
    start_engine: Callable[..., Running], sensevoice_dir: Path, vad_dir: Path
) -> None:
    engine = start_engine(
        "--vad", str(vad_dir), "--max-sessions", "1", program="yibu.speech", model=sensevoice_dir,
        environment={"YIBU_SPEECH_KEY": KEY, "PYTHONPATH": "src"},
    )  # fmt: skip

    async def status(path: str = REALTIME, **arguments: Any) -> int:
        with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
            await websockets.connect(address(engine, path), **arguments)
        body = json.loads(refused.value.response.body)
        assert body["error"]["message"]
        return refused.value.response.status_code

    right = {"Authorization": f"Bearer {KEY}"}
    assert await status() == 401
    assert await status("/ws") == 401
    assert await status(additional_headers={"Authorization": "Bearer other"}) == 401
    assert await status(subprotocols=["realtime", "openai-insecure-api-key.other"]) == 401
    assert await status(REALTIME + "&model=other", additional_headers=right) == 404
    assert await status("/v1/realtime?intent=talk", additional_headers=right) == 400
    browser = ["realtime", f"openai-insecure-api-key.{KEY}"]
    async with websockets.connect(address(engine), subprotocols=browser) as socket:
        assert socket.subprotocol == "realtime"
        await RealtimeClient(socket).until("session.created")
        assert await status(additional_headers=right) == 429
        assert "yibu_speech_live_sessions 1.0\n" in engine.get("/metrics", key=KEY)[1]


async def test_a_page_of_another_site_is_refused(engine: Running) -> None:
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        await websockets.connect(address(engine), origin="https://evil.example")
    assert refused.value.response.status_code == 401
    own = engine.url
    async with websockets.connect(address(engine), origin=own) as socket:
        await RealtimeClient(socket).until("session.created")


async def test_clients_that_leave_or_do_not_read_leave_nothing_behind(
    engine: Running, clips: list[Clip]
) -> None:
    data = pcm(clips[0])
    quitters = []
    for _ in range(8):
        socket = await websockets.connect(address(engine))
        client = RealtimeClient(socket)
        await client.begin()
        await client.append(data[: len(data) // 2])
        quitters.append(socket)
    for socket in quitters:
        socket.transport.abort()
    deaf = await websockets.connect(address(engine), max_queue=1)
    client = RealtimeClient(deaf)
    await client.begin()
    await client.append(data)
    text, _ = await spoken(engine, clips[1])
    assert text == await as_file(engine, pcm(clips[1], 0))
    done = await client.until(TRANSCRIPTION + "completed")
    assert done["transcript"] == await as_file(engine, pcm(clips[0], 0))
    deaf.transport.abort()
    await eventually(lambda: engine.metric("live_sessions") == 0, "sessions gone")


async def test_a_session_takes_little_memory_however_long_it_is(
    engine: Running, clips: list[Clip]
) -> None:
    """Eight sessions hear three minutes each, in a burst, with speech and pauses."""
    data = b"".join(pcm(clip, 1.0) for clip in clips)
    sockets = [await websockets.connect(address(engine)) for _ in range(8)]
    clients = [RealtimeClient(socket) for socket in sockets]

    async def talk(client: RealtimeClient, minutes: int) -> None:
        for _ in range(2 * minutes):
            await client.append(data, piece=32_000)
            await client.send("input_audio_buffer.commit")
            await client.until("input_audio_buffer.committed")
            client.events.clear()

    for client in clients:
        await client.begin()
    await asyncio.gather(*(talk(client, 1) for client in clients))
    before = engine.resident_bytes()
    await asyncio.gather(*(talk(client, 2) for client in clients))
    grown = engine.resident_bytes() - before
    assert grown < 8 * 3 * 2**20, f"{grown / 2**20:.1f} MiB"
    for socket in sockets:
        await socket.close()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
INPUT = st.fixed_dictionaries(
    {},
    optional={
        "format": JSON | st.fixed_dictionaries({}, optional={"type": JSON, "rate": JSON}),
        "transcription": JSON
        | st.fixed_dictionaries({}, optional={"model": JSON, "language": JSON}),
        "noise_reduction": JSON,
        "turn_detection": JSON
        | st.fixed_dictionaries(
            {"type": st.just("server_vad")},
            optional={"threshold": JSON, "silence_duration_ms": JSON, "prefix_padding_ms": JSON},
        ),
    },
)
EVENTS = (
    st.binary(max_size=40)
    | st.text(max_size=40)
    | JSON.map(json.dumps)
    | st.fixed_dictionaries(
        {
            "type": st.sampled_from(
                [
                    "session.update",
                    "transcription_session.update",
                    "input_audio_buffer.append",
                    "input_audio_buffer.commit",
                    "input_audio_buffer.clear",
                ]
            )
            | JSON
        },
        optional={
            "event_id": JSON,
            "audio": JSON | st.binary(max_size=9000).map(lambda b: base64.b64encode(b).decode()),
            "session": JSON
            | INPUT.map(lambda sound: {"type": "transcription", "audio": {"input": sound}}),
        },
    ).map(json.dumps)
)


def sendable(message: str | bytes) -> str | bytes:
    """Half a surrogate pair is nothing that can be sent but in JSON's own escape."""
    return message if isinstance(message, bytes) else message.encode("utf-8", "replace").decode()


@pytest.mark.timeout(900)
async def test_no_message_ends_a_session(engine: Running, clips: list[Clip]) -> None:
    loop = asyncio.get_running_loop()

    @settings(max_examples=60)
    @given(st.lists(EVENTS, max_size=6))
    def each(messages: list[str | bytes]) -> None:
        asyncio.run_coroutine_threadsafe(survives(messages), loop).result(SECONDS)

    async def survives(messages: list[str | bytes]) -> None:
        async with websockets.connect(address(engine)) as socket:
            client = RealtimeClient(socket)
            await client.until("session.created")
            for message in messages:
                await socket.send(sendable(message))
            await client.update()

    await asyncio.to_thread(each)
    text, _ = await spoken(engine, clips[1])
    assert text == await as_file(engine, pcm(clips[1], 0))
    assert "Traceback" not in engine.log
