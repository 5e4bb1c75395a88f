"""Ollama's API, judged by its own Python client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from yibu.routing import ModelDetails

from .conftest import FakeBackend, Running, Serve
from .upstream import (
    DONE,
    LLAMA_CHAT,
    LLAMA_CHAT_STREAM,
    LLAMA_USAGE,
    STREAM_HEAD,
    Upstream,
    answering,
    chunked,
    response,
    sending,
    streaming,
)

KEY = "a-long-enough-key"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
HELLO = [{"role": "user", "content": "hi"}]
EMBEDDED = {
    "object": "list", "model": "m", "usage": {"prompt_tokens": 3, "total_tokens": 3},
    "data": [{"object": "embedding", "index": n, "embedding": [0.6, 0.8]} for n in range(2)],
}  # fmt: skip


@asynccontextmanager
async def client_of(gateway: Running) -> AsyncIterator[Any]:
    import ollama

    client = ollama.AsyncClient(gateway.url, headers={"authorization": f"Bearer {KEY}"})
    try:
        yield client
    finally:
        await client._client.aclose()


def delta(**fields: Any) -> bytes:
    """One chunk of a chat's stream."""
    reason = fields.pop("finish_reason", None)
    choice = {"index": 0, "delta": fields, "finish_reason": reason}
    return json.dumps(
        {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "x",
         "choices": [choice]}
    ).encode()  # fmt: skip


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", None])
async def test_its_body_is_json_whatever_type_is_told(
    serve: Serve, backend: FakeBackend, kind: str | None
) -> None:
    """As Ollama takes it: its documents have ``curl -d`` alone. A page of another site is refused."""
    body = json.dumps({"model": "m", "stream": False, "messages": HELLO}).encode()
    told = {"content-type": kind} if kind else {}
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up)
        async with serve() as gateway:
            url = gateway.url + "/api/chat"
            skipped = ["content-type"]
            async with gateway.http.post(
                url, data=body, headers=told, skip_auto_headers=skipped
            ) as answer:
                assert (answer.status, (await answer.json())["done"]) == (200, True)
            theirs = {**told, "origin": "https://evil.example"}
            async with gateway.http.post(
                url, data=body, headers=theirs, skip_auto_headers=skipped
            ) as answer:
                assert answer.status == 403


