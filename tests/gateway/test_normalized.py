"""Answers that engines give in shapes of their own, as clients see them."""

from __future__ import annotations

import copy
import json
from typing import Any

import orjson
import pytest

from .conftest import FakeBackend, Serve, chat
from .engine_words import LLAMA_RESPONSE, LLAMA_RESPONSE_STREAM, VLLM_MESSAGE
from .oracle import Oracle
from .test_whole_or_error import ALL, JSON_PATHS, SAY, STREAMS, bare, framed, named
from .upstream import (
    DONE,
    LLAMA_CHAT,
    LLAMA_CHAT_STREAM,
    LLAMA_TEXT,
    LLAMA_TOKEN,
    Upstream,
    answering,
    response,
    sending,
    streaming,
)

COMPLETIONS = "/v1/chat/completions"


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle()


def chunks_of(text: str) -> list[Any]:
    """The chunks of a stream that ended as it should."""
    assert text.endswith("data: [DONE]\n\n")
    return [json.loads(event[6:]) for event in text.split("\n\n")[:-2]]


# The engine's name for the model -----------------------------------------------------------

INNER = "/srv/weights/inner-7b"
WHOLE = {
    "/v1/chat/completions": LLAMA_CHAT,
    "/v1/completions": LLAMA_TEXT,
    "/v1/embeddings": {"data": [{"embedding": [1.0]}]},
    "/v1/responses": LLAMA_RESPONSE,
    "/v1/messages": VLLM_MESSAGE,
    "/v1/rerank": {"results": [], "usage": {"total_tokens": 3}},
    "/tokenize": {"tokens": [1]},
}


@pytest.mark.parametrize("conforming", [False, True])
@pytest.mark.parametrize("path", WHOLE)
async def test_the_inner_name_is_in_no_answer_and_no_error(
    serve: Serve, backend: FakeBackend, path: str, conforming: bool
) -> None:
    said = f"The model `{INNER}` is at its limit; {INNER} takes no more"
    async with Upstream(answering({**WHOLE[path], "model": INNER})) as up, serve() as gateway:
        backend.add("m", up, served_name=INNER, capabilities=ALL, conforming=conforming)
        for status in ("200 OK", "400 Bad Request", "500 Oops"):
            if status != "200 OK":
                up.behaviour = answering({"error": {"message": said}}, status=status)
            async with gateway.http.post(gateway.url + path, json=JSON_PATHS[path]) as answer:
                text = await answer.text()
                assert answer.status == int(status[:3]), text
                assert "inner" not in text + str(answer.headers)
                if status == "200 OK":
                    assert json.loads(text)["model"] == "m"
                else:
                    assert "The model `m` is at its limit; m takes" in text
        assert up.received[0].json["model"] == INNER


def spelled(event: bytes, style: str) -> bytes:
    """One event in another of the spellings that the standard allows."""
    if style == "cr":
        return event.replace(b"\n", b"\r")
    if style == "crlf":
        return event.replace(b"\n", b"\r\n")
    if style == "fields":
        return b": note\nid: 7\nretry: 10\n" + event
    if style == "tight":
        return event.replace(b"data: ", b"data:").replace(b"event: ", b"event:")
    if style == "lines":
        at = event.index(b"data: ") + 6
        return event[:at] + event[at:].replace(b'","', b'",\ndata: "')
    return event.replace(b'":', b'" : ')


@pytest.mark.parametrize("style", ["cr", "crlf", "fields", "tight", "lines", "spaces"])
@pytest.mark.parametrize("kind", STREAMS)
async def test_the_inner_name_is_in_no_stream(
    serve: Serve, backend: FakeBackend, kind: str, style: str
) -> None:
    path, body, events = STREAMS[kind]
    inner = [event.replace(b'"inner"', orjson.dumps(INNER)) for event in events]
    mark = b"\xef\xbb\xbf" if style == "crlf" else b""
    given = [event if event == bare(DONE) else spelled(event, style) for event in inner]
    given[0] = mark + given[0]
    async with Upstream(framed(given, "close")) as up, serve() as gateway:
        backend.add("m", up, served_name=INNER, capabilities=ALL)
        text = await gateway.stream(path, body)
        assert "engine_" not in text
        assert INNER not in text
        assert text.count('"model":"m"') >= 1
        up.behaviour = framed([*given[:2], spelled(bare(b'{"error":{"message":"%b broke"}}'
                                                   % INNER.encode()), "fields")], "close")  # fmt: skip
        text = await gateway.stream(path, body)
        assert "m broke" in text
        assert "inner" not in text


