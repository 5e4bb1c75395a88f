"""The whole server as a process on a socket, with the tone model behind it."""

from __future__ import annotations

import asyncio
import io
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("av", reason="run with a speech environment's Python")
pytest.importorskip("aiohttp", reason="the tests' client")

import aiohttp
import numpy as np

from tests.speech.server.conftest import REPOSITORY, Running
from tests.speech.server.media import FORMATS, encode, silence, tone, wav
from tests.support.connections import connected
from tests.support.polling import until
from yibu.engines.causes import explain

Start = Callable[..., Running]
TRANSCRIPTIONS = "/v1/audio/transcriptions"
MODEL = "tone-model"
SECOND = wav(tone(440, 1.0))


def form(data: bytes, name: str = "a.wav", **fields: str | list[str]) -> Any:
    body = aiohttp.FormData()
    body.add_field("file", io.BytesIO(data), filename=name)
    for field, values in ({"model": MODEL} | fields).items():
        for value in values if isinstance(values, list) else [values]:
            name = f"{field}[]" if field == "timestamp_granularities" else field
            body.add_field(name, value)
    return body


async def post(
    engine: Running, data: bytes, path: str = TRANSCRIPTIONS, **fields: Any
) -> tuple[int, Any, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(engine.url + path, data=form(data, **fields)) as answer,
    ):
        kind = answer.headers["content-type"]
        content = await (answer.json() if "json" in kind else answer.text())
        return answer.status, content, answer.headers


async def test_a_transcription_in_every_response_format(start_engine: Start) -> None:
    engine = start_engine()
    data = wav(np.concatenate([silence(0.5), tone(440, 1.0), silence(1.0), tone(880, 2.0)]))
    status, answer, _ = await post(engine, data)
    assert (status, answer["text"]) == (200, "440Hz 880Hz")
    assert answer["usage"] == {"type": "duration", "seconds": 5}  # an integer, as OpenAI's is
    status, answer, headers = await post(engine, data, response_format="text")
    assert (status, answer) == (200, "440Hz 880Hz\n")
    assert headers["content-type"].startswith("text/plain")
    _, answer, headers = await post(engine, data, response_format="srt")
    assert answer.startswith("1\n00:00:00,500 --> 00:00:01,500\n440Hz\n\n2\n00:00:02,500 -->")
    assert headers["content-type"] == "application/x-subrip; charset=utf-8"
    _, answer, headers = await post(engine, data, response_format="vtt")
    assert headers["content-type"] == "text/vtt; charset=utf-8"
    assert answer.startswith("WEBVTT\n\n00:00:00.500 --> 00:00:01.500\n440Hz\n")
    _, answer, _ = await post(
        engine,
        data,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
        language="zn",
    )
    assert answer["language"] == "chinese"
    assert [segment["start"] for segment in answer["segments"]] == [0.5, 2.5]
    assert answer["segments"][0]["emotion"] == "NEUTRAL"
    assert answer["segments"][0]["events"] == ["Speech"]
    assert [word["word"] for word in answer["words"]] == ["440Hz", "880Hz"]


async def test_the_other_routes(start_engine: Start) -> None:
    engine = start_engine("--served-model-name", "org/asr")
    for path in ("/recognize/", "/recognize"):
        for field in ("file", "audio"):
            async with aiohttp.ClientSession() as session:
                body = aiohttp.FormData()
                body.add_field(field, SECOND, filename="x")
                async with session.post(engine.url + path, data=body) as answer:
                    assert (answer.status, await answer.json()) == (200, {"result": "440Hz"})
    assert '"id":"org/asr"' in engine.get("/v1/models")[1]
    assert '"id":"org/asr"' in engine.get("/v1/models/org/asr")[1]
    assert engine.get("/v1/models/other")[0] == 404
    assert engine.get("/health") == (200, '{"status":"ok"}')
    assert engine.get("/nowhere")[0] == 404
    assert engine.get(TRANSCRIPTIONS)[0] == 405
    assert engine.metric("audio_seconds_in_total") == pytest.approx(4.0)
    assert engine.metric("audio_seconds_out_total") == pytest.approx(4.0)
    assert engine.metric("batch_size_count") == 4
    assert engine.metric("real_time_factor_count") == 4
    assert engine.metric("time_to_first_segment_seconds_count") == 4
    assert engine.metric("queue_seconds") == 0


