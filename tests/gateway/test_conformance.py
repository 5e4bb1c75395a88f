"""Answers conform to OpenAI's published schemas, whatever shape the engine gave them."""

from __future__ import annotations

import base64
import json
import struct
from functools import partial
from typing import Any

import orjson
import pytest

from .conftest import FakeBackend, Serve, chat
from .oracle import Oracle
from .upstream import (
    DONE,
    LLAMA_CHAT,
    LLAMA_CHAT_STREAM,
    LLAMA_TEXT,
    LLAMA_TEXT_STREAM,
    LLAMA_TOKEN,
    LLAMA_USAGE,
    Upstream,
    answering,
    streaming,
)


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle()


def events(text: str) -> list[Any]:
    assert text.endswith("data: [DONE]\n\n")
    lines = [line for line in text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line[6:]) for line in lines[:-1]]


async def test_chat(serve: Serve, backend: FakeBackend, oracle: Oracle) -> None:
    with_logprobs = json.loads(json.dumps(LLAMA_CHAT))
    with_logprobs["choices"][0]["logprobs"] = {"content": [LLAMA_TOKEN]}
    for raw in (LLAMA_CHAT, with_logprobs, {"choices": [{"message": {"content": "x"}}]}):
        async with Upstream(answering(raw)) as up:
            backend.add("org/m", up, served_name="inner")
            async with serve() as gateway:
                status, answer = await gateway.post("/v1/chat/completions", chat("org/m"))
        assert status == 200
        oracle.check("CreateChatCompletionResponse", answer)
        assert answer["model"] == "org/m"
        assert up.received[0].json["model"] == "inner"


@pytest.mark.parametrize("conforming", [False, True])
async def test_an_alias(serve: Serve, backend: FakeBackend, conforming: bool) -> None:
    """The engine is asked by its own name; the client and the list see the one that was typed."""
    for served in (None, "inner"):
        async with Upstream(answering(LLAMA_CHAT)) as up:
            names = {"gpt-4o": "m"}
            backend.add("m", up, served_name=served, names=names, conforming=conforming)
            async with serve() as gateway:
                status, answer = await gateway.post("/v1/chat/completions", chat("gpt-4o"))
                async with gateway.http.get(f"{gateway.url}/v1/models") as listed:
                    ids = [model["id"] for model in (await listed.json())["data"]]
                async with gateway.http.get(f"{gateway.url}/v1/models/gpt-4o") as one:
                    assert (await one.json())["id"] == "gpt-4o"
                _, refused = await gateway.post("/v1/chat/completions", chat("none"))
                assert set(gateway.app.metrics.tokens) == {("m", "prompt"), ("m", "completion")}
        assert (status, answer["model"]) == (200, "gpt-4o")
        assert ids == ["m", "gpt-4o"]
        assert "m, gpt-4o" in refused["error"]["message"]
        assert up.received[0].json["model"] == (served or "m")


async def test_an_adapter_is_asked_for_by_its_own_name(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up, served_name="inner", names={"sql": "sql"})
        async with serve() as gateway:
            status, answer = await gateway.post("/v1/chat/completions", chat("sql"))
            assert ("sql", "prompt") in gateway.app.metrics.tokens
    assert (status, answer["model"]) == (200, "sql")
    assert up.received[0].json["model"] == "sql"


@pytest.mark.parametrize("usage", [False, True])
async def test_chat_stream(serve: Serve, backend: FakeBackend, oracle: Oracle, usage: bool) -> None:
    async with Upstream(streaming(*LLAMA_CHAT_STREAM, LLAMA_USAGE, DONE)) as up:
        backend.add("m", up, served_name="inner")
        async with serve() as gateway:
            options = {"stream_options": {"include_usage": True}} if usage else {}
            text = await gateway.stream("/v1/chat/completions", chat(stream=True, **options))
            chunks = events(text)
            assert gateway.app.metrics.tokens[("m", "completion")] == 2
    for chunk in chunks:
        oracle.check("CreateChatCompletionStreamResponse", chunk)
        assert chunk["model"] == "m"
    assert chunks[2]["choices"][0]["delta"]["content"] == ' "model":"inner"'
    if usage:
        assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
        assert chunks[-1]["choices"] == []
        assert chunks[-1]["usage"]["total_tokens"] == 33
    else:
        assert len(chunks) == len(LLAMA_CHAT_STREAM)
        assert all("usage" not in chunk for chunk in chunks)