async def test_chat_whole_and_streamed(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("org/m", up)
        async with serve(keys=(KEY,)) as gateway, client_of(gateway) as client:
            answer = await client.chat("org/m", HELLO, options={"num_predict": 5, "top_k": 3})
            assert answer.model == "org/m"
            assert answer.message.content == "Hello"
            assert (answer.done, answer.done_reason) == (True, "stop")
            assert (answer.prompt_eval_count, answer.eval_count) == (31, 3)
            assert 0 < answer.eval_duration <= answer.total_duration
            sent = up.received[0].json
            assert (sent["max_tokens"], sent["top_k"], sent["stream"]) == (5, 3, False)

            up.behaviour = streaming(*LLAMA_CHAT_STREAM, LLAMA_USAGE, DONE)
            parts = [part async for part in await client.chat("org/m:latest", HELLO, stream=True)]
            assert "".join(part.message.content for part in parts) == 'hi "model":"inner"'
            assert {part.model for part in parts} == {"org/m:latest"}
            assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
            assert parts[-1].done_reason
            assert parts[-1].eval_count == 2
            assert up.received[-1].json["stream_options"] == {"include_usage": True}


async def test_generate_is_a_chat_or_a_text(serve: Serve, backend: FakeBackend) -> None:
    text = {"id": "x", "object": "text_completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "text": " time", "finish_reason": "length"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}}  # fmt: skip
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up)
        backend.add("base", up, capabilities=frozenset({"completions"}))
        async with serve(keys=(KEY,)) as gateway, client_of(gateway) as client:
            answer = await client.generate("m", "hi", system="Be short", think=False)
            assert answer.response == "Hello"
            sent = up.received[-1].json
            assert [message["role"] for message in sent["messages"]] == ["system", "user"]
            assert sent["chat_template_kwargs"] == {"enable_thinking": False, "thinking": False}
            up.behaviour = answering(text)
            for options in ({"model": "m", "raw": True}, {"model": "base"}):
                answer = await client.generate(prompt="Once upon a", **options)
                assert (answer.response, answer.done_reason) == (" time", "length")
                assert up.received[-1].path == "/v1/completions"
                assert up.received[-1].json["prompt"] == "Once upon a"


async def test_tools_there_and_back(serve: Serve, backend: FakeBackend) -> None:
    calls = [{"index": 0, "id": "call_a", "type": "function",
              "function": {"name": "add", "arguments": ""}}]  # fmt: skip
    pieces = ['{"a": 1', ', "b": 2}']
    events = [
        delta(role="assistant", content=None), delta(tool_calls=calls),
        *(delta(tool_calls=[{"index": 0, "function": {"arguments": piece}}]) for piece in pieces),
        delta(finish_reason="tool_calls"),
    ]  # fmt: skip

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    async with Upstream(streaming(*events, DONE)) as up:
        backend.add("m", up)
        async with serve(keys=(KEY,)) as gateway, client_of(gateway) as client:
            stream = await client.chat("m", HELLO, tools=[add], stream=True)
            found = [c for part in [p async for p in stream] for c in part.message.tool_calls or ()]
            assert [(c.function.name, c.function.arguments) for c in found] == [
                ("add", {"a": 1, "b": 2})
            ]
            up.behaviour = answering(LLAMA_CHAT)
            said = {"role": "assistant", "tool_calls": [found[0].model_dump()]}
            told = {"role": "tool", "tool_name": "add", "content": "3"}
            await client.chat("m", [*HELLO, said, told])
            _, assistant, tool = up.received[-1].json["messages"]
            assert assistant["tool_calls"][0]["function"]["arguments"] == '{"a":1,"b":2}'
            assert tool["tool_call_id"] == assistant["tool_calls"][0]["id"]


async def test_formats_images_and_thoughts(serve: Serve, backend: FakeBackend) -> None:
    thinking = {**LLAMA_CHAT, "choices": [{"index": 0, "finish_reason": "stop", "message": {
        "role": "assistant", "content": "4", "reasoning_content": "two and two"}}]}  # fmt: skip
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    async with Upstream(answering(thinking)) as up:
        backend.add("m", up)
        async with serve(keys=(KEY,)) as gateway, client_of(gateway) as client:
            question = {"role": "user", "content": "what?", "images": [PIXEL]}
            answer = await client.chat("m", [question], format=schema, think="high")
            assert (answer.message.thinking, answer.message.content) == ("two and two", "4")
            sent = up.received[-1].json
            assert sent["response_format"]["json_schema"]["schema"] == schema
            url = sent["messages"][0]["content"][1]["image_url"]["url"]
            assert url.startswith("data:image/png;base64,iVBOR")
            assert sent["reasoning_effort"] == "high"
            await client.chat("m", HELLO, format="json")
            assert up.received[-1].json["response_format"] == {"type": "json_object"}


async def test_embeddings(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(answering(EMBEDDED)) as up:
        backend.add("m", up)
        async with serve(keys=(KEY,)) as gateway, client_of(gateway) as client:
            answer = await client.embed("m", ["a", "b"])
            assert [list(vector) for vector in answer.embeddings] == [[0.6, 0.8]] * 2
            assert answer.prompt_eval_count == 3
            assert list((await client.embeddings("m", "a")).embedding) == [0.6, 0.8]


async def test_every_option_of_its_client_is_known_and_none_is_needed(
    serve: Serve, backend: FakeBackend
) -> None:
    """LangChain sends every option to every operation, most of them null."""
    from ollama import Options

    values: dict[str, Any] = {
        "num_ctx": 100,
        "num_predict": 5,
        "seed": 1,
        "top_k": 3,
        "stop": ["."],
    }
    names = list(Options.model_fields)
    assert len(names) > 25
    switches = [name for name in names if Options.model_fields[name].annotation == bool | None]
    values |= dict.fromkeys(switches, True)
    async with Upstream(answering(EMBEDDED)) as up:
        backend.add("m", up)
        async with serve(keys=(KEY,)) as gateway, client_of(gateway) as client:
            for options in (dict.fromkeys(names), dict.fromkeys(names, 1) | values):
                response = await client._client.post(
                    "/api/embed", json={"model": "m", "input": ["a"], "options": options}
                )
                assert response.status_code == 200, response.text
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up)
        async with serve(keys=(KEY,)) as gateway, client_of(gateway) as client:
            message = {
                "model": "m",
                "messages": HELLO,
                "stream": False,
                "options": dict.fromkeys(names),
            }
            response = await client._client.post("/api/chat", json=message)
            assert response.status_code == 200, response.text
            sent = up.received[-1].json
            assert set(sent) == {"model", "messages", "stream"}


async def test_what_models_there_are(serve: Serve, backend: FakeBackend) -> None:
    details = ModelDetails(
        "gguf", "llama", 134_515_008, "Q4_1", 98_000_000, 8192, takes_tools=True, thinks=True
    )
    backend.add("m", max_context=4096, details=details)
    backend.add("cold", state="starting")
    async with serve(keys=(KEY,)) as gateway, client_of(gateway) as client:
        listed = (await client.list()).models
        assert [model.model for model in listed] == ["m", "cold"]
        assert listed[0].details.parameter_size == "134.52M"
        assert listed[0].digest != listed[1].digest
        assert [model.model for model in (await client.ps()).models] == ["m"]
        shown = await client.show("m:latest")
        assert shown.modelinfo["llama.context_length"] == 4096
        assert set(shown.capabilities or ()) == {"completion", "embedding", "tools", "thinking"}
        async with gateway.http.get(gateway.url + "/api/version") as answer:
            assert (await answer.json())["version"]


@pytest.mark.parametrize(("knows", "status"), [(True, 200), (None, 200), (False, 400)])
async def test_thoughts_are_asked_of_models_that_think(
    serve: Serve, backend: FakeBackend, knows: bool | None, status: int
) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up, serve() as gateway:
        backend.add("m", up, details=ModelDetails("gguf", thinks=knows))
        for path, asked in (("chat", {"messages": HELLO}), ("generate", {"prompt": "hi"})):
            for think in (True, "high"):
                body = {"model": "m", "stream": False, "think": think, **asked}
                async with gateway.http.post(f"{gateway.url}/api/{path}", json=body) as answer:
                    assert answer.status == status
                    if status == 400:
                        assert "does not think" in (await answer.json())["error"]
            body = {"model": "m", "stream": False, "think": False, **asked}
            async with gateway.http.post(f"{gateway.url}/api/{path}", json=body) as answer:
                assert answer.status == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("chat", {"model": "none", "messages": HELLO}, 404, "no model 'none'"),
        ("chat", {"messages": HELLO}, 400, "'model' is missing"),
        ("chat", {"model": "m", "messages": HELLO, "options": {"num_ctx": 9999}}, 400, "4096"),
        ("chat", {"model": "m", "messages": HELLO, "options": {"tfs": 1}}, 400, "no option 'tfs'"),
        ("chat", {"model": "m", "messages": HELLO, "options": {"temperature": "x"}}, 400,
         "temperature"),
        *(("chat", {"model": "m", "messages": HELLO, "options": {name: value}}, 400, words)
          for name, value, words in [
              ("top_k", "1", "'options.top_k': expected an integer"),
              ("top_k", True, "'options.top_k': expected an integer"),
              ("top_k", 1e30, "'options.top_k': expected an integer"),
              ("num_predict", "x", "'options.num_predict': expected an integer"),
              ("num_ctx", "x", "'options.num_ctx': expected an integer"),
              ("num_gpu", "x", "'options.num_gpu': expected an integer"),
              ("use_mmap", 1, "'options.use_mmap': expected true or false"),
              ("repeat_penalty", "x", "'options.repeat_penalty': expected a number")]),
        ("generate", {"model": "m", "prompt": "x", "template": "y"}, 400, "'template'"),
        ("generate", {"model": "m", "prompt": "x", "context": [1]}, 400, "/api/chat"),
        ("generate", {"model": "m", "prompt": "x", "images": ["%%"]}, 400, "Image 1 is no"),
        ("chat", {"model": "m", "messages": [], "keep_alive": 0}, 404, "yibu down m"),
        *(("chat", {"model": "m", "messages": [], "keep_alive": wrong}, 400, "such as 5m")
          for wrong in ("", "5", "5 m", "for ever", "m5", "5m\n")),
        ("chat", {"model": "m", "messages": [{"role": "tool", "content": "3"}]}, 400, "tool call"),
        ("show", {"model": "none"}, 404, "no model 'none'"),
        ("show", {}, 400, "'model' is missing"),
        ("pull", {"model": "m"}, 404, "yibu pull"),
    ],
)  # fmt: skip
async def test_refusals_in_ollamas_words(
    serve: Serve, backend: FakeBackend, path: str, body: Any, status: int, words: str
) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up, max_context=4096)
        async with serve() as gateway:
            found, answer = await gateway.post(f"/api/{path}", body)
        assert not up.received
    assert (found, list(answer)) == (status, ["error"])
    assert words in answer["error"]