async def test_numbers_and_fields_of_the_engines_own_stay(
    serve: Serve, backend: FakeBackend
) -> None:
    own = (
        b'{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"inner","choices":['
        b'{"index":0,"delta":{"role":"assistant","reasoning_content":"\\u6613 hm","reasoning":"x",'
        b'"content":"a"},'
        b'"finish_reason":null}],"timings":{"a":1.10,"b":1e-7,"c":18446744073709551615,"d":-0.0}}'
    )
    last = own.replace(b'"finish_reason":null', b'"finish_reason":"stop"')
    async with Upstream(streaming(own, last, DONE)) as up, serve() as gateway:
        backend.add("m", up, served_name="inner")
        first, second, _, _ = (await gateway.stream(COMPLETIONS, chat(stream=True))).split("\n\n")
        later = own.replace(b'"role":"assistant",', b"")  # which is told once
        for event, sent in ((first, own), (second, last.replace(b'"role":"assistant",', b""))):
            assert json.loads(event[6:]) == {**json.loads(sent), "model": "m"}
        up.behaviour = streaming(own, own, last, DONE)
        text = await gateway.stream(COMPLETIONS, chat(stream=True))
        assert json.loads(text.split("\n\n")[1][6:]) == {**json.loads(later), "model": "m"}
        whole = json.loads(own)
        whole["choices"][0] |= {
            "message": whole["choices"][0].pop("delta"),
            "finish_reason": "stop",
        }
        up.behaviour = answering(whole)
        _, answer = await gateway.post(COMPLETIONS, chat())
    assert answer["timings"] == whole["timings"]
    assert answer["choices"][0]["message"]["reasoning_content"] == "易 hm"
    assert answer["choices"][0]["message"]["reasoning"] == "x"


async def test_events_that_look_like_the_last_are_looked_at_too(
    serve: Serve, backend: FakeBackend
) -> None:
    """Text that could be taken for an event's end or another field, and what stands behind the end."""
    texts = ["a", "b", 'quote "model":"inner"', "back\\", "line\nend", "易部", "", "c", "}", "d"]

    def event(text: str, reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
        return orjson.dumps({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1,
                             "model": "inner", "choices": [choice]})  # fmt: skip

    sent = [*map(event, texts), event("", "stop"), DONE, event("late")]
    for pieces in ([bare(e) for e in sent], [b"".join(map(bare, sent))]):
        async with Upstream(framed(pieces, "chunked")) as up, serve() as gateway:
            backend.add("m", up, served_name="inner")
            for options in ({}, {"stream_options": {"include_usage": True}}):
                text = await gateway.stream(COMPLETIONS, chat(stream=True, **options))
                chunks = chunks_of(text)
                said = [chunk["choices"][0]["delta"]["content"] for chunk in chunks]
                assert said == [*texts, ""]
                assert {chunk["model"] for chunk in chunks} == {"m"}
                assert all(("usage" in chunk) == bool(options) for chunk in chunks)


# Ids, usage, what was cut -------------------------------------------------------------------


@pytest.mark.parametrize("given", ["chatcmpl-7", "cmpl-7", "resp_7", "msg_7", "7", None])
@pytest.mark.parametrize(
    ("path", "prefix"),
    [(COMPLETIONS, "chatcmpl-"), ("/v1/completions", "cmpl-"), ("/v1/responses", "resp_"),
     ("/v1/messages", "msg_")],
)  # fmt: skip
async def test_ids_have_the_prefix_of_the_operation(
    serve: Serve, backend: FakeBackend, path: str, prefix: str, given: str | None
) -> None:
    answer = {name: value for name, value in WHOLE[path].items() if name != "id"}
    answer |= {"id": given} if given else {}
    async with Upstream(answering(answer)) as up, serve() as gateway:
        backend.add("m", up, capabilities=ALL)
        _, got = await gateway.post(path, JSON_PATHS[path])
        assert got["id"].startswith(prefix)
        assert len(got["id"]) == len(prefix) + (1 if given else 32)
        kind = next(k for k, (p, _, _) in STREAMS.items() if p == path)
        _, body, events = STREAMS[kind]
        ids = [b'"id":"chatcmpl-NE"', b'"id":"c"', b'"id":"resp_M"', b'"id":"msg_1"']
        for old in ids:
            new = b'"id":"%b"' % given.encode() if given else b'"other":1'
            events = [event.replace(old, new) for event in events]
        up.behaviour = framed(events, "close")
        text = await gateway.stream(path, body)
    found = {holder.get("id") for event in text.split("\n\n") if '"id"' in event
             for holder in [_holder(json.loads(event[event.index("data: ") + 6 :]))] if holder}  # fmt: skip
    assert len(found) == 1
    assert found.pop().startswith(prefix)


def _holder(event: dict[str, Any]) -> dict[str, Any]:
    if "choices" in event:
        return event
    return event.get("response") or event.get("message") or {}


def usage_chunk(index: int, prompt: int, completion: int, **fields: Any) -> bytes:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion,
             "total_tokens": prompt + completion}  # fmt: skip
    choice = {"index": index, "text": f" end{index}", "logprobs": None, "finish_reason": "length"}
    return orjson.dumps({"id": "cmpl-1", "created": 1, "model": "inner", "object": "text_completion",
                         "choices": [choice], "usage": usage, **fields})  # fmt: skip


