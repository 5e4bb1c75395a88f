"""What an engine ends, or answers, that is no answer: an error, told once."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import aiohttp
import orjson
import pytest

from yibu.gateway.proxy import silence

from .conftest import FakeBackend, Serve, chat
from .engine_words import LLAMA_RESPONSE_STREAM, MESSAGE_STREAM
from .upstream import (
    DONE,
    LLAMA_CHAT,
    LLAMA_CHAT_STREAM,
    LLAMA_TEXT_STREAM,
    STREAM_HEAD,
    Behaviour,
    Upstream,
    answering,
    chunked,
    response,
    sending,
    streaming,
)

ALL = frozenset({"chat", "completions", "embeddings", "responses", "messages", "tokenize",
                 "rerank", "score", "transcriptions"})  # fmt: skip
CLOSED_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
SAY = [{"role": "user", "content": "hi"}]


def named(event: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event))


def bare(event: bytes) -> bytes:
    return b"data: " + event + b"\n\n"


STREAMS: dict[str, tuple[str, dict[str, Any], list[bytes]]] = {
    "chat": (
        "/v1/chat/completions",
        chat(stream=True),
        [bare(e) for e in (*LLAMA_CHAT_STREAM, DONE)],
    ),
    "completions": (
        "/v1/completions",
        {"model": "m", "prompt": "a", "stream": True},
        [bare(e) for e in (*LLAMA_TEXT_STREAM, DONE)],
    ),
    "responses": (
        "/v1/responses",
        {"model": "m", "input": "a", "stream": True},
        [named(e) for e in LLAMA_RESPONSE_STREAM],
    ),
    "messages": (
        "/v1/messages",
        {"model": "m", "messages": SAY, "max_tokens": 9, "stream": True},
        [named(e) for e in MESSAGE_STREAM],
    ),
}


def framed(events: list[bytes], framing: str) -> Behaviour:
    if framing == "close":
        return sending(CLOSED_HEAD, *events, close=True)
    parts = [STREAM_HEAD, *map(chunked, events)]
    return sending(*parts, b"0\r\n\r\n") if framing == "chunked" else sending(*parts, close=True)


@pytest.mark.parametrize("conforming", [False, True])
@pytest.mark.parametrize("framing", ["chunked", "close", "broken"])
@pytest.mark.parametrize("kind", STREAMS)
async def test_a_cut_stream_is_an_error_and_a_whole_one_is_not(
    serve: Serve, backend: FakeBackend, kind: str, framing: str, conforming: bool
) -> None:
    path, body, events = STREAMS[kind]
    async with Upstream(framed(events, framing)) as up, serve() as gateway:
        backend.add("m", up, capabilities=ALL, conforming=conforming)
        whole = await gateway.stream(path, body)
        assert '"error":{' not in whole
        assert whole.endswith("data: [DONE]\n\n") == (kind in ("chat", "completions"))
        finished = kind in ("chat", "completions")  # in the event before [DONE]
        for cut in range(2, len(events) - finished):
            up.behaviour = framed(events[:cut], framing)
            text = await gateway.stream(path, body)
            assert text.count('"error":{') == 1, text
            assert "engine_gone" in text.split("\n\n")[-2]
            assert "[DONE]" not in text
            # In the middle of an event: nothing of it is shown, for no client could read it.
            up.behaviour = framed([*events[:cut], events[cut][:-7]], framing)
            assert (await gateway.stream(path, body)).count("\n\n") == text.count("\n\n")
    assert backend.in_flight == 0


@pytest.mark.parametrize("kind", STREAMS)
async def test_a_whole_stream_that_the_engine_does_not_end_is_ended(
    serve: Serve, backend: FakeBackend, kind: str
) -> None:
    path, body, events = STREAMS[kind]
    endless = sending(STREAM_HEAD, *map(chunked, events), 600.0)
    async with Upstream(framed(events, "chunked")) as up, serve() as gateway:
        backend.add("m", up, capabilities=ALL)
        whole = await gateway.stream(path, body)
        up.behaviour = endless
        text = await gateway.stream(path, body)
        assert text.count("\n\n") == whole.count("\n\n")
        assert '"error":{' not in text
        assert gateway.app.pool.counts()[0] == 0
    assert [failed for _, failed in backend.finished] == [False, False]


@pytest.mark.parametrize("kind", STREAMS)
async def test_a_stream_without_any_event_has_a_status(
    serve: Serve, backend: FakeBackend, kind: str
) -> None:
    path, body, _ = STREAMS[kind]
    async with Upstream(framed([], "chunked")) as up, serve() as gateway:
        backend.add("m", up, capabilities=ALL)
        status, answer = await gateway.post(path, body)
    assert (status, answer["error"]["code"]) == (502, "engine_gone")


async def test_every_choice_has_to_be_finished(serve: Serve, backend: FakeBackend) -> None:
    last = [
        b'{"choices":[{"index":%d,"delta":{},"finish_reason":"stop"}]}' % index
        for index in range(3)
    ]
    async with Upstream(streaming(*last)) as up, serve() as gateway:
        backend.add("m", up)
        body = chat(stream=True, n=3)
        assert (await gateway.stream("/v1/chat/completions", body)).endswith("data: [DONE]\n\n")
        up.behaviour = streaming(*last[:2])
        assert "engine_gone" in await gateway.stream("/v1/chat/completions", body)
        up.behaviour = streaming(*last[:2], DONE)  # the engine's word for it
        assert "engine_gone" not in await gateway.stream("/v1/chat/completions", body)


async def test_the_connection_of_a_broken_stream_is_good_for_the_next_request(
    serve: Serve, backend: FakeBackend
) -> None:
    """An answer that was ended twice would be the beginning of the next one."""
    broken = streaming(*LLAMA_CHAT_STREAM[:2], close=True)
    async with Upstream(broken) as up, serve() as gateway:
        backend.add("m", up, up)
        connector = aiohttp.TCPConnector(limit=1)
        async with aiohttp.ClientSession(connector=connector) as session:
            url = gateway.url + "/v1/chat/completions"
            for _ in range(10):
                up.behaviour = broken
                async with session.post(url, json=chat(stream=True)) as answer:
                    text = await answer.text()
                assert text.count('"error"') == 1
                up.behaviour = answering(LLAMA_CHAT)
                async with session.post(url, json=chat()) as answer:
                    assert (await answer.json())["choices"][0]["message"]["content"] == "Hello"


JSON_PATHS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": chat(),
    "/v1/completions": {"model": "m", "prompt": "a"},
    "/v1/embeddings": {"model": "m", "input": "a"},
    "/v1/responses": {"model": "m", "input": "a"},
    "/v1/messages": {"model": "m", "messages": SAY, "max_tokens": 4},
    "/v1/messages/count_tokens": {"model": "m", "messages": SAY},
    "/v1/rerank": {"model": "m", "query": "a", "documents": ["b"]},
    "/v1/score": {"model": "m"},
    "/tokenize": {"model": "m", "prompt": "a"},
    "/detokenize": {"model": "m", "tokens": [1]},
}
NO_ANSWERS = {
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "205": response(b"", status="205 Reset Content"),
    "page": response(b"<html>ok</html>", kind="text/html"),
    "text": response(b"ok", kind="text/plain"),
    "no type": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "array": response(b"[1]"),
    "null": response(b"null"),
    "truncated": response(b'{"choices":[{"index"'),
    "empty": response(b""),
    "not UTF-8": response(b'{"a":"\xff"}'),
    "events": response(b"data: {}\n\ndata: [DONE]\n\n", kind="text/event-stream"),
    "compressed": response(b"{}").replace(b"server:", b"content-encoding: gzip\r\nserver:"),
    "redirect": response(b"", status="302 Found"),
}


@pytest.mark.parametrize("conforming", [False, True])
@pytest.mark.parametrize("path", JSON_PATHS)
async def test_a_success_that_is_no_answer_is_an_error(
    serve: Serve, backend: FakeBackend, path: str, conforming: bool
) -> None:
    async with Upstream(sending()) as up, serve() as gateway:
        backend.add("m", up, capabilities=ALL, conforming=conforming)
        for name, raw in NO_ANSWERS.items():
            up.behaviour = sending(raw)
            status, answer = await gateway.post(path, JSON_PATHS[path])
            assert (status, answer["error"]["code"]) == (502, "engine_protocol_error"), name


async def test_what_the_engine_says_of_its_bytes_is_not_said_of_ours(
    serve: Serve, backend: FakeBackend
) -> None:
    """Answers are written anew: in UTF-8, as JSON or events, and never compressed."""
    said = ("content-encoding: Identity\r\ncache-control: max-age=99\r\nretry-after: x\r\n"
            "content-disposition: attachment\r\nserver:")  # fmt: skip
    events = response(b"".join(map(bare, LLAMA_CHAT_STREAM)), kind="text/event-stream; charset=gbk")
    whole = response(json.dumps(LLAMA_CHAT).encode(), kind="application/problem+json; charset=gbk")
    async with Upstream(sending()) as up, serve() as gateway:
        backend.add("m", up)
        for raw, stream, kind in (
            (events, True, "text/event-stream; charset=utf-8"),
            (whole, False, "application/json"),
        ):
            up.behaviour = sending(raw.replace(b"server:", said.encode()))
            body = chat(stream=stream)
            async with gateway.http.post(f"{gateway.url}/v1/chat/completions", json=body) as answer:
                assert (answer.status, answer.headers["content-type"]) == (200, kind)
                assert answer.headers.get("cache-control") == ("no-cache" if stream else None)
                assert not {"content-encoding", "content-disposition", "retry-after"} & {
                    name.lower() for name in answer.headers
                }


async def test_a_refusal_in_bytes_that_cannot_be_read_keeps_its_status(
    serve: Serve, backend: FakeBackend
) -> None:
    packed = response(gzip.compress(b'{"error":"x"}'), status="422 x")
    packed = packed.replace(b"server:", b"content-encoding: gzip\r\nserver:")
    async with Upstream(sending(packed)) as up, serve() as gateway:
        backend.add("m", up)
        status, answer = await gateway.post("/v1/chat/completions", chat())
        assert (status, answer["error"]["message"]) == (422, "the engine answered 422")
        for code in ("401 x", "403 x", "407 x"):  # about the gateway, not its client
            up.behaviour = answering({}, status=code)
            status, answer = await gateway.post("/v1/chat/completions", chat())
            assert (status, answer["error"]["code"]) == (502, "engine_gone")


@pytest.mark.parametrize("kind", STREAMS)
async def test_a_stream_was_asked_for_and_something_else_came(
    serve: Serve, backend: FakeBackend, kind: str
) -> None:
    path, body, _ = STREAMS[kind]
    async with Upstream(sending()) as up, serve() as gateway:
        backend.add("m", up, capabilities=ALL)
        for name, raw in NO_ANSWERS.items():
            if name == "events":
                continue
            up.behaviour = sending(raw)
            status, answer = await gateway.post(path, body)
            assert (status, answer["error"]["code"]) == (502, "engine_protocol_error"), name
        for event in (b"hello", b"[1]", b'{"a":', b'"text"'):
            up.behaviour = sending(response(bare(event), kind="text/event-stream"))
            status, answer = await gateway.post(path, body)
            assert status == 502, event


async def test_transcripts_may_be_text(serve: Serve, backend: FakeBackend) -> None:
    def form(model: str = "m") -> aiohttp.FormData:
        data = aiohttp.FormData({"model": model})
        data.add_field("file", b"RIFF", filename="a.wav")
        return data

    async with Upstream(sending()) as up, serve() as gateway:
        backend.add("m", up, capabilities=ALL)
        url = gateway.url + "/v1/audio/transcriptions"
        for kind in ("text/plain; charset=utf-8", "text/vtt", "application/x-subrip", "text/srt"):
            up.behaviour = sending(response(b"1\n00:00 hello", kind=kind))
            async with gateway.http.post(url, data=form()) as answer:
                assert (answer.status, await answer.text()) == (200, "1\n00:00 hello")
        for name in ("204", "page", "array", "truncated", "empty"):
            up.behaviour = sending(NO_ANSWERS[name])
            async with gateway.http.post(url, data=form()) as answer:
                assert answer.status == 502, name
        delta = b'{"type":"transcript.text.delta","delta":"hi"}'
        done = b'{"type":"transcript.text.done","text":"hi"}'
        up.behaviour = streaming(delta, done)
        async with gateway.http.post(url, data=form()) as answer:
            assert await answer.text() == (bare(delta) + bare(done)).decode()
        up.behaviour = streaming(delta)
        async with gateway.http.post(url, data=form()) as answer:
            text = await answer.text()
    assert json.loads(text.split("\n\n")[-2][6:])["error"]["code"] == "engine_gone"


# Silence ----------------------------------------------------------------------------------


@pytest.mark.parametrize("queued", [True, False])
async def test_a_stream_that_waits_says_so(
    serve: Serve, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch, queued: bool
) -> None:
    """Before the engine's head (queued, or reading the prompt), before its first token, and between."""
    monkeypatch.setattr(silence, "HEAD_GRACE", 0.05)
    monkeypatch.setattr(silence, "KEEP_ALIVE", 0.05)
    go = asyncio.Event()

    async def slow(_, writer):
        events = [chunked(bare(event)) for event in (*LLAMA_CHAT_STREAM, DONE)]
        first = [] if queued else [STREAM_HEAD]
        for part in (*first, None, *([] if first else [STREAM_HEAD]), events[0], None, *events[1:]):
            if part is None:
                await go.wait()
                go.clear()
            else:
                writer.write(part)
        writer.write(b"0\r\n\r\n")
        return True

    async with Upstream(slow) as up, serve() as gateway:
        backend.add("m", up)
        url = gateway.url + "/v1/chat/completions"
        async with asyncio.timeout(60), gateway.http.post(url, json=chat(stream=True)) as answer:
            assert answer.status == 200
            assert answer.content_type == "text/event-stream"
            text = b""
            while text.count(b": keep-alive\n\n") < 3:
                text += await answer.content.readany()
            assert b"data:" not in text
            go.set()
            while text.count(b": keep-alive\n\n", text.find(b"data:")) < 2 or b"data:" not in text:
                text += await answer.content.readany()
            go.set()
            text += await answer.content.read()
    assert text.endswith(b"data: [DONE]\n\n")
    assert text.count(b"data: ") == len(LLAMA_CHAT_STREAM) + 1