async def test_options_are_read_as_ollama_reads_them(serve: Serve, backend: FakeBackend) -> None:
    """``FromMap`` of its ``api/types.go``: integers are cut."""
    options = {"top_k": 1.9, "seed": -1.5, "num_predict": 5.0, "repeat_last_n": -1}
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up, max_context=4096)
        async with serve() as gateway:
            body = {"model": "m", "messages": HELLO, "stream": False, "options": options}
            assert (await gateway.post("/api/chat", body))[0] == 200
    read = {"top_k": 1, "seed": -1, "max_tokens": 5, "repeat_last_n": 4096}
    assert read.items() <= up.received[0].json.items()


@pytest.mark.parametrize(
    ("path", "fields", "expected"),
    [
        ("embed", {"input": ""}, {"model": "m", "embeddings": []}),
        ("embed", {"input": []}, {"model": "m", "embeddings": []}),
        ("embeddings", {"prompt": ""}, {"embedding": []}),
    ],
)
async def test_nothing_to_embed_loads_the_model(
    serve: Serve, backend: FakeBackend, path: str, fields: Any, expected: Any
) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up)
        async with serve() as gateway:
            status, answer = await gateway.post(f"/api/{path}", {"model": "m", **fields})
        assert not up.received
    assert (status, answer) == (200, expected)