async def test_whole_answers_of_llama_cpp_count_every_choice(
    serve: Serve, backend: FakeBackend, oracle: Oracle
) -> None:
    """It counts the first alone, and all of them in a stream: so a stream is what it is asked for."""
    text = orjson.dumps({"id": "cmpl-1", "created": 1, "model": "inner", "object": "text_completion",
                         "choices": [{"index": 1, "text": "-", "finish_reason": None,
                                      "logprobs": {"content": [LLAMA_TOKEN]}}]})  # fmt: skip
    events = [b"null", text, usage_chunk(0, 4, 5), usage_chunk(1, 6, 7), DONE]
    async with Upstream(streaming(*events)) as up, serve() as gateway:
        backend.add("m", up)
        body = {"model": "m", "prompt": ["a", "b c"], "logprobs": 1}
        status, answer = await gateway.post("/v1/completions", body)
        assert status == 200
        oracle.check("CreateCompletionResponse", answer)
        assert answer["usage"] == {"prompt_tokens": 10, "completion_tokens": 12, "total_tokens": 22}
        assert [choice["text"] for choice in answer["choices"]] == [" end0", "- end1"]
        assert answer["choices"][1]["logprobs"]["tokens"] == ["hello"]
        assert up.received[0].json["stream"] is True
        assert gateway.app.metrics.tokens["m", "completion"] == 12
        calls = [
            {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a'}},
            {"index": 0, "function": {"arguments": '":1}'}},
        ]  # fmt: skip
        parts = [{"role": "assistant", "content": None}, {"content": "Hi"}, {"reasoning_content": "h"},
                 {"tool_calls": calls[:1]}, {"tool_calls": calls[1:]}]  # fmt: skip
        said = [
            {"choices": [{"index": 1, "delta": delta, "finish_reason": None}]} for delta in parts
        ]
        ends = [{"choices": [{"index": n, "delta": {}, "finish_reason": "stop"}]} for n in (0, 1)]
        usages = [
            {"choices": [], "usage": json.loads(usage_chunk(0, 31, n))["usage"]} for n in (5, 9)
        ]
        up.behaviour = streaming(*map(orjson.dumps, (*said, *ends, *usages)), DONE)
        status, answer = await gateway.post(COMPLETIONS, chat(n=2))
        assert status == 200
        oracle.check("CreateChatCompletionResponse", answer)
        assert answer["usage"] == {"prompt_tokens": 31, "completion_tokens": 14, "total_tokens": 45}
        first, second = answer["choices"]
        assert (first["index"], first["finish_reason"]) == (0, "stop")
        assert second["message"]["content"] == "Hi"
        assert second["message"]["reasoning_content"] == "h"
        assert second["message"]["tool_calls"][0]["function"] == {
            "name": "f",
            "arguments": '{"a":1}',
        }
        assert second["finish_reason"] == "tool_calls"
        for broken, code in ((streaming(*map(orjson.dumps, said)), "engine_gone"),
                             (sending(response(b"{}")), "engine_protocol_error")):  # fmt: skip
            up.behaviour = broken
            status, answer = await gateway.post(COMPLETIONS, chat(n=2))
            assert (status, answer["error"]["code"]) == (502, code)
        # Other engines count all: they are asked for what the client asked for.
        backend.add("v", up, engine="vllm")
        up.behaviour = answering(LLAMA_CHAT)
        await gateway.post(COMPLETIONS, chat("v", n=2))
        assert "stream" not in up.received[-1].json


async def test_a_response_that_was_cut_is_incomplete(serve: Serve, backend: FakeBackend) -> None:
    import openai

    async with Upstream(answering(LLAMA_RESPONSE)) as up, serve() as gateway:
        backend.add("m", up, capabilities=ALL, max_context=4096)
        async with openai.AsyncOpenAI(base_url=gateway.url + "/v1", api_key="x") as client:
            create = client.responses.create
            for limit, status in ((4, "incomplete"), (5, "completed"), (None, "completed")):
                options = {} if limit is None else {"max_output_tokens": limit}
                made = await create(model="m", input="a", **options)
                assert made.status == status
                details = made.incomplete_details
                assert (details.reason if details else None) == (
                    "max_output_tokens" if status == "incomplete" else None
                )
                assert made.output[-1].status == status
            up.behaviour = framed([named(event) for event in LLAMA_RESPONSE_STREAM], "chunked")
            for limit, status in ((4, "incomplete"), (5, "completed")):
                stream = await create(model="m", input="a", max_output_tokens=limit, stream=True)
                last = [event async for event in stream][-1]
                assert last.type == f"response.{status}"
                assert last.response.status == status


@pytest.mark.parametrize("content", ["The capital", [{"type": "text", "text": "The capital"}]])
async def test_a_prefilled_turn_looks_alike_whole_and_streamed(
    serve: Serve, backend: FakeBackend, content: Any
) -> None:
    """llama.cpp repeats the prefill in whole answers alone; other engines may begin with the same words."""
    messages = [*SAY, {"role": "assistant", "content": content}]
    whole = copy.deepcopy(LLAMA_CHAT)
    whole["choices"][0]["message"]["content"] = "The capital of France"
    message = {**VLLM_MESSAGE, "content": [{"type": "text", "text": "The capital of France"}]}
    async with Upstream(sending()) as up, serve() as gateway:
        for engine, expected in (("llama.cpp", " of France"), ("vllm", "The capital of France")):
            backend.add("m", up, capabilities=ALL, engine=engine)
            up.behaviour = answering(whole)
            _, answer = await gateway.post(COMPLETIONS, chat(messages=messages))
            assert answer["choices"][0]["message"]["content"] == expected
            up.behaviour = answering(message)
            body = {"model": "m", "messages": messages, "max_tokens": 9}
            _, answer = await gateway.post("/v1/messages", body)
            assert answer["content"][0]["text"] == expected
        backend.add("m", up, capabilities=ALL)
        _, answer = await gateway.post("/v1/messages", {**body, "messages": SAY})
        assert answer["content"][0]["text"] == "The capital of France"


# Tool calls ---------------------------------------------------------------------------------

TOOLS = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in "fg"]


