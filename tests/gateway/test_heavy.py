"""Large and hostile bodies: off the event loop, bounded, refused with a 400 and never a 500."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pickle
import signal
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from tests.support.polling import eventually
from yibu.gateway.operations import OPERATIONS
from yibu.gateway.requests.heavy import HEAVY_COMMAS, is_heavy, parse_heavy
from yibu.gateway.requests.offload import OffloadProcess
from yibu.gateway.schemas.base import validator
from yibu.gateway.schemas.chat import ChatRequest

from .conftest import FakeBackend, Running, Serve, chat
from .upstream import LLAMA_CHAT, LLAMA_TEXT, Upstream, answering

CHAT = "/v1/chat/completions"
VALID = {"role": "user", "content": "hi"}
INVALID = {"role": "user", "content": 1}


def messages(one: dict[str, Any], count: int) -> bytes:
    head, _, tail = orjson.dumps(chat(messages=["HERE"], seed=1)).partition(b'"HERE"')
    return head + b",".join([orjson.dumps(one)] * count) + tail


async def post(gateway: Running, path: str, data: bytes) -> tuple[int, Any]:
    headers = {"content-type": "application/json"}
    async with gateway.http.post(
        gateway.url + path, data=io.BytesIO(data), headers=headers
    ) as answer:
        return answer.status, await answer.json()


async def test_a_large_body_arrives_as_it_was_sent(serve: Serve, backend: FakeBackend) -> None:
    data = messages(VALID, 5000)
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up, served_name="inner")
        async with serve(keys=()) as gateway:
            assert is_heavy([data])
            status, _ = await post(gateway, CHAT, data)
            assert status == 200
            assert up.received[0].json == {**json.loads(data), "model": "inner"}
            process = gateway.app.offload.pid
            assert process is not None
            status, answer = await post(gateway, CHAT, messages(INVALID, 5000))
            assert (status, answer["error"]["param"]) == (400, "messages[0].content")
            assert gateway.app.offload.pid == process
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_the_outline_of_a_large_body() -> None:
    """What is read of a request when it is answered: lengths, the ends of lists, small fields."""
    tool = {"type": "function", "function": {"name": "f", "description": "d" * 70_000}}
    head, tail = messages(VALID, 50_000)[:-1], b',"tools":[' + orjson.dumps(tool) + b'],"n":2}'
    request = parse_heavy([head, tail], ChatRequest)
    assert len(request.body["messages"]) == 50_000
    assert (request.body["messages"][0], request.body["messages"][-1]) == (VALID, VALID)
    assert (request.body["tools"], request.body["n"]) == ([tool], 2)
    copy = pickle.loads(pickle.dumps(request))
    assert len(copy.body["messages"]) == 50_000
    sent = orjson.loads(copy.encode("inner", stream=True, tools=[]))
    whole = orjson.loads(head + tail)
    assert sent == {**whole, "model": "inner", "stream": True, "tools": []}
    assert not is_heavy([b"[" + b"1," * (HEAVY_COMMAS - 1) + b"1]"])


async def test_ollamas_large_body_too(serve: Serve, backend: FakeBackend) -> None:
    data = messages(VALID, 5000)
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up)
        async with serve() as gateway:
            body = data[:-1] + b',"stream":false}'
            status, answer = await post(gateway, "/api/chat", body.replace(b',"seed":1', b""))
            assert (status, answer["message"]["content"]) == (200, "Hello")
    assert up.received[0].json["messages"] == json.loads(data)["messages"]


async def stopped_over(gateway: Running, data: bytes) -> asyncio.Task[tuple[int, Any]]:
    """The request with a large body, while the process that has to read it stands still."""
    await post(gateway, CHAT, messages(INVALID, 5000))
    assert gateway.app.offload.pid is not None
    os.kill(gateway.app.offload.pid, signal.SIGSTOP)
    large = asyncio.create_task(post(gateway, CHAT, data))
    await eventually(lambda: gateway.app.offload._waiting)
    return large


async def test_others_are_answered_while_a_large_body_is_read(
    serve: Serve, backend: FakeBackend
) -> None:
    """A request that comes later is answered earlier: the large one holds nobody up."""
    backend.add("m")
    async with serve() as gateway:
        large = await stopped_over(gateway, messages(VALID, 5000))
        async with gateway.http.get(gateway.url + "/healthz") as answer:
            assert answer.status == 200
        assert not large.done()
        os.kill(gateway.app.offload.pid, signal.SIGCONT)
        assert (await large)[0] == 503  # no replica runs


async def test_the_process_ends_and_is_started_anew(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up)
        async with serve() as gateway:
            large = await stopped_over(gateway, messages(VALID, 5000))
            os.kill(gateway.app.offload.pid, signal.SIGKILL)
            status, answer = await large
            assert (status, answer["error"]["code"]) == (503, "out_of_resources")
            status, _ = await post(gateway, CHAT, messages(VALID, 5000))
            assert status == 200


async def test_a_client_that_leaves_costs_the_next_one_nothing() -> None:
    offload = OffloadProcess()
    try:
        first = asyncio.create_task(
            offload.run(parse_heavy, [messages(VALID, 50_000)], ChatRequest)
        )
        await eventually(lambda: offload.pid)
        first.cancel()
        request = await offload.run(parse_heavy, [messages(VALID, 3000)], ChatRequest)
        assert len(orjson.loads(request.encode("m"))["messages"]) == 3000
    finally:
        await offload.aclose()


# What is read must be writable, or refused -------------------------------------------------------

NESTED = (
    b'{"model":"m","messages":[{"role":"user","content":"x"}],"x":' + b"[" * 600 + b"]" * 600 + b"}"
)
DEEP = b'{"a":' * 260 + b"1" + b"}" * 260
TRICKY = [
    (NESTED, 400),
    (NESTED.replace(b"[" * 600, b'{"a":' * 300).replace(b"]" * 600, b"1" + b"}" * 300), 400),
    (b"[" * 100_000, 400),
    (b'{"a":' * 100_000, 400),
    (b'{"model":"m","prompt":"\\ud800"}', 400),
    (b'{"model":"m","prompt":"\xed\xa0\x80"}', 400),
    (b'{"model":"m","prompt":"x","y":NaN}', 400),
    (b'{"model":"m","prompt":"x","y":1e999}', 400),
    (b'{"model":"m","prompt":"x","seed":18446744073709551616}', 400),
    (b'{"model":"m","prompt":"x","y":' + b"9" * 5000 + b"}", 400),
    (b'{"model":"m","prompt":"x","y":340282366920938463463374607431768211456}', 200),
    (b'{"model":"nobody","model":"m","prompt":"x"}', 200),
    (b'\xef\xbb\xbf{"model":"m","prompt":"x"}', 200),
    (b'\xef\xbb\xbf\xef\xbb\xbf{"model":"m","prompt":"x"}', 400),
    (b'{"model":"m","prompt":"x","\\u0000":"\\u0000"}', 200),
    (b'{"model":"m","prompt":"x","logit_bias":{"' + b"k" * 100_000 + b'":"x"}}', 400),
    (b'{"model":"m","prompt":"x","stop":[' + b"1," * 100_000 + b"1]}", 400),
    (b'{"model":"m","prompt":"x","seed":"' + b"k" * 100_000 + b'"}', 400),
]  # fmt: skip


@pytest.mark.parametrize(("data", "expected"), TRICKY)
async def test_what_is_read_can_be_sent_or_is_refused(
    serve: Serve, backend: FakeBackend, data: bytes, expected: int
) -> None:
    async with Upstream(answering(LLAMA_TEXT)) as up:
        backend.add("m", up, served_name="inner")
        async with serve() as gateway:
            status, answer = await post(gateway, "/v1/completions", data)
            assert status == expected
            assert len(orjson.dumps(answer)) < 4000
    assert len(up.received) == (expected == 200)
    if up.received:
        assert up.received[0].json["model"] == "inner"


@pytest.mark.parametrize("path", [path for path, op in OPERATIONS.items() if op.schema is not None])
async def test_no_operation_fails_on_nested_or_wrong_bodies(
    serve: Serve, backend: FakeBackend, path: str
) -> None:
    async with Upstream(answering({"data": []})) as up:
        backend.add("m", up, capabilities=frozenset({OPERATIONS[path].capability}))
        async with serve() as gateway:
            fields = [
                "messages",
                "input",
                "prompt",
                "documents",
                "tokens",
                "tools",
                "metadata",
                "x",
            ]
            for field in fields:
                for value in (
                    b"[" * 400 + b"]" * 400,
                    b"[" + b"1.5," * 100 + b"1]",
                    b'{"a":' * 260 + b"1" + b"}" * 260,
                ):
                    data = b'{"model":"m","max_tokens":1,"' + field.encode() + b'":' + value + b"}"
                    status, answer = await post(gateway, path, data)
                    assert status in (200, 400), (field, value[:20], answer)
                    if b"[[" in value or b"a" in value:
                        assert status == 400


@pytest.mark.parametrize("path", [path for path, op in OPERATIONS.items() if op.schema is not None])
def test_only_the_first_fault_of_a_list_is_built(path: str) -> None:
    schema = OPERATIONS[path].schema
    assert schema is not None
    for field in schema.model_fields:
        for wrong in (None, 1.5, {"role": 1}, [None]):
            body = {"model": "m", "max_tokens": 1, field: [wrong] * 1000}
            faults = 0
            try:
                validator(schema).validate_python(body)
            except ValidationError as error:
                faults = error.error_count()
            assert faults < 40, (field, wrong)