async def test_a_stream_in_pieces_of_any_size_is_normalized_the_same(
    serve: Serve, backend: FakeBackend, oracle: Oracle
) -> None:
    from yibu.engines.answers import Answers
    from yibu.gateway.answers.chunks import ChunkNormalizer
    from yibu.gateway.answers.engine_errors import translate
    from yibu.gateway.requests.body import JsonRequest

    whole = b"".join(b"data: " + event + b"\n\n" for event in (*LLAMA_CHAT_STREAM, DONE))
    request = JsonRequest("m", {}, stream=True, include_usage=True)
    results = set()
    for size in (1, 2, 7, 64, 1000, len(whole)):
        errors = partial(translate, rules=Answers(), kind="chat", model="m", inner="inner")
        normalizer = ChunkNormalizer("chat", request, Answers(), errors, conforming=False)
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        results.add(b"".join(normalizer.feed(piece) for piece in pieces) + normalizer.finish())
    assert len(results) == 1


async def test_bare_chunks_are_filled_in(
    serve: Serve, backend: FakeBackend, oracle: Oracle
) -> None:
    bare = (
        b'{"choices":[{"delta":{"content":"a"}}]}',
        b'{"choices":[{"delta":{},"finish_reason":"stop"}]}',
    )
    async with Upstream(streaming(*bare)) as up:  # and no [DONE]
        backend.add("m", up)
        async with serve() as gateway:
            chunks = events(await gateway.stream("/v1/chat/completions", chat(stream=True)))
    for chunk in chunks:
        oracle.check("CreateChatCompletionStreamResponse", chunk)
    assert chunks[0]["id"] == chunks[1]["id"]