@pytest.mark.parametrize(
    "calls",
    [
        [{"function": {"name": "f", "arguments": {"a": 1}}}],
        [{"index": 0, "id": "", "function": {"name": "f", "arguments": '{"a":1}'}}],
        [{"name": "f", "arguments": {"a": 1}}],
        [{"id": "x", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
         {"id": "y", "type": "function", "function": {"name": "g", "arguments": None}}],
        [{"function": {"name": "f", "arguments": {"a": 1}}}, {"function": {"name": "g", "arguments": ""}}],
    ],
)  # fmt: skip
async def test_whole_tool_calls(
    serve: Serve, backend: FakeBackend, oracle: Oracle, calls: list[dict[str, Any]]
) -> None:
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    raw = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    async with Upstream(answering(raw)) as up, serve() as gateway:
        backend.add("m", up, engine="command")
        _, answer = await gateway.post(COMPLETIONS, chat(tools=TOOLS))
    oracle.check("CreateChatCompletionResponse", answer)
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    given = choice["message"]["tool_calls"]
    assert [(call["function"]["name"], call["function"]["arguments"]) for call in given] == [
        ("f", '{"a":1}'), ("g", "{}")][: len(calls)]  # fmt: skip
    assert len({call["id"] for call in given}) == len(calls)


def part(name: str | None = None, arguments: Any = None, **fields: Any) -> dict[str, Any]:
    function = {"name": name} if name else {}
    return {
        **fields,
        "function": function | ({} if arguments is None else {"arguments": arguments}),
    }


STREAMED_CALLS: dict[str, list[dict[str, Any]]] = {
    "index 0 twice, ids": [part("f", "", index=0, id="x"), part(None, '{"a":1}', index=0),
                           part("g", "", index=0, id="y"), part(None, '{"b":2}', index=0)],
    "index 0 twice, no ids": [part("f", '{"a":1}', index=0), part("g", '{"b":2}', index=0)],
    "no index": [part("f", '{"a', id="x"), part(None, '":1}'), part("g", '{"b":2}', id="y")],
    "neither": [part("f", '{"a'), part(None, '":1}'), part("g", '{"b":2}')],
    "objects": [part("f", {"a": 1}, index=0, id="x"), part("g", {"b": 2}, index=1, id="y")],
    "repeated": [part("f", '{"a', index=0, id="x", type="function"),
                 part("f", '":1}', index=0, id="x", type="function"),
                 part("g", '{"b":2}', index=1, id="y", type="function")],
    "no list": [part("f", "", index=0, id=""), part(None, '{"a":1}', index=0, id=""), part("g", '{"b":2}', index=1, id="")],
    "as it should be": [part("f", "", index=0, id="x", type="function"), part(None, '{"a":1}', index=0),
                        part("g", '{"b":2}', index=1, id="y", type="function")],
}  # fmt: skip


@pytest.mark.parametrize("shape", STREAMED_CALLS)
async def test_streamed_tool_calls(
    serve: Serve, backend: FakeBackend, oracle: Oracle, shape: str
) -> None:
    import openai

    deltas = [{"role": "assistant", "content": None}]
    deltas += [
        {"tool_calls": call if shape == "no list" else [call]} for call in STREAMED_CALLS[shape]
    ]
    sent = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    sent.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    async with Upstream(streaming(*map(orjson.dumps, sent), DONE)) as up, serve() as gateway:
        backend.add("m", up, engine="command")
        body = chat(tools=TOOLS, stream=True)
        for chunk in chunks_of(await gateway.stream(COMPLETIONS, body)):
            oracle.check("CreateChatCompletionStreamResponse", chunk)
        client = openai.AsyncOpenAI(base_url=gateway.url + "/v1", api_key="x")
        async with client, client.chat.completions.stream(**chat(tools=TOOLS)) as stream:
            final = await stream.get_final_completion()
    choice = final.choices[0]
    assert choice.finish_reason == "tool_calls"
    calls = choice.message.tool_calls
    assert calls
    assert [(call.function.name, call.function.arguments) for call in calls] == [
        ("f", '{"a":1}'),
        ("g", '{"b":2}'),
    ]
    assert len({call.id for call in calls}) == 2
    assert all(call.type == "function" for call in calls)


@pytest.mark.parametrize("reason", ["tool_calls", "stop", None, "length"])
@pytest.mark.parametrize("calls", [
    [part("f", index=0, id="x"), part("g", '{"b":2}', index=1, id="y")],
    [part("f", "", index=0, id="x"), part("g", '{"b":2}', index=1, id="y")],
    [part("g", '{"b":2}', index=0, id="y"), part("f", "", index=1, id="x")],
])  # fmt: skip
async def test_streamed_calls_without_arguments(
    serve: Serve, backend: FakeBackend, calls: list[dict[str, Any]], reason: str | None
) -> None:
    """They are JSON, as in a whole answer, unless the token limit may have cut them off."""
    sent = [{"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]} for call in calls]
    if reason is not None:
        sent.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    async with Upstream(streaming(*map(orjson.dumps, sent), DONE)) as up, serve() as gateway:
        backend.add("m", up, engine="command")
        chunks = chunks_of(await gateway.stream(COMPLETIONS, chat(tools=TOOLS, stream=True)))
    said: dict[int, str] = {}
    for chunk in chunks:
        for call in chunk["choices"][0]["delta"].get("tool_calls", ()):
            index = call["index"]
            said[index] = said.get(index, "") + call["function"].get("arguments", "")
    empty = "" if reason == "length" else "{}"
    assert sorted(said.values()) == sorted([empty, '{"b":2}'])
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    raw = {"choices": [{"index": 0, "message": message, "finish_reason": reason}]}
    async with Upstream(answering(raw)) as up, serve() as gateway:
        backend.add("m", up, engine="command")
        _, answer = await gateway.post(COMPLETIONS, chat(tools=TOOLS))
    whole = [
        call["function"]["arguments"] for call in answer["choices"][0]["message"]["tool_calls"]
    ]
    assert sorted(whole) == sorted(said.values())


async def test_the_name_of_a_call_in_the_older_form_is_told_once(
    serve: Serve, backend: FakeBackend
) -> None:
    """llama-cpp-python repeats it in every chunk, and clients join what they get."""
    pieces = [{"function_call": {"name": "f", "arguments": text}} for text in ('{"a', '":1}')]
    sent = [{"choices": [{"index": 0, "delta": delta}]} for delta in pieces]
    sent.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "function_call"}]})
    async with Upstream(streaming(*map(orjson.dumps, sent), DONE)) as up, serve() as gateway:
        backend.add("m", up, engine="command")
        chunks = chunks_of(await gateway.stream(COMPLETIONS, chat(stream=True)))
    deltas = [chunk["choices"][0]["delta"].get("function_call", {}) for chunk in chunks]
    assert "".join(delta.get("name", "") for delta in deltas) == "f"
    assert "".join(delta.get("arguments", "") for delta in deltas) == '{"a":1}'