async def test_silence_has_no_text(start_engine: Start) -> None:
    engine = start_engine()
    quiet = wav(silence(3.0))
    assert (await post(engine, quiet))[1]["text"] == ""
    assert (await post(engine, quiet, response_format="text"))[1] == "\n"
    assert (await post(engine, quiet, response_format="vtt"))[1] == "WEBVTT\n\n"
    assert (await post(engine, quiet, "/recognize/"))[1] == {"result": ""}
    _, stream, _ = await post(engine, quiet, stream="true")
    assert stream == 'data: {"type":"transcript.text.done","text":""}\n\n'


PCM = (tone(440, 1.0) * 32767).astype("<i2").tobytes()
FLAC = encode(tone(440, 6.0), next(how for how in FORMATS if how.name == "flac"))
RAW = {"name": "a.pcm", "sample_rate": "16000"}
MISTAKES = [
    (b"", {}, 400, "file", "empty"),
    (b"not audio" * 500, {}, 400, "file", "not audio"),
    (FLAC[: len(FLAC) // 2], {}, 400, "file", "cut short"),
    (SECOND, {"model": "other"}, 404, "model", "not served here"),
    (SECOND, {"model": ""}, 400, "model", "missing"),
    (SECOND, {"language": "xx"}, 400, "language", "auto, en, ja, ko, nospeech, yue, zh"),
    (SECOND, {"response_format": "diarized_json"}, 400, "response_format", "verbose_json"),
    (SECOND, {"temperature": "1.5"}, 400, "temperature", "0 to 1"),
    (SECOND, {"temperature": "nan"}, 400, "temperature", "0 to 1"),
    (SECOND, {"temperature": "warm"}, 400, "temperature", "0 to 1"),
    (SECOND, {"stream": "maybe"}, 400, "stream", "true or false"),
    (SECOND, {"stream": "true", "response_format": "srt"}, 400, "stream", "srt"),
    (SECOND, {"timestamp_granularities": ["phone"]}, 400, "timestamp_granularities", "phone"),
    (SECOND, {"timestamp_granularities": ["word"]}, 400, "timestamp_granularities", "verbose"),
    (SECOND, {"include[]": "logprobs"}, 400, "include", "not supported"),
    (SECOND, {"prompt": "x" * 5000}, 400, "prompt", "4096"),
    (PCM, {"name": "a.pcm"}, 400, "sample_rate", "sample_rate"),
    (PCM, RAW | {"sample_rate": "fast"}, 400, "sample_rate", "whole number"),
    (PCM, RAW | {"sample_rate": "7"}, 400, "file", "sample rate"),
    (PCM, RAW | {"channels": "0"}, 400, "file", "channels"),
    (PCM, RAW | {"sample_format": "s13"}, 400, "sample_format", "s16le"),
    (SECOND, {"sample_rate": "8000"}, 400, "sample_rate", "header"),
    (SECOND, {"audio_track": "1"}, 400, "audio_track", "one audio track"),
    (SECOND, {"audio_track": "de"}, 400, "audio_track", "whole number"),
]


async def test_mistakes_are_answered_in_openais_shape_and_leave_nothing(
    start_engine: Start,
) -> None:
    engine = start_engine()
    for data, fields, status, param, said in MISTAKES:
        for stream in {"false", fields.get("stream", "true")} - {"maybe"}:
            asked = {"stream": stream} | fields
            if "granularities" in str(asked) or "response_format" in asked:
                asked = fields
            found, answer, _ = await post(engine, data, **asked)
            error = answer["error"]
            assert (found, error["param"]) == (status, param), error
            assert said in error["message"]
            assert "\n" not in error["message"]
            assert set(error) == {"message", "type", "param", "code"}
            assert error["type"] == "invalid_request_error"
    found, answer, _ = await post(engine, b"junk", "/recognize/")
    assert found == 400
    assert isinstance(answer["error"], str)
    found, answer, _ = await post(engine, SECOND, "/v1/audio/translations")
    assert (found, answer["error"]["param"]) == (400, "model")
    assert "cannot translate" in answer["error"]["message"]
    assert engine.metric("in_flight") == 0
    assert list(engine.temporary.iterdir()) == []
    assert "Traceback" not in engine.log


async def test_the_answer_says_which_track_was_used_and_what_was_odd(start_engine: Start) -> None:
    engine = start_engine()
    numbered = {"timestamp_granularities[0]": "word", "timestamp_granularities[1]": ""}
    verbose = {"response_format": "verbose_json", "audio_track": "0", **numbered}
    answer = (await post(engine, SECOND, **verbose))[1]
    assert (answer["audio_track"], "audio_tracks" in answer, "notes" in answer) == (0, False, False)
    assert ("words" in answer, "segments" in answer) == (True, False)
    voice = tone(440, 1.0)
    opposite = np.stack([voice, -voice], axis=1).astype("<f4").tobytes()
    fields = RAW | {"channels": "2", "sample_format": "f32le"}
    answer = (await post(engine, opposite, **fields))[1]
    assert answer["text"] == "440Hz"
    assert ["opposite in phase" in note for note in answer["notes"]] == [True]


async def test_raw_pcm(start_engine: Start) -> None:
    engine = start_engine()
    pcm = (tone(440, 1.0, 8000) * 32767).astype("<i2").tobytes()
    assert (await post(engine, pcm, **RAW | {"sample_rate": "8000"}))[1]["text"] == "440Hz"
    async with aiohttp.ClientSession() as session:
        body = aiohttp.FormData({"model": MODEL})
        big_endian = np.frombuffer(pcm, "<i2").astype(">i2").tobytes()
        body.add_field("file", big_endian, filename="x", content_type="audio/L16; rate=8000")
        async with session.post(engine.url + TRANSCRIPTIONS, data=body) as answer:
            assert (await answer.json())["text"] == "440Hz"


async def test_the_key(start_engine: Start) -> None:
    engine = start_engine(environment={"YIBU_SPEECH_KEY": "s3cret-key"})
    status, answer, headers = await post(engine, SECOND)
    assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
    assert headers["www-authenticate"] == "Bearer"
    assert engine.get("/metrics")[0] == 401
    assert engine.get("/v1/models", key="s3cret-keX")[0] == 401
    assert engine.get("/v1/models", key="s3cret-key")[0] == 200
    assert engine.get("/health")[0] == 200
    arguments = Path(f"/proc/{engine.process.pid}/cmdline")
    assert not arguments.exists() or b"s3cret" not in arguments.read_bytes()
    assert "s3cret" not in engine.log


async def test_32_uploads_of_2_mb_at_once_with_nothing_mixed_up(start_engine: Start) -> None:
    engine = start_engine(environment={"TONE_COST": "0.001"})
    frequencies = [300 + 100 * number for number in range(32)]
    files = [encode(tone(f, 12.0, 44_100), FORMATS[3], 44_100) for f in frequencies]
    assert min(map(len, files)) > 2_000_000
    answers = await asyncio.gather(*(post(engine, data) for data in files))
    for frequency, (status, answer, _) in zip(frequencies, answers, strict=True):
        assert status == 200, answer
        assert answer["text"] == f"{frequency}Hz {frequency}Hz"
        assert answer["usage"]["seconds"] == 12
    assert list(engine.temporary.iterdir()) == []


async def test_a_stream_tells_each_segment_when_it_is_finished(start_engine: Start) -> None:
    engine = start_engine(environment={"TONE_COST": "0.3"})
    clips = [piece for f in (300, 500, 700) for piece in (tone(f, 1.0), silence(0.5))]
    deltas = []
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            engine.url + TRANSCRIPTIONS, data=form(wav(np.concatenate(clips)), stream="true")
        ) as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        busy_at_first = None
        async for line in answer.content:
            if line.startswith(b"data:"):
                if busy_at_first is None:
                    busy_at_first = engine.metric("in_flight")
                deltas.append(line)
    assert busy_at_first == 1
    assert b'"delta":"300Hz"' in deltas[0]
    assert b'"delta":" 500Hz"' in deltas[1]
    assert b'"text":"300Hz 500Hz 700Hz"' in deltas[-1]
    assert len(deltas) == 4


async def test_a_failure_costs_its_own_request_alone(start_engine: Start) -> None:
    engine = start_engine(environment={"TONE_BROKEN": "660", "TONE_COST": "0.02"})
    tones = [440, 660, 880, 660, 1000, 1200]
    answers = await asyncio.gather(*(post(engine, wav(tone(f, 1.0))) for f in tones))
    for frequency, (status, answer, _) in zip(tones, answers, strict=True):
        if frequency == 660:
            assert (status, answer["error"]["type"]) == (500, "server_error")
            assert "bear" not in answer["error"]["message"]
        else:
            assert (status, answer["text"]) == (200, f"{frequency}Hz")
    data = wav(np.concatenate([tone(440, 1.0), silence(1.0), tone(660, 1.0)]))
    status, stream, _ = await post(engine, data, stream="true")
    assert status == 200
    assert '"delta":"440Hz"' in stream
    assert 'data: {"error":{"message":"The model failed' in stream
    assert "transcript.text.done" not in stream
    assert engine.metric("model_failures_total") == 3
    assert (await post(engine, SECOND))[0] == 200


@pytest.mark.parametrize("stream", ["false", "true"])
async def test_a_client_that_leaves_frees_its_place(start_engine: Start, stream: str) -> None:
    engine = start_engine(environment={"TONE_COST": "0.2"})
    async with aiohttp.ClientSession() as session:
        leaving = asyncio.create_task(
            session.post(
                engine.url + TRANSCRIPTIONS, data=form(wav(tone(440, 300.0)), stream=stream)
            )
        )
        await asyncio.to_thread(until, lambda: engine.metric("queue_seconds") > 30)
        if not leaving.done():
            leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
    await asyncio.to_thread(until, lambda: engine.metric("disconnects_total") == 1)
    assert engine.metric("in_flight") == 0
    assert engine.metric("queue_seconds") == 0
    assert engine.metric("queue_segments") == 0
    assert (await post(engine, SECOND))[1]["text"] == "440Hz"


async def test_a_client_that_leaves_in_its_upload(start_engine: Start) -> None:
    engine = start_engine()
    host, port = engine.url[7:].split(":")
    async with connected(int(port), host) as (_, writer):
        writer.write(
            b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
            b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + bytes(3_000_000)
        )
        await writer.drain()
        await asyncio.to_thread(until, lambda: engine.metric("in_flight") == 1)
    await asyncio.to_thread(until, lambda: engine.metric("disconnects_total") == 1)
    assert engine.metric("in_flight") == 0
    assert list(engine.temporary.iterdir()) == []


async def test_a_short_file_overtakes_a_long_one(start_engine: Start) -> None:
    engine = start_engine(environment={"TONE_COST": "0.05"})
    long = asyncio.create_task(post(engine, wav(tone(440, 240.0))))
    await asyncio.to_thread(until, lambda: engine.metric("audio_seconds_out_total") > 0)
    for frequency in (880, 990, 1100):
        assert (await post(engine, wav(tone(frequency, 2.0))))[1]["text"] == f"{frequency}Hz"
    assert not long.done()
    assert (await long)[1]["text"] == " ".join(["440Hz"] * 24)


async def test_a_full_queue_answers_429_and_recovers(start_engine: Start) -> None:
    engine = start_engine("--max-queue-seconds", "20", environment={"TONE_COST": "0.1"})
    answers = await asyncio.gather(*(post(engine, wav(tone(400 + 100 * n, 9.0))) for n in range(8)))
    statuses = [status for status, _, _ in answers]
    assert set(statuses) == {200, 429}
    for status, answer, headers in answers:
        if status == 429:
            assert answer["error"]["type"] == "rate_limit_error"
            assert "queue is full" in answer["error"]["message"]
            assert 1 <= int(headers["retry-after"]) <= 60
    assert engine.metric("rejected_total") == statuses.count(429)
    assert (await post(engine, SECOND))[0] == 200


async def test_too_many_requests_are_refused_before_their_upload(start_engine: Start) -> None:
    engine = start_engine("--max-requests", "2", environment={"TONE_COST": "0.5"})
    running = [asyncio.create_task(post(engine, wav(tone(440, 4.0)))) for _ in range(2)]
    await asyncio.to_thread(until, lambda: engine.metric("in_flight") == 2)
    status, answer, headers = await post(engine, SECOND)
    assert (status, answer["error"]["code"]) == (429, "rate_limit_exceeded")
    assert "retry-after" in headers
    assert [status for status, _, _ in await asyncio.gather(*running)] == [200, 200]


async def test_limits_on_bytes_and_duration(start_engine: Start) -> None:
    engine = start_engine("--max-upload-mib", "1", "--max-audio-seconds", "20")
    status, answer, _ = await post(engine, bytes(3_000_000))
    assert (status, answer["error"]["code"]) == (413, "request_too_large")
    assert "1 MiB" in answer["error"]["message"]
    opus = next(how for how in FORMATS if how.name == "ogg opus")
    for stream in ("false", "true"):
        status, answer, _ = await post(engine, encode(silence(60.0), opus), stream=stream)
        assert (status, answer["error"]["code"]) == (400, "audio_too_long")


async def test_health_and_the_loop_stay_quick_while_the_model_computes(
    start_engine: Start,
) -> None:
    """Not a timing test: the answers arrive while a single batch is still being computed."""
    engine = start_engine(environment={"TONE_COST": "0.5"})
    slow = asyncio.create_task(post(engine, SECOND))
    await asyncio.to_thread(until, lambda: engine.metric("in_flight") == 1)
    async with aiohttp.ClientSession() as session:
        for _ in range(20):
            async with session.get(engine.url + "/health") as answer:
                assert answer.status == 200
    assert not slow.done()
    await slow


def test_a_model_that_hangs_is_unhealthy(start_engine: Start) -> None:
    engine = start_engine("--stall-timeout", "0.2", environment={"TONE_COST": "5"})
    with socket.create_connection(engine.url[7:].split(":")) as connection:
        body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        body += SECOND + b"\r\n--b--\r\n"
        connection.sendall(
            b"POST /recognize/ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" % len(body) + body
        )
        status, answer = until(
            lambda: (found := engine.get("/health"))[0] == 503 and found, seconds=10
        )
        assert "hangs" in answer
        assert status == 503


def test_not_ready_while_loading_then_ready(start_engine: Start) -> None:
    engine = start_engine(environment={"TONE_LOAD_SECONDS": "1.0"}, wait=False)
    status, answer = engine.get("/health")
    assert status == 503
    assert "still loading" in answer
    until(lambda: engine.get("/health")[0] == 200)
    assert "serving tone-model: precision fp32, VAD energy" in engine.log


def test_a_model_that_cannot_be_loaded_ends_the_engine(start_engine: Start) -> None:
    engine = start_engine(environment={"TONE_LOAD_FAILS": "1"}, wait=False)
    assert engine.process.wait(60) == 1
    assert "cannot be loaded" in engine.log
    assert "look inside" in engine.log
    assert "Traceback" not in engine.log
    told = explain(engine.log, ())
    assert (told.cause, told.hint) == ("unsupported", "look inside")
    assert told.message.endswith("cannot be loaded")


def test_a_port_in_use_is_said_before_loading() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        command = ["-m", "tests.speech.server.tone_engine", "--model", "m", "--port", port]
        ended = subprocess.run(
            [sys.executable, *command],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "flags",
    [
        ["--port", "x"],
        ["--port", "99999"],
        ["--threads", "0"],
        ["--max-requests", "-1"],
        ["--max-upload-mib", "abc"],
    ],
)
def test_a_wrong_command_line_is_exit_2(flags: list[str]) -> None:
    command = [sys.executable, "-m", "yibu.speech", "--model", "m", *flags]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert f"argument {flags[0]}: " in ended.stderr
    assert "parse value" not in ended.stderr  # argparse's words for a type without a name


async def test_sigterm_finishes_what_is_in_flight(start_engine: Start) -> None:
    engine = start_engine(environment={"TONE_COST": "1.0"})
    request = asyncio.create_task(post(engine, SECOND))
    await asyncio.to_thread(until, lambda: engine.metric("in_flight") == 1)
    engine.process.send_signal(signal.SIGTERM)
    assert (await request)[1]["text"] == "440Hz"
    assert await asyncio.to_thread(engine.process.wait, 20) == 0


async def test_a_killed_engine_leaves_no_file(start_engine: Start) -> None:
    engine = start_engine(environment={"TONE_COST": "1.0"})
    request = asyncio.create_task(post(engine, wav(tone(440, 120.0))))
    await asyncio.to_thread(until, lambda: engine.metric("queue_seconds") > 0)
    held = Path(f"/proc/{engine.process.pid}/fd")
    if held.exists():  # the upload is really on disk, and has no name there
        targets = [str(path.readlink()) for path in held.iterdir() if path.is_symlink()]
        assert any(str(engine.temporary) in target for target in targets)
    engine.process.kill()
    await asyncio.to_thread(engine.process.wait)
    with pytest.raises(aiohttp.ClientError):
        await request
    assert list(engine.temporary.iterdir()) == []


async def test_what_waits_for_the_model_holds_no_file(start_engine: Start) -> None:
    """Once it is read, an upload goes, however long its last segment has to wait."""
    engine = start_engine(environment={"TONE_COST": "0.5"})
    held = Path(f"/proc/{engine.process.pid}/fd")
    if not held.exists():
        pytest.skip("this system does not show which files a process holds")
    upload = wav(tone(440, 5.0))
    requests = [asyncio.create_task(post(engine, upload)) for _ in range(2)]

    def files() -> int:
        targets = [str(path.readlink()) for path in held.iterdir() if path.is_symlink()]
        return sum(str(engine.temporary) in target for target in targets)

    await asyncio.to_thread(until, lambda: engine.metric("queue_segments") == 1)
    await asyncio.to_thread(until, lambda: files() == 0)
    assert engine.metric("in_flight") == 2
    assert [(await request)[1]["text"] for request in requests] == ["440Hz", "440Hz"]