async def test_text_completions(serve: Serve, backend: FakeBackend, oracle: Oracle) -> None:
    async with Upstream(answering(LLAMA_TEXT)) as up:
        backend.add("m", up)
        async with serve() as gateway:
            body = {"model": "m", "prompt": "hi", "logprobs": 1}
            status, answer = await gateway.post("/v1/completions", body)
            assert status == 200
            oracle.check("CreateCompletionResponse", answer)
            assert answer["choices"][0]["logprobs"]["tokens"] == ["hello"]
            up.behaviour = streaming(*LLAMA_TEXT_STREAM, DONE)
            body |= {"stream": True, "stream_options": {"include_usage": True}}
            chunks = events(await gateway.stream("/v1/completions", body))
    for chunk in chunks[:-1]:
        assert "usage" not in chunk
        assert chunk["choices"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 2
    assert chunks[0]["choices"][0]["logprobs"]["text_offset"] == [0]


async def test_embeddings(serve: Serve, backend: FakeBackend, oracle: Oracle) -> None:
    async with Upstream(answering({"data": [{"embedding": [0.5, -1.0]}]})) as up:
        backend.add("m", up)
        async with serve() as gateway:
            status, answer = await gateway.post("/v1/embeddings", {"model": "m", "input": "a"})
            assert status == 200
            oracle.check("CreateEmbeddingResponse", answer)
            body = {"model": "m", "input": "a", "encoding_format": "base64"}
            _, answer = await gateway.post("/v1/embeddings", body)
    packed = base64.b64decode(answer["data"][0]["embedding"])
    assert struct.unpack("<2f", packed) == (0.5, -1.0)


async def test_models(serve: Serve, backend: FakeBackend, oracle: Oracle) -> None:
    backend.add("Qwen/Qwen3-8B")
    async with serve() as gateway:
        async with gateway.http.get(gateway.url + "/v1/models") as answer:
            oracle.check("ListModelsResponse", await answer.json())
        async with gateway.http.get(gateway.url + "/v1/models/Qwen/Qwen3-8B") as answer:
            assert answer.status == 200
            oracle.check("Model", await answer.json())
        async with gateway.http.get(gateway.url + "/v1/models/other") as answer:
            assert answer.status == 404
            oracle.check("ErrorResponse", await answer.json())


async def test_a_conforming_engine_is_forwarded_byte_for_byte(
    serve: Serve, backend: FakeBackend
) -> None:
    chunk = b'{"id": "1",  "odd": true}'
    async with Upstream(streaming(chunk, DONE)) as up:
        backend.add("m", up, conforming=True)
        async with serve() as gateway:
            text = await gateway.stream("/v1/chat/completions", chat(stream=True))
    assert text.encode() == b"data: " + chunk + b"\n\ndata: [DONE]\n\n"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_demanded_tool_call_that_is_not_made_is_an_error(
    serve: Serve, backend: FakeBackend, stream: bool
) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    body = chat(tools=tools, tool_choice="required", stream=stream)
    whole = answering(LLAMA_CHAT)
    events = [event.replace(b'"length"', b'"stop"') for event in LLAMA_CHAT_STREAM]
    async with Upstream(streaming(*events, DONE) if stream else whole) as up:
        backend.add("m", up)
        async with serve() as gateway:
            if stream:
                text = await gateway.stream("/v1/chat/completions", body)
                assert "tool_choice_not_enforced" in text.split("\n\n")[-2]
            else:
                status, answer = await gateway.post("/v1/chat/completions", body)
                assert status == 502
                assert answer["error"]["code"] == "tool_choice_not_enforced"


def usage_chunk(prompt: int, completion: int, *choices: dict[str, Any]) -> bytes:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    usage["total_tokens"] = prompt + completion
    shell = {"id": "chatcmpl-NE", "model": "inner", "created": 1, "object": "chat.completion.chunk"}
    return orjson.dumps({**shell, "choices": list(choices), "usage": usage})


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize(
    ("usages", "expected"),
    [
        # llama.cpp: each choice has its own, and counts the prompt again.
        ([(31, 5), (31, 9)], (31, 14)),
        # Others: one of the whole.
        ([(31, 14)], (31, 14)),
    ],
)
async def test_usage_of_several_choices_in_a_stream(
    serve: Serve,
    backend: FakeBackend,
    oracle: Oracle,
    usages: list[tuple[int, int]],
    expected: tuple[int, int],
    asked: bool,
) -> None:
    sent = [*LLAMA_CHAT_STREAM, *(usage_chunk(*usage) for usage in usages), DONE]
    async with Upstream(streaming(*sent)) as up:
        backend.add("m", up)
        async with serve() as gateway:
            options = {"stream_options": {"include_usage": True}} if asked else {}
            body = chat(stream=True, n=2, **options)
            chunks = events(await gateway.stream("/v1/chat/completions", body))
            counted = gateway.app.metrics.tokens
            assert (counted["m", "prompt"], counted["m", "completion"]) == expected
    for chunk in chunks:
        oracle.check("CreateChatCompletionStreamResponse", chunk)
    told = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    assert len(told) == int(asked)
    if asked:
        assert (told[0]["prompt_tokens"], told[0]["completion_tokens"]) == expected
        assert chunks[-1]["choices"] == []
        assert len({chunk["id"] for chunk in chunks}) == 1


@pytest.mark.parametrize(
    ("prompt", "usages", "expected"),
    [
        ("hi", [(4, 5), (4, 9)], (4, 14)),
        (["hi", "hello you"], [(4, 1), (4, 2), (6, 3), (6, 4)], (10, 10)),
        ([1, 2, 3, 4], [(4, 5), (4, 9)], (4, 14)),
    ],
)
async def test_usage_of_several_text_choices_in_a_stream(
    serve: Serve,
    backend: FakeBackend,
    prompt: str | list[Any],
    usages: list[tuple[int, int]],
    expected: tuple[int, int],
) -> None:
    last = {"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}
    sent = [usage_chunk(*usage, {**last, "index": n}) for n, usage in enumerate(usages)]
    async with Upstream(streaming(*sent, DONE)) as up:
        backend.add("m", up)
        async with serve() as gateway:
            body = {"model": "m", "prompt": prompt, "n": 2, "stream": True}
            body["stream_options"] = {"include_usage": True}
            chunks = events(await gateway.stream("/v1/completions", body))
    usage = chunks[-1]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == expected