async def test_a_load_is_answered_without_a_token(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up)
        async with serve() as gateway:
            for kept in (None, 5, -1, 0.5, "5m", "1h30m", "-1s", "1.5h", "300ms"):
                body = {"model": "m", "keep_alive": kept}
                status, answer = await gateway.post("/api/generate", body)
                assert (status, answer["done"], answer["done_reason"]) == (200, True, "load")
            assert not up.received


async def test_a_key_is_asked_for(serve: Serve, backend: FakeBackend) -> None:
    backend.add("m")
    async with serve(keys=(KEY,)) as gateway:
        for path in ("chat", "generate", "embed", "embeddings"):
            status, answer = await gateway.post(f"/api/{path}", {})
            assert (status, type(answer["error"])) == (401, str)


async def test_an_engines_error_and_a_stream_that_breaks(
    serve: Serve, backend: FakeBackend
) -> None:
    refused = response(b'{"error": {"message": "too long", "code": 400}}', status="400 Bad Request")
    cut = [STREAM_HEAD, chunked(b"data: " + LLAMA_CHAT_STREAM[1] + b"\n\n")]
    async with Upstream(sending(refused)) as up:
        backend.add("m", up)
        async with serve() as gateway:
            status, answer = await gateway.post("/api/chat", {"model": "m", "messages": HELLO})
            assert (status, answer) == (400, {"error": "too long"})
            up.behaviour = sending(*cut, close=True)
            body = {"model": "m", "messages": HELLO}
            async with gateway.http.post(gateway.url + "/api/chat", json=body) as reply:
                assert reply.content_type == "application/x-ndjson"
                lines = [json.loads(line) for line in (await reply.text()).splitlines()]
    assert list(lines[-1]) == ["error"]
    assert not any(line.get("done") for line in lines)


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_is_bounded_that_is_read_whole(
    serve: Serve, backend: FakeBackend, chunked: bool
) -> None:
    backend.add("m")
    body = b'{"model": "m", "more": "' + b"x" * 300_000 + b'"}'

    async def parts() -> AsyncIterator[bytes]:
        yield body

    async with serve(max_body=100_000) as gateway:
        data = parts() if chunked else body
        async with gateway.http.post(gateway.url + "/api/show", data=data) as answer:
            assert answer.status == 413
            assert "100000 bytes" in (await answer.json())["error"]
        assert (await gateway.post("/api/show", {"model": "m"}))[0] == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("arguments", ["[1, 2]", "null", "7", '"x"', '{"a": 1', ""])
async def test_whatever_a_call_is_given_the_client_can_read(
    serve: Serve, backend: FakeBackend, arguments: str, stream: bool
) -> None:
    call = {"index": 0, "id": "a", "function": {"name": "f", "arguments": arguments}}
    said = {"role": "assistant", "content": None, "reasoning": "hm", "tool_calls": [call]}
    whole = {**LLAMA_CHAT, "choices": [{"index": 0, "message": said, "finish_reason": "length"}]}
    given = streaming(delta(**said), delta(finish_reason="length"), DONE)
    async with Upstream(given if stream else answering(whole)) as up:
        backend.add("m", up)
        async with serve(keys=(KEY,)) as gateway, client_of(gateway) as client:
            answer = await client.chat("m", HELLO, stream=stream)
            parts = [part async for part in answer] if stream else [answer]
    assert "".join(part.message.thinking or "" for part in parts) == "hm"
    (found,) = [call for part in parts for call in part.message.tool_calls or ()]
    assert found.function.name == "f"
    assert parts[-1].done_reason == "length"


async def test_a_text_that_goes_on_has_a_format_and_log_probabilities(
    serve: Serve, backend: FakeBackend
) -> None:
    scored = {
        "tokens": ["a"],
        "token_logprobs": [-0.5],
        "top_logprobs": [{"a": -0.5, "b": -1.5}],
        "text_offset": [0],
    }
    answer = {"choices": [{"index": 0, "text": "a", "finish_reason": "stop", "logprobs": scored}]}
    async with Upstream(answering(answer)) as up, serve() as gateway:
        backend.add("m", up, engine="command", capabilities={"completions"})
        async with client_of(gateway) as client:
            told = await client.generate(
                "m", "x", raw=True, format="json", logprobs=True, top_logprobs=2
            )
    assert up.received[-1].json["response_format"] == {"type": "json_object"}
    assert [(one.token, one.logprob, [(top.token, top.logprob) for top in one.top_logprobs])
            for one in told.logprobs] == [("a", -0.5, [("a", -0.5), ("b", -1.5)])]  # fmt: skip
