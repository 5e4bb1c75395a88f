"""The Responses and the Messages API, reranking and tokens: through, with the same keys and names.

The official clients' own types say whether an answer is one. They are imported where they are used:
every worker imports every file of tests, and few run these.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from pydantic import TypeAdapter

from yibu.engines.base import Capability

from .conftest import FakeBackend, Serve
from .engine_words import (
    LLAMA_RESPONSE,
    LLAMA_RESPONSE_STREAM,
    MESSAGE_STREAM,
    VLLM_MESSAGE,
)
from .upstream import (
    LLAMA_CHAT,
    STREAM_HEAD,
    Behaviour,
    Upstream,
    answering,
    chunked,
    response,
    sending,
)

KEY = "a-long-enough-key"
ALL: frozenset[Capability] = frozenset({"responses", "messages", "rerank", "score", "tokenize"})
SAY = [{"role": "user", "content": "Say hello."}]


def named(*events: dict[str, Any], close: bool = False) -> Behaviour:
    """Events with their names, each in its own chunk; ``close`` leaves out the end."""
    parts: list[bytes | float] = [STREAM_HEAD]
    for event in events:
        name = event["type"].encode()
        parts.append(chunked(b"event: " + name + b"\ndata: " + orjson.dumps(event) + b"\n\n"))
    if not close:
        parts.append(b"0\r\n\r\n")
    return sending(*parts, close=close)


async def tokens(gateway: Any, headers: dict[str, str]) -> dict[str, int]:
    """What the gateway has counted, by direction."""
    async with gateway.http.get(gateway.url + "/metrics", headers=headers) as answer:
        lines = (await answer.text()).splitlines()
    found = {}
    for direction in ("prompt", "completion"):
        name = f'yibu_tokens_total{{model="m",direction="{direction}"}} '
        found[direction] = next((int(x[len(name) :]) for x in lines if x.startswith(name)), 0)
    return found


async def test_responses_whole_and_streamed(serve: Serve, backend: FakeBackend) -> None:
    import openai
    from openai.types.responses import Response, ResponseStreamEvent

    async with Upstream(answering(LLAMA_RESPONSE)) as up:
        backend.add("m", up, capabilities=ALL, served_name="inner")
        async with (
            serve(keys=(KEY,)) as gateway,
            openai.AsyncOpenAI(base_url=gateway.url + "/v1", api_key=KEY, max_retries=0) as client,
        ):
            headers = {"authorization": f"Bearer {KEY}"}
            body = {"model": "m", "input": "hello", "max_output_tokens": 4}
            status, raw = await gateway.post("/v1/responses", body, headers=headers)
            assert status == 200
            assert Response.model_validate(raw).model == "m"
            answer = await client.responses.create(
                model="m", input="hello", max_output_tokens=4, stream_options=None
            )
            assert answer.output_text == "I'm glad I"
            assert up.received[1].json == {**body, "model": "inner"}
            assert await tokens(gateway, headers) == {"prompt": 62, "completion": 8}

            up.behaviour = named(*LLAMA_RESPONSE_STREAM)
            stream = await client.responses.create(model="m", input="hello", stream=True)
            events = [event async for event in stream]
            assert [event.sequence_number for event in events] == list(range(8))
            adapter: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
            for event in events:
                adapter.validate_python(event.model_dump(exclude_unset=True))
            assert events[3].type == "response.output_text.delta"
            assert events[3].delta == 'I "model":"inner"'
            assert events[7].type == "response.completed"
            assert events[7].response.model == "m"
            assert await tokens(gateway, headers) == {"prompt": 93, "completion": 12}
            # The client puts the text together by the indices, which llama.cpp leaves out.
            async with client.responses.stream(model="m", input="hello") as helper:
                texts = [e.text async for e in helper if e.type == "response.output_text.done"]
                assert (await helper.get_final_response()).output_text == "I'm glad I"
            assert texts == ['I "model":"inner"']


async def test_anthropics_client_lists_the_models(serve: Serve, backend: FakeBackend) -> None:
    import anthropic
    from anthropic.types import ModelInfo

    names = [f"m{number}" for number in range(5)]
    for name in names:
        backend.add(name, max_context=4096)
    async with (
        serve(keys=(KEY,)) as gateway,
        anthropic.AsyncAnthropic(base_url=gateway.url, api_key=KEY, max_retries=0) as client,
    ):
        found = [model async for model in client.models.list(limit=2)]
        assert [model.id for model in found] == names
        for model in found:
            ModelInfo.model_validate(model.model_dump(exclude_unset=True))
        assert (found[0].created_at.timestamp(), found[0].max_input_tokens) == (1, 4096)
        page = await client.models.list(before_id="m3", limit=2)
        assert ([model.id for model in page.data], page.has_more) == (["m1", "m2"], True)
        assert (await client.models.retrieve("m1")).display_name == "m1"
        with pytest.raises(anthropic.NotFoundError, match="m9") as missing:
            await client.models.retrieve("m9")
        assert missing.value.type == "not_found_error"
        for fields in ({"limit": 0}, {"limit": "x"}, {"after_id": "m9"}):
            with pytest.raises(anthropic.BadRequestError):
                await client.models.list(**fields)  # type: ignore[arg-type]


async def test_messages_whole_and_streamed(serve: Serve, backend: FakeBackend) -> None:
    import anthropic
    from anthropic.types import Message

    async with Upstream(answering(VLLM_MESSAGE)) as up:
        backend.add("m", up, capabilities=ALL, served_name="inner")
        async with (
            serve(keys=(KEY,)) as gateway,
            anthropic.AsyncAnthropic(base_url=gateway.url, api_key=KEY, max_retries=0) as client,
        ):
            message = await client.messages.create(model="m", messages=SAY, max_tokens=4)
            Message.model_validate(message.model_dump(exclude_unset=True))
            assert message.model == "m"
            assert message._request_id is not None
            # The client's key stops at the gateway.
            assert KEY not in up.received[0].head
            assert up.received[0].header("authorization") == "Bearer inner-key"
            counted = await tokens(gateway, {"x-api-key": KEY})
            assert counted == {"prompt": 33, "completion": 4}

            up.behaviour = named(*MESSAGE_STREAM)
            async with client.messages.stream(model="m", messages=SAY, max_tokens=4) as stream:
                assert [text async for text in stream.text_stream] == ["My"]
                final = await stream.get_final_message()
            assert final.model == "m"
            counted = await tokens(gateway, {"x-api-key": KEY})
            assert counted == {"prompt": 66, "completion": 8}

            up.behaviour = answering({"input_tokens": 33})
            counting = await client.messages.count_tokens(model="m", messages=SAY)
            assert counting.input_tokens == 33
            assert up.received[-1].path == "/v1/messages/count_tokens"
            counted = await tokens(gateway, {"x-api-key": KEY})
            assert counted == {"prompt": 66, "completion": 8}, "nothing was generated"


@pytest.mark.parametrize("renamed", [False, True])
async def test_a_conforming_engines_usage_is_counted_too(
    serve: Serve, backend: FakeBackend, renamed: bool
) -> None:
    async with Upstream(named(*MESSAGE_STREAM)) as up:
        name = "inner" if renamed else None
        backend.add("m", up, capabilities=ALL, conforming=True, served_name=name)
        async with serve() as gateway:
            body = {"model": "m", "messages": SAY, "max_tokens": 4, "stream": True}
            text = await gateway.stream("/v1/messages", body)
            assert '"model":"m"' in text
            counted = await tokens(gateway, {})
            assert counted["completion"] == 4
            assert counted["prompt"] == 33


async def test_errors_are_in_the_words_of_the_api(serve: Serve, backend: FakeBackend) -> None:
    import anthropic

    refusal = {"type": "error", "error": {"type": "BadRequestError", "message": "too long"}}
    too_long = answering(refusal, status="400 Bad Request")
    async with Upstream(too_long) as up:
        backend.add("m", up, capabilities=ALL)
        async with serve(keys=(KEY,)) as gateway:
            async with anthropic.AsyncAnthropic(
                base_url=gateway.url, api_key=KEY, max_retries=0
            ) as client:
                create = client.messages.create
                with pytest.raises(anthropic.BadRequestError, match="too long") as refused:
                    await create(model="m", messages=SAY, max_tokens=4)
                assert refused.value.body["type"] == "error"
                assert refused.value.body["error"]["type"] == "invalid_request_error"
                assert refused.value.body["request_id"] == refused.value.request_id
                with pytest.raises(anthropic.NotFoundError, match="those that exist: m") as unknown:
                    await create(model="nobody", messages=SAY, max_tokens=4)
                assert unknown.value.body["error"]["type"] == "not_found_error"
                with pytest.raises(anthropic.BadRequestError, match="'max_tokens' is missing"):
                    await client.post("/v1/messages", body={"model": "m", "messages": SAY},
                                      cast_to=object)  # fmt: skip
            async with anthropic.AsyncAnthropic(
                base_url=gateway.url, api_key="wrong-key", max_retries=0
            ) as stranger:
                with pytest.raises(anthropic.AuthenticationError) as locked:
                    await stranger.messages.create(model="m", messages=SAY, max_tokens=4)
                assert locked.value.body["error"]["type"] == "authentication_error"


async def test_a_stream_that_breaks_says_so_to_each_client(
    serve: Serve, backend: FakeBackend
) -> None:
    import anthropic
    import openai

    async with Upstream(named(*MESSAGE_STREAM[:3], close=True)) as up:
        backend.add("m", up, capabilities=ALL)
        async with (
            serve() as gateway,
            anthropic.AsyncAnthropic(base_url=gateway.url, api_key="x") as claude,
            openai.AsyncOpenAI(base_url=gateway.url + "/v1", api_key="x") as gpt,
        ):
            stream = await claude.messages.create(
                model="m", messages=SAY, max_tokens=4, stream=True
            )
            with pytest.raises(anthropic.APIStatusError, match="closed the connection"):
                async for _ in stream:
                    pass
            up.behaviour = named(*LLAMA_RESPONSE_STREAM[:3], close=True)
            events = await gpt.responses.create(model="m", input="hello", stream=True)
            with pytest.raises(openai.APIError, match="closed the connection"):
                async for _ in events:
                    pass
            body = {"model": "m", "input": "a", "stream": True}
            text = await gateway.stream("/v1/responses", body)
            last = orjson.loads(text.rstrip().rpartition("data: ")[2])
            assert last["type"] == "error"
            assert last["sequence_number"] == 3
            # An engine that says itself that it failed:
            error = {"type": "error", "error": {"type": "InternalServerError", "message": "oh no"}}
            up.behaviour = named(*MESSAGE_STREAM[:3], error)
            failing = await claude.messages.create(
                model="m", messages=SAY, max_tokens=4, stream=True
            )
            with pytest.raises(anthropic.APIStatusError, match="oh no") as said:
                async for _ in failing:
                    pass
            assert said.value.body["error"]["type"] == "api_error"


async def test_a_client_that_leaves_ends_a_response(serve: Serve, backend: FakeBackend) -> None:
    import anthropic

    one = b"event: message_start\ndata: " + orjson.dumps(MESSAGE_STREAM[0]) + b"\n\n"
    async with Upstream(sending(STREAM_HEAD, chunked(one), 30.0)) as up:
        backend.add("m", up, capabilities=ALL)
        async with (
            serve() as gateway,
            anthropic.AsyncAnthropic(base_url=gateway.url, api_key="x") as client,
        ):
            stream = await client.messages.create(
                model="m", messages=SAY, max_tokens=4, stream=True
            )
            assert (await anext(aiter(stream))).type == "message_start"
            await stream.close()
            async with asyncio.timeout(60):
                await up.received[0].disconnected.wait()


async def test_one_good_key_in_either_header(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(answering({"tokens": [1]})) as up:
        backend.add("m", up, capabilities=ALL)
        body = {"model": "m", "prompt": "hi"}
        async with serve(keys=(KEY,)) as gateway:
            good, bad = {"x-api-key": KEY}, {"x-api-key": "wrong-key-here"}
            bearer = {"authorization": f"Bearer {KEY}"}
            cases = (
                (good, 200), (bad, 401), ({**bad, **bearer}, 200), ({"x-api-key": ""}, 401),
                ({**good, "authorization": "Bearer wrong-key-here"}, 200),
                ({"x-api-key": f"Bearer {KEY}"}, 401),
            )  # fmt: skip
            for headers, status in cases:
                got, _ = await gateway.post("/tokenize", body, headers=headers)
                assert got == status, headers


async def test_tokens_in_either_engines_shape(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(answering({"tokens": [28120, 665]})) as up:
        backend.add("m", up, capabilities=ALL)
        async with serve() as gateway:
            status, answer = await gateway.post("/tokenize", {"model": "m", "prompt": "hello you"})
            assert (status, answer) == (200, {"tokens": [28120, 665], "count": 2})
            assert up.received[0].json["content"] == "hello you"
            assert up.received[0].json["add_special"] is True
            await gateway.post("/tokenize", {"model": "m", "content": "hello you"})
            assert up.received[1].json["prompt"] == "hello you"
            assert up.received[1].json["add_special_tokens"] is False
            status, answer = await gateway.post("/tokenize", {"model": "m"})
            assert status == 400
            assert answer["error"]["param"] == "prompt"
            # Of a chat the engine first writes the prompt, then cuts it.
            up.behaviour = answering({"prompt": "<user>hello", "tokens": [1, 2]})
            status, answer = await gateway.post("/tokenize", {"model": "m", "messages": SAY})
            assert (status, answer["count"]) == (200, 2)
            assert up.received[-1].json["content"] == "<user>hello"
            up.behaviour = answering({"content": "hello you"})
            _, answer = await gateway.post("/detokenize", {"model": "m", "tokens": [28120, 665]})
            assert answer["prompt"] == answer["content"] == "hello you"


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        ("vllm", {"detail": "Not Found"}),
        (
            "llama.cpp",
            {"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}},
        ),
    ],
)
async def test_a_path_that_the_engine_has_not(
    serve: Serve, backend: FakeBackend, engine: str, says: dict[str, Any]
) -> None:
    behaviour = sending(response(orjson.dumps(says), status="404 Not Found"))
    async with Upstream(behaviour) as up:
        backend.add("m", up, capabilities=ALL, engine=engine)
        async with serve() as gateway:
            body = {"model": "m", "query": "a", "documents": ["b"]}
            status, answer = await gateway.post("/v1/rerank", body)
            assert status == 404
            assert answer["error"]["code"] == "unknown_path"
            assert f"{engine}, does not serve /v1/rerank" in answer["error"]["message"]


@pytest.mark.parametrize("engine", ["llama.cpp", "vllm"])
@pytest.mark.parametrize("wanted", [None, False, True])
async def test_results_with_their_documents_or_without(
    serve: Serve, backend: FakeBackend, engine: str, wanted: bool | None
) -> None:
    """llama.cpp never tells them and vLLM always does, whatever is asked."""
    documents = ["a", {"text": "b", "id": 7}]
    own = {"document": {"text": "b", "multi_modal": None}} if engine == "vllm" else {}
    says = {"results": [{"index": 1, "relevance_score": 0.5, **own}], "usage": {"total_tokens": 3}}
    async with Upstream(answering(says)) as up:
        backend.add("m", up, capabilities=ALL, engine=engine)
        async with serve() as gateway:
            body = {"model": "m", "query": "a", "documents": documents, "return_documents": wanted}
            status, answer = await gateway.post("/v1/rerank", body)
            assert status == 200
            told = own.get("document") if wanted is None else documents[1] if wanted else None
            assert answer["results"][0].get("document") == told
            assert up.received[0].json["documents"] == documents


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/messages", {"messages": [], "max_tokens": 4}, "messages"),
        ("/v1/messages", {"messages": SAY, "max_tokens": 0}, "max_tokens"),
        ("/v1/messages", {"messages": [{"role": "tool", "content": "x"}], "max_tokens": 4},
         "messages[0].role"),
        ("/v1/messages/count_tokens", {}, "messages"),
        ("/v1/responses", {"input": 3}, "input"),
        ("/v1/responses", {"input": "a", "max_output_tokens": "4"}, "max_output_tokens"),
        ("/v1/rerank", {"query": "a", "documents": []}, "documents"),
        ("/detokenize", {"tokens": ["a"]}, "tokens[0]"),
    ],
)  # fmt: skip
async def test_what_no_engine_should_see(
    serve: Serve, backend: FakeBackend, path: str, body: dict[str, Any], param: str
) -> None:
    backend.add("m", capabilities=ALL)
    async with serve() as gateway:
        status, answer = await gateway.post(path, {"model": "m", **body})
        assert status == 400
        assert answer["error"]["param"] == param


async def test_fields_of_the_engines_own_pass_whatever_their_type(
    serve: Serve, backend: FakeBackend
) -> None:
    async with Upstream(answering(LLAMA_RESPONSE)) as up:
        backend.add("m", up, capabilities=ALL)
        async with serve() as gateway:
            options = {"seed": "what", "what": "text", "stop": ""}
            status, _ = await gateway.post("/v1/responses", {"model": "m", "input": "a", **options})
            assert status == 200
            assert options.items() <= up.received[0].json.items()


@pytest.mark.parametrize("stream", [False, True])
async def test_one_tool_at_most_is_llama_cpps_to_hold(
    serve: Serve, backend: FakeBackend, stream: bool
) -> None:
    """Its own ``/v1/messages`` does not pass it on: instructor's clients ask for it."""
    import anthropic

    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    message = {"role": "assistant", "content": "", "tool_calls": [call]}
    said = {"index": 0, "finish_reason": "tool_calls", "message": message}
    async with Upstream(answering({**LLAMA_CHAT, "choices": [said]})) as up, serve() as gateway:
        backend.add("m", up, capabilities=ALL)
        client = anthropic.AsyncAnthropic(base_url=gateway.url, api_key="x", max_retries=0)
        asked: Any = {
            "model": "m", "messages": SAY, "max_tokens": 5,
            "tools": [{"name": "f", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        }  # fmt: skip
        async with client:
            if stream:
                async with client.messages.stream(**asked) as events:
                    answer = await events.get_final_message()
            else:
                answer = await client.messages.create(**asked)
    assert (up.received[0].path, up.received[0].json["parallel_tool_calls"]) == (
        "/v1/chat/completions", False
    )  # fmt: skip
    assert up.received[0].json["tool_choice"] == "required"
    (block,) = answer.content
    assert block.type == "tool_use"
    assert (block.name, block.input, answer.stop_reason) == ("f", {"a": 1}, "tool_use")
