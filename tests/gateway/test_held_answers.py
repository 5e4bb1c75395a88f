"""What engines answer is held against the shapes that are promised, whole and event by event.

What may be missing or null is mended; the rest is a 502 with the engine's own words where it has any.
The official SDKs' types and OpenAI's published schemas say what is right.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import FakeBackend, Serve, chat
from .engine_words import LLAMA_RESPONSE, LLAMA_RESPONSE_STREAM, MESSAGE_STREAM, VLLM_MESSAGE
from .oracle import Oracle
from .test_odd_engines import PATH, choice, chunk, whole
from .test_other_apis import ALL, named
from .upstream import DONE, Upstream, answering, streaming

SAY = [{"role": "user", "content": "hi"}]
BODIES: dict[str, dict[str, Any]] = {
    PATH: {"messages": SAY},
    "/v1/completions": {"prompt": "x"},
    "/v1/embeddings": {"input": "x"},
    "/v1/rerank": {"query": "q", "documents": ["a", "b"]},
    "/v1/score": {"text_1": "a", "text_2": "b"},
    "/v1/responses": {"input": "x"},
    "/v1/messages": {"messages": SAY, "max_tokens": 5},
    "/v1/messages/count_tokens": {"messages": SAY},
    "/tokenize": {"prompt": "x"},
    "/detokenize": {"tokens": [1]},
}
EVERY = frozenset({*ALL, "chat", "completions", "embeddings"})


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle()


def without(given: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key != name}


async def ask(serve: Serve, backend: FakeBackend, path: str, answer: Any) -> tuple[int, Any]:
    async with Upstream(answering(answer)) as up, serve() as gateway:
        backend.add("m", up, capabilities=EVERY, served_name="inner")
        return await gateway.post(path, {"model": "m", **BODIES[path]})


@pytest.mark.parametrize("path", BODIES)
async def test_an_error_with_the_status_of_a_success_is_an_error(
    serve: Serve, backend: FakeBackend, path: str
) -> None:
    failures: list[tuple[Any, int]] = [
        ({}, 502), ({"error": "inner broke"}, 502), ({"detail": "inner broke"}, 502),
        ({"error": {"message": "inner broke", "code": 400}}, 400),
        ({"object": "error", "message": "inner broke", "code": 400}, 400),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "inner broke"}}, 502),
    ]  # fmt: skip
    async with Upstream(answering({})) as up, serve() as gateway:
        backend.add("m", up, capabilities=EVERY, served_name="inner")
        for answer, expected in failures:
            up.behaviour = answering(answer)
            status, body = await gateway.post(path, {"model": "m", **BODIES[path]})
            assert status == expected, (answer, body)
            if answer:
                assert body["error"]["message"] == "m broke"


VECTOR = {"object": "embedding", "index": 0, "embedding": [0.1]}
VECTORS = {"object": "list", "data": [VECTOR], "usage": {"prompt_tokens": 3, "total_tokens": 3}}


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        *((PATH, whole(choices=[part])) for part in ({"text": "x"}, {"delta": {"content": "x"}})),
        (PATH, whole(choices=choice(message={"content": "x", "tool_calls": [{"function": {"name": 5}}]}))),
        *((PATH, whole(choices=choice(finish_reason=why))) for why in ("ERROR", "Abort", "failed", {"type": "stop"})),
        ("/v1/completions", {"choices": [{"text": 5}]}), ("/v1/completions", {"choices": [{"text": ["a"]}]}),
        *(("/v1/embeddings", {**VECTORS, "data": data}) for data in (None, [], {}, [[0.1]], [{"index": 0}],
          *([{"embedding": vector}] for vector in (None, [], [[0.1]], ["a"], [1.0, None], "@@@", "", {})))),
        *(("/v1/rerank", {"results": results}) for results in (None, {}, ["x"], [{"relevance_score": 0.1}],
          [{"index": 0, "relevance_score": "x"}], [{"index": 0, "relevance_score": None}])),
        ("/v1/score", {"data": [{"index": 0}]}), ("/v1/score", {"data": None}),
        *(("/v1/messages", {**VLLM_MESSAGE, "content": content}) for content in (None, {}, ["x"], [{"text": "x"}],
          [{"type": "tool_use", "id": "a", "input": {}}], [{"type": "tool_use", "name": "f", "input": "{"}])),
        ("/v1/messages", {**VLLM_MESSAGE, "stop_reason": "error"}),
        *(("/v1/messages/count_tokens", {"input_tokens": count}) for count in (None, "3", -1, 1.5)),
        *(("/v1/responses", {**LLAMA_RESPONSE, **part}) for part in ({"output": None}, {"output": ["x"]},
          {"status": "done"}, {"output": [{"type": "function_call", "name": 5, "arguments": "{}"}]})),
        ("/tokenize", {"tokens": None}), ("/tokenize", {"tokens": {}}), ("/detokenize", {"content": 5}),
    ],
)  # fmt: skip
async def test_what_cannot_be_mended_is_an_error(
    serve: Serve, backend: FakeBackend, path: str, answer: Any
) -> None:
    status, body = await ask(serve, backend, path, answer)
    assert status == 502, body
    assert body["error"]["code"] in {"engine_protocol_error", "engine_gone"}


async def test_a_chats_parts_of_other_types_are_mended(
    serve: Serve, backend: FakeBackend, oracle: Oracle
) -> None:
    call = {"id": "a", "function": {"name": "f", "arguments": "{}"}}

    def said(**fields: Any) -> dict[str, Any]:
        return whole(choices=choice(message={"role": "assistant", "content": "ok", **fields}))

    odd = [
        said(role=None), said(role="model"), said(refusal=5), said(annotations={}), said(tool_calls="x"),
        said(tool_calls=[None]), said(tool_calls=[{**call, "type": "tool_call"}]), said(tool_calls=[{**call, "id": 5}]),
        said(function_call={"name": "f", "arguments": {"a": 1}}),
        said(content=[{"type": "thinking", "thinking": []}, {"type": "text", "text": "ok"}]),
        *(whole(choices=choice(**part)) for part in ({"index": None}, {"logprobs": []}, {"logprobs": "x"},
          {"logprobs": {"content": {}}}, {"logprobs": {}})),
        *(whole(**part) for part in ({"system_fingerprint": 5}, {"system_fingerprint": None}, {"service_tier": "turbo"},
          {"id": 5}, {"usage": {"input_tokens": 3, "output_tokens": 2}}, {"error": False}, {"error": {}},
          {"usage": {"prompt_tokens": 3, "completion_tokens": None, "total_tokens": None}},
          {"usage": {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": "x"}},
          {"usage": {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": None}}})),
    ]  # fmt: skip
    async with Upstream(answering({})) as up, serve() as gateway:
        backend.add("m", up)
        for answer in odd:
            up.behaviour = answering(answer)
            status, body = await gateway.post(PATH, chat())
            assert status == 200, (answer, body)
            oracle.check("CreateChatCompletionResponse", body)
            assert body["choices"][0]["message"]["content"] == "ok"
        reasons = {"LENGTH": "length", "MAX_TOKENS": "length", "model_length": "length", "STOP": "stop",
                   "tool-calls": "tool_calls", "context_window_exceeded": "length", "SAFETY": "content_filter"}  # fmt: skip
        for given, meant in reasons.items():
            up.behaviour = answering(whole(choices=choice(finish_reason=given)))
            _, body = await gateway.post(PATH, chat())
            assert body["choices"][0]["finish_reason"] == meant, given


async def test_messages_and_responses_are_mended(serve: Serve, backend: FakeBackend) -> None:
    from anthropic.types import Message
    from openai.types.responses import Response

    tool = {"type": "tool_use", "name": "f", "input": '{"a":1}'}
    messages: list[tuple[dict[str, Any], str, str]] = [
        *((without(VLLM_MESSAGE, name), "text", "max_tokens") for name in ("role", "type", "usage", "model")),
        *(({**VLLM_MESSAGE, "stop_reason": given}, "text", meant) for given, meant in (
            (None, "end_turn"), ("stop", "end_turn"), ("length", "max_tokens"), ("content_filter", "refusal"))),
        ({**VLLM_MESSAGE, "usage": {"prompt_tokens": 3, "completion_tokens": 2}}, "text", "max_tokens"),
        ({**VLLM_MESSAGE, "content": "ok"}, "text", "max_tokens"),
        ({**VLLM_MESSAGE, "content": [tool], "stop_reason": "end_turn"}, "tool_use", "tool_use"),
        ({**VLLM_MESSAGE, "content": [{**tool, "id": "a", "input": None}], "stop_reason": "stop"}, "tool_use", "tool_use"),
        ({**VLLM_MESSAGE, "content": [{"type": "thinking", "thinking": "hm"}]}, "thinking", "max_tokens"),
    ]  # fmt: skip
    call = {"type": "function_call", "id": "fc", "name": "f", "status": "completed"}
    responses = [
        {**LLAMA_RESPONSE, **part} for part in (
            {"usage": None}, {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}, {"created_at": None},
            {"usage": {"input_tokens": 3, "output_tokens": 2, "input_tokens_details": None}},
            {"output": [{**call, "arguments": {"a": 1}}]}, {"output": [{**call, "call_id": None, "arguments": None}]})
    ]  # fmt: skip
    async with Upstream(answering({})) as up, serve() as gateway:
        backend.add("m", up, capabilities=EVERY, served_name="inner")
        for answer, kind, reason in messages:
            up.behaviour = answering(answer)
            status, body = await gateway.post(
                "/v1/messages", {"model": "m", **BODIES["/v1/messages"]}
            )
            assert status == 200, (answer, body)
            message = Message.model_validate(body)
            assert (message.content[0].type, message.stop_reason) == (kind, reason)
            assert message.model == "m"
        for answer in responses:
            up.behaviour = answering(answer)
            status, body = await gateway.post("/v1/responses", {"model": "m", "input": "x"})
            assert status == 200, (answer, body)
            assert Response.model_validate(body).status == "completed"


ONE = {"id": "chatcmpl-1"}
OPEN = chunk({"role": "assistant", "content": "o"}, **ONE)
END = (chunk({}, "stop", id="chatcmpl-9"), DONE)


@pytest.mark.parametrize(
    "later",
    [
        chunk({"content": "k"}, id="chatcmpl-2"), b'{"choices":[{"delta":{"content":"k"}}]}',
        chunk({"content": [{"type": "text", "text": "k"}]}, **ONE), chunk({}, choices=[{"text": "k"}]),
        chunk({"content": "k"}, system_fingerprint=5), chunk({"content": "k", "role": "model", "refusal": 5}),
        chunk({}, choices=[{"index": None, "delta": {"content": "k"}, "logprobs": []}]),
        chunk({"content": "k", "function_call": None, "tool_calls": None}),
    ],
)  # fmt: skip
async def test_later_chunks_are_held_against_the_schema_too(
    serve: Serve, backend: FakeBackend, oracle: Oracle, later: bytes
) -> None:
    extra = (chunk({}, choices=None, **ONE), chunk({}, choices=[{"index": 0}], **ONE))
    async with Upstream(streaming(OPEN, later, *extra, *END)) as up, serve() as gateway:
        backend.add("m", up)
        *events, done = (await gateway.stream(PATH, chat(stream=True))).split("\n\n")[:-1]
    assert done == "data: [DONE]"
    chunks = [json.loads(event[6:]) for event in events]
    for one in chunks:
        oracle.check("CreateChatCompletionStreamResponse", one)
    assert {one["id"] for one in chunks} == {"chatcmpl-1"}
    text = [one["choices"][0]["delta"].get("content") or "" for one in chunks]
    assert "".join(text) == "ok"


@pytest.mark.parametrize(
    ("later", "words"),
    [
        (b'{"id":"chatcmpl-1","model":"m","object":"x"}', "no choices"), (b'{"detail":"it broke","model":"m"}', "it broke"),
        (b'{"object":"error","message":"it broke","model":"m"}', "it broke"), (chunk({"content": 5}, **ONE), "content"),
        (b'{"model":"m","choices":[{"index":0,"delta":{"content":"x"}}', "not JSON"),
        (chunk({"content": "x"}, "ERROR"), "finish_reason"),
    ],
)  # fmt: skip
async def test_later_chunks_that_cannot_be_mended_end_the_stream(
    serve: Serve, backend: FakeBackend, later: bytes, words: str
) -> None:
    async with Upstream(streaming(OPEN, OPEN, later, *END)) as up, serve() as gateway:
        backend.add("m", up)
        *_, last = (await gateway.stream(PATH, chat(stream=True))).split("\n\n")[:-1]
    assert words in json.loads(last[6:])["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("reason", ["length", "stop"])
async def test_a_demanded_call_that_was_cut_is_one_whole_and_streamed(
    serve: Serve, backend: FakeBackend, reason: str, stream: bool
) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    given = answering(whole(choices=choice(finish_reason=reason)))
    behaviour = streaming(OPEN, chunk({}, reason), DONE) if stream else given
    async with Upstream(behaviour) as up, serve() as gateway:
        backend.add("m", up)
        body = chat(tools=tools, tool_choice="required", stream=stream)
        async with gateway.http.post(gateway.url + PATH, json=body) as answer:
            refused = "tool_choice_not_enforced" in await answer.text()
    assert refused == (reason == "stop")


START, BLOCK, DELTA, CLOSE, REASON, STOP = MESSAGE_STREAM
CALL = {**BLOCK, "content_block": {"type": "tool_use", "name": "f", "input": None}}
MESSAGES: dict[str, tuple[list[dict[str, Any]], str | None]] = {
    # An engine's events, and why the message that the SDK makes of them ended; None: it is told an error.
    "no index": ([START, BLOCK, without(DELTA, "index"), CLOSE, REASON, STOP], "max_tokens"),
    "no end of a block": ([START, BLOCK, DELTA, REASON, STOP], "max_tokens"),
    "OpenAI's reason": ([START, BLOCK, DELTA, CLOSE, {**REASON, "delta": {"stop_reason": "stop"}}, STOP], "end_turn"),
    "no usage": ([START, BLOCK, DELTA, CLOSE, without(REASON, "usage"), STOP], "max_tokens"),
    "a call": ([START, CALL, CLOSE, {**REASON, "delta": {"stop_reason": "end_turn"}}, STOP], "tool_use"),
    **{f"no {name}": ([{**START, "message": without(START["message"], name)}, BLOCK, DELTA, CLOSE, REASON, STOP],
                      "max_tokens") for name in ("usage", "content", "role", "type", "id", "model")},
    # What llama.cpp makes of a message whose first token is a part of a character.
    "no start": ([BLOCK, DELTA, CLOSE, REASON, STOP], "max_tokens"),
    "two starts": ([START, BLOCK, DELTA, START, CLOSE, REASON, STOP], "max_tokens"),
    "no block": ([START, DELTA, CLOSE, REASON, STOP], None),
    "no reason": ([START, BLOCK, DELTA, CLOSE, STOP], None),
    "only the end": ([STOP], None),
    "nothing started": ([{"type": "message_start"}, BLOCK, DELTA, CLOSE, REASON, STOP], None),
    "a text of 5": ([START, BLOCK, {**DELTA, "delta": {"type": "text_delta", "text": 5}}, REASON, STOP], None),
    "no delta": ([START, BLOCK, {**DELTA, "delta": None}, CLOSE, REASON, STOP], None),
    "given up": ([START, BLOCK, DELTA, CLOSE, {**REASON, "delta": {"stop_reason": "abort"}}, STOP], None),
    "an error": ([START, BLOCK, {"type": "error", "error": {"type": "x", "message": "inner"}}], None),
}  # fmt: skip


@pytest.mark.parametrize("case", MESSAGES)
async def test_a_stream_of_a_message_can_be_put_together(
    serve: Serve, backend: FakeBackend, case: str
) -> None:
    import anthropic

    events, reason = MESSAGES[case]
    async with Upstream(named(*events)) as up, serve() as gateway:
        backend.add("m", up, capabilities=EVERY, served_name="inner")
        client = anthropic.AsyncAnthropic(base_url=gateway.url, api_key="x", max_retries=0)
        asked: Any = {"model": "m", "messages": SAY, "max_tokens": 5}
        async with client:
            if reason is None:
                with pytest.raises(anthropic.APIStatusError) as found:
                    async with client.messages.stream(**asked) as stream:
                        await stream.get_final_message()
                assert "inner" not in str(found.value)
                return
            async with client.messages.stream(**asked) as stream:
                final = await stream.get_final_message()
    made = anthropic.types.Message.model_validate(final.model_dump(exclude_unset=True))
    assert (made.stop_reason, made.model, made.role) == (reason, "m", "assistant")
    assert len(made.content) == 1


async def test_the_end_of_a_message_counts_its_prompt_too(
    serve: Serve, backend: FakeBackend
) -> None:
    """As Anthropic's own does: LangChain reads the usage there alone."""
    async with Upstream(named(*MESSAGE_STREAM)) as up, serve() as gateway:
        backend.add("m", up, capabilities=EVERY)
        body = {"model": "m", "stream": True, **BODIES["/v1/messages"]}
        text = await gateway.stream("/v1/messages", body)
    data = [
        line[6:] for line in text.split("\n") if line.startswith('data: {"type":"message_delta"')
    ]
    counted = {"input_tokens": 1, "cache_read_input_tokens": 32, "output_tokens": 4}
    assert [json.loads(line)["usage"] for line in data] == [counted]


async def test_a_response_begins_once(serve: Serve, backend: FakeBackend) -> None:
    """llama.cpp begins again behind each event that a part of a character held up."""
    created, *rest = LLAMA_RESPONSE_STREAM
    async with Upstream(named(created, *rest[:3], created, *rest[3:])) as up, serve() as gateway:
        backend.add("m", up, capabilities=EVERY)
        body = {"model": "m", "stream": True, "input": "x"}
        text = await gateway.stream("/v1/responses", body)
    events = [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: {")]
    assert [one["type"] for one in events] == [one["type"] for one in LLAMA_RESPONSE_STREAM]
    assert [one["sequence_number"] for one in events] == list(range(len(events)))