CHOICES: list[tuple[str, dict[str, Any], Any]] = [
    (COMPLETIONS, chat(tools=TOOLS), lambda name: {"type": "function", "function": {"name": name}}),
    (COMPLETIONS, chat(tools=TOOLS),
     lambda name: {"type": "allowed_tools", "allowed_tools": {
         "mode": "auto", "tools": [{"type": "function", "function": {"name": name}}]}}),
    ("/v1/responses", {"model": "m", "input": "a", "tools": [{"type": "function", "name": "f"}]},
     lambda name: {"type": "function", "name": name}),
    ("/v1/messages", {"model": "m", "messages": SAY, "max_tokens": 9,
                      "tools": [{"name": "f", "input_schema": {"type": "object"}}]},
     lambda name: {"type": "tool", "name": name}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "choice"), CHOICES)
async def test_a_function_that_does_not_exist_is_refused_before_anything_is_generated(
    serve: Serve, backend: FakeBackend, path: str, body: dict[str, Any], choice: Any
) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up, serve() as gateway:
        backend.add("m", up, capabilities=ALL)
        status, answer = await gateway.post(path, {**body, "tool_choice": choice("nope")})
        assert (status, answer["error"]["param"]) == (400, "tool_choice")
        assert "'nope'" in answer["error"]["message"]
        assert not up.received
        await gateway.post(path, {**body, "tool_choice": choice("f")})
        assert len(up.received) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_allowed_tools_may_be_left_alone_unless_required(
    serve: Serve, backend: FakeBackend, stream: bool
) -> None:
    behaviour = streaming(
        *LLAMA_CHAT_STREAM[:3], LLAMA_CHAT_STREAM[3].replace(b"length", b"stop"), DONE
    )
    async with Upstream(behaviour if stream else answering(LLAMA_CHAT)) as up, serve() as gateway:
        backend.add("m", up)
        for mode, enforced in (("auto", False), ("required", True)):
            choice = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": TOOLS}}
            body = chat(tools=TOOLS, tool_choice=choice, stream=stream)
            async with gateway.http.post(gateway.url + COMPLETIONS, json=body) as answer:
                text = await answer.text()
                assert ("tool_choice_not_enforced" in text) == enforced
                if enforced and not stream:
                    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("kind", ["responses", "messages"])