async def test_a_refusal_has_its_status_when_it_is_prompt_and_is_an_event_when_late(
    serve: Serve, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = response(b'{"error":{"message":"no","type":"invalid_request_error"}}',
                       status="400 Bad Request")  # fmt: skip
    async with Upstream(sending(refusal)) as up, serve() as gateway:
        backend.add("m", up)
        status, answer = await gateway.post("/v1/chat/completions", chat(stream=True))
        assert (status, answer["error"]["message"]) == (400, "no")
        monkeypatch.setattr(silence, "HEAD_GRACE", 0.05)
        up.behaviour = sending(0.5, refusal)
        text = await gateway.stream("/v1/chat/completions", chat(stream=True))
        events = [event for event in text.split("\n\n") if not event.startswith(":")]
        assert len(events) == 2  # the error, and what stands behind its blank line
        assert json.loads(events[0][6:])["error"]["message"] == "no"
        # A whole answer is waited for in silence.
        up.behaviour = sending(0.5, refusal)
        status, _ = await gateway.post("/v1/chat/completions", chat())
        assert status == 400


async def test_another_replica_is_asked_while_only_comments_were_sent(
    serve: Serve, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "HEAD_GRACE", 0.02)
    async with (
        Upstream(sending(0.3, close=True)) as broken,
        Upstream(streaming(*LLAMA_CHAT_STREAM, DONE)) as good,
        serve() as gateway,
    ):
        backend.add("m", broken, good)
        text = await gateway.stream("/v1/chat/completions", chat(stream=True))
    assert text.startswith(": keep-alive\n\n")
    assert text.endswith("data: [DONE]\n\n")
    assert "error" not in text