async def test_a_demanded_call_that_was_not_made_in_the_other_apis(
    serve: Serve, backend: FakeBackend, kind: str
) -> None:
    path, body, events = STREAMS[kind]
    events = [event.replace(b"max_tokens", b"end_turn") for event in events]
    tool = {"type": "function"} if kind == "responses" else {"input_schema": {"type": "object"}}
    body = {**body, "tools": [{**tool, "name": "f"}], "stream": False}
    body["tool_choice"] = "required" if kind == "responses" else {"type": "any"}
    whole = LLAMA_RESPONSE if kind == "responses" else {**VLLM_MESSAGE, "stop_reason": "end_turn"}
    call = {"type": "function_call" if kind == "responses" else "tool_use", "id": "x", "name": "f"}
    async with Upstream(answering(whole)) as up, serve() as gateway:
        backend.add("m", up, capabilities=ALL)
        status, answer = await gateway.post(path, body)
        assert (status, answer["error"]["code"]) == (502, "tool_choice_not_enforced")
        made = {"output": [call]} if kind == "responses" else {"content": [call]}
        up.behaviour = answering({**whole, **made})
        status, _ = await gateway.post(path, body)
        assert status == 200
        up.behaviour = framed(events, "chunked")
        text = await gateway.stream(path, {**body, "stream": True})
        assert "tool_choice_not_enforced" in text.split("\n\n")[-2]


# The request's faults -----------------------------------------------------------------------


def llama(message: str, status: int = 500, kind: str = "server_error") -> Any:
    error = {"code": status, "message": message, "type": kind}
    return answering({"error": error}, status=f"{status} Oops")


def vllm(message: str, param: str | None = None) -> Any:
    error = {"message": message, "type": "BadRequestError", "param": param, "code": 400}
    return answering({"error": error}, status="400 Bad Request")


OVERRUNS = [
    "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens",
    "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
    "request (5031 tokens) exceeds the available context size (4096 tokens), try increasing it",
    "Requested tokens (2285) exceed context window of 2048",
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000",
    "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000",
    "Trying to keep the first 4500 tokens when context the overflows. However, the model is loaded with",
    "Request length 71599 + 2048 is greater than max_seq_len 65536",
]
"""What servers say that people run by ``engine: command``: vLLM, SGLang, llama-server, llama-cpp-python, TGI
(twice), LM Studio, TabbyAPI."""
UNSEEN = [
    "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
    "audio input is not supported - hint: if this is unexpected",
    "/models/qwen is not a multimodal model",
    "this model does not support image input",
    "this model is missing data required for image input",
    "Model does not support images. Please use a model that does.",
]
"""Of pictures and sound sent to models for text: llama-server (twice), vLLM, Ollama (twice), LM Studio."""
FAULTS = [
    *(("command", COMPLETIONS, answering({"error": said}, status=status), "context_length_exceeded", "messages")
      for said in OVERRUNS for status in ("400 No", "422 No", "500 No")),
    *(("command", COMPLETIONS, answering({"error": {"message": said}}, status=status), "unsupported_content", "messages")
      for said in UNSEEN for status in ("400 No", "500 No")),
    ("llama.cpp", COMPLETIONS, llama("image input is not supported - hint: if this is unexpected"),
     "unsupported_content", "messages"),
    ("llama.cpp", "/v1/responses", llama("audio input is not supported - hint: x"),
     "unsupported_content", "input"),
    ("llama.cpp", "/detokenize", llama("vector::_M_range_check: __n (which is 99999999)"),
     "invalid_value", "tokens"),
    ("llama.cpp", COMPLETIONS, llama("Unknown reasoning format: x"), "invalid_value", "reasoning_format"),
    ("llama.cpp", COMPLETIONS, llama("Field 'min_p': type must be number", 400), "invalid_value", "min_p"),
    ("llama.cpp", COMPLETIONS, llama("Cannot continue an assistant message that contains tool calls.", 400),
     "invalid_value", "messages"),
    ("llama.cpp", "/v1/responses", llama("'type' must be one of 'output_text' or 'refusal'", 400),
     "invalid_value", "input"),
    ("llama.cpp", "/v1/embeddings", llama("input (701 tokens) is too large to process. increase"),
     "context_length_exceeded", "input"),
    ("llama.cpp", "/v1/completions", llama("request (3001 tokens) exceeds", 400, "exceed_context_size_error"),
     "context_length_exceeded", "prompt"),
    ("vllm", COMPLETIONS, vllm("This model's maximum context length is 2048 tokens. However,", "input_tokens"),
     "context_length_exceeded", "messages"),
    ("vllm", "/v1/messages", vllm("This model's maximum context length is 2048 tokens. However,", "input_text"),
     "context_length_exceeded", "messages"),
    ("vllm", "/v1/completions", vllm("The decoder prompt (length 9) is longer than the maximum model length of 8."),
     "context_length_exceeded", "prompt"),
    ("vllm", "/v1/responses", vllm("The engine prompt length 9 exceeds the max_model_len 8.", "input"),
     "context_length_exceeded", "input"),
    ("vllm", COMPLETIONS, vllm("temperature must be non-negative", "temperature"),
     "BadRequestError", "temperature"),
]  # fmt: skip


@pytest.mark.parametrize(("engine", "path", "behaviour", "code", "param"), FAULTS)
async def test_a_fault_of_the_request_is_not_worth_repeating(
    serve: Serve,
    backend: FakeBackend,
    engine: str,
    path: str,
    behaviour: Any,
    code: str,
    param: str,
) -> None:
    async with Upstream(behaviour) as up, serve() as gateway:
        backend.add("m", up, engine=engine, capabilities=ALL)
        async with gateway.http.post(gateway.url + path, json=JSON_PATHS[path]) as answer:
            error = (await answer.json())["error"]
            assert answer.status == 400
            assert (error["code"], error["param"]) == (code, param)
            assert error["type"] == "invalid_request_error"
            assert answer.headers["x-should-retry"] == "false"


async def test_the_official_client_repeats_what_may_get_better_and_nothing_else(
    serve: Serve, backend: FakeBackend
) -> None:
    import openai

    overloaded = answering({"error": {"message": "queue full"}}, status="503 Busy")
    cases = [
        (llama("image input is not supported"), {}, 1),
        (answering({"error": {"message": "not here", "type": "x"}}, status="501 No"), {}, 1),
        (answering({"error": {"message": "conflict"}}, status="409 Conflict"), {}, 1),
        (answering(LLAMA_CHAT), {"tools": TOOLS, "tool_choice": "required"}, 1),
        (overloaded, {}, 2),
    ]
    async with Upstream(sending()) as up, serve() as gateway:
        backend.add("m", up)
        async with openai.AsyncOpenAI(
            base_url=gateway.url + "/v1", api_key="x", max_retries=1
        ) as client:
            for behaviour, fields, times in cases:
                up.behaviour = behaviour
                up.received.clear()
                with pytest.raises(openai.APIStatusError):
                    await client.chat.completions.create(**chat(**fields))
                assert len(up.received) == times


async def test_an_error_in_a_success_is_an_error(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(answering({"error": {"message": "out of slots", "code": 503}})) as up:
        backend.add("m", up)
        async with serve() as gateway:
            status, answer = await gateway.post(COMPLETIONS, chat())
            assert (status, answer["error"]["message"]) == (503, "out of slots")
            # The first event of a stream: nothing was sent yet, so it has a status too.
            up.behaviour = streaming(b'{"error":{"message":"no","code":400}}', DONE)
            status, answer = await gateway.post(COMPLETIONS, chat(stream=True))
            assert (status, answer["error"]["message"]) == (400, "no")


async def test_a_usage_in_every_chunk_is_told_once(serve: Serve, backend: FakeBackend) -> None:
    """vLLM's ``continuous_usage_stats`` counts up: the last is that of all."""
    events = [usage_chunk(0, 4, n).replace(b'"length"', b"null") for n in (1, 2)]
    events += [usage_chunk(0, 4, 3), usage_chunk(0, 4, 3, choices=[]), DONE]
    async with Upstream(streaming(*events)) as up, serve() as gateway:
        backend.add("m", up, engine="vllm")
        options = {"include_usage": True}
        body = {"model": "m", "prompt": "a", "stream": True, "stream_options": options}
        counted = [c.get("usage") for c in chunks_of(await gateway.stream("/v1/completions", body))]
        assert [u["completion_tokens"] for u in counted if u] == [3]
        options["continuous_usage_stats"] = True
        counted = [c.get("usage") for c in chunks_of(await gateway.stream("/v1/completions", body))]
        assert [u["completion_tokens"] for u in counted if u] == [1, 2, 3, 3]
