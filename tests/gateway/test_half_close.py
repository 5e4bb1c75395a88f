"""A client that closes its sending half is answered; one that has closed all of its connection is noticed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
import pytest

from tests.support.connections import connected

from .conftest import FakeBackend, Serve, chat
from .upstream import (
    DONE,
    LLAMA_CHAT,
    LLAMA_CHAT_STREAM,
    STREAM_HEAD,
    Behaviour,
    Received,
    Upstream,
    answering,
    chunked,
    response,
    streaming,
)

PATH = "/v1/chat/completions"


def posted(path: str = PATH, version: str = "1.1", **fields: Any) -> bytes:
    body = json.dumps(chat(**fields)).encode()
    head = f"POST {path} HTTP/{version}\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


GET = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n"


async def asked(port: int, *sent: bytes) -> bytes:
    """All that is answered to bytes after which the sending half is closed."""
    async with connected(port) as (reader, writer):
        writer.writelines(sent)
        writer.write_eof()
        return await reader.read()


def read_by_h11(data: bytes, method: str = "POST") -> tuple[list[int], bytes]:
    """The statuses of interim answers and of the answer, and its body."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    statuses, body = [], b""
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        assert event is not h11.NEED_DATA, data
        if isinstance(event, h11.Data):
            body += event.data
        else:
            assert isinstance(event, h11.InformationalResponse | h11.Response)
            statuses.append(event.status_code)
    return statuses, body


def slowly(gate: asyncio.Event, *parts: bytes) -> Behaviour:
    """The first part at once, the others when ``gate`` is set."""

    async def behave(_: Received, writer: asyncio.StreamWriter) -> bool:
        writer.write(parts[0])
        await gate.wait()
        writer.writelines(parts[1:])
        return True

    return behave


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_complete_requests_are_answered(
    serve: Serve, backend: FakeBackend, version: str
) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up, serve() as gateway:
        backend.add("m", up)
        port = gateway.server.port
        gateway.app.surface()
        get = GET.replace(b"1.1", version.encode())
        assert read_by_h11(await asked(port, get), "GET")[0][-1] == 200
        head = get.replace(b"GET", b"HEAD")
        for _ in range(3):
            assert read_by_h11(await asked(port, head), "HEAD")[0][-1] == 200
        statuses, body = read_by_h11(await asked(port, posted(version=version)))
        assert statuses[-1] == 200
        assert json.loads(body)["choices"]
        up.behaviour = streaming(*LLAMA_CHAT_STREAM, DONE)
        assert b"data: [DONE]\n\n" in await asked(port, posted(version=version, stream=True))


async def test_all_pipelined_requests_are_answered(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up, serve() as gateway:
        backend.add("m", up)
        port = gateway.server.port
        for count in (2, 5, 40):  # more than are parsed at once, too
            data = await asked(port, *[posted()] * count)
            assert data.count(b"HTTP/1.1 200 OK") == data.count(b'"choices"') == count
        gateway.app.surface()
        # What was begun and did not come is not.
        for rest in (GET[:20], posted()[:-1], b"\r\n"):
            data = await asked(port, GET, rest)
            assert data.count(b"HTTP/1.1 200 OK") == 1, rest


async def test_an_incomplete_request_ends_the_connection(
    serve: Serve, backend: FakeBackend
) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up, serve() as gateway:
        backend.add("m", up)
        whole = posted()
        for data in (b"", b"\r\n", whole[:10], whole[:-1]):
            assert await asked(gateway.server.port, data) == b""
        assert not up.received


async def test_a_slow_answer_comes_after_interim_ones(serve: Serve, backend: FakeBackend) -> None:
    gate = asyncio.Event()
    answer = response(json.dumps(LLAMA_CHAT).encode())
    async with Upstream(slowly(gate, b"", answer)) as up, serve() as gateway:
        backend.add("m", up)
        async with connected(gateway.server.port) as (reader, writer):
            writer.write(posted())
            writer.write_eof()
            data = await reader.readuntil(b"\r\n\r\n") + await reader.readuntil(b"\r\n\r\n")
            gate.set()
            statuses, body = read_by_h11(data + await reader.read())
    assert statuses[:2] == [100, 100]
    assert statuses[-1] == 200
    assert json.loads(body)["choices"]


async def test_a_slow_stream_goes_on(serve: Serve, backend: FakeBackend) -> None:
    gate = asyncio.Event()
    events = [chunked(b"data: " + event + b"\n\n") for event in (*LLAMA_CHAT_STREAM, DONE)]
    behaviour = slowly(gate, STREAM_HEAD + events[0], *events[1:], b"0\r\n\r\n")
    async with Upstream(behaviour) as up, serve() as gateway:
        backend.add("m", up)
        async with connected(gateway.server.port) as (reader, writer):
            writer.write(posted(stream=True))
            writer.write_eof()
            data = await reader.readuntil(b": keep-alive")
            gate.set()
            data += await reader.read()
    statuses, body = read_by_h11(data)
    assert statuses[-1] == 200
    assert body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("begun", [False, True])
async def test_a_client_that_has_left_altogether_is_noticed(
    serve: Serve, backend: FakeBackend, version: str, begun: bool
) -> None:
    never = asyncio.Event()
    first = STREAM_HEAD + chunked(b"data: " + LLAMA_CHAT_STREAM[0] + b"\n\n") if begun else b""
    async with Upstream(slowly(never, first)) as up, serve() as gateway:
        backend.add("m", up)
        for half_first in (False,) if version == "1.0" else (False, True):
            up.received.clear()
            async with connected(gateway.server.port) as (reader, writer):
                writer.write(posted(version=version, stream=begun))
                if half_first:
                    writer.write_eof()
                if begun:
                    await reader.readuntil(b"data: ")
                while not up.received:
                    await asyncio.sleep(0.01)
            await asyncio.wait_for(up.received[0].disconnected.wait(), 60)


@pytest.mark.parametrize("value", ["200-ok", "100-continue, x", "100", "", "100-continue;a=b"])
async def test_no_other_expectation_is_met(serve: Serve, value: str) -> None:
    async with serve() as gateway:
        line = f"GET /healthz HTTP/1.1\r\nhost: localhost\r\nexpect: {value}\r\n\r\n"
        data = await asked(gateway.server.port, line.encode())
    assert data.startswith(b"HTTP/1.1 417 ")
    assert json.loads(data.partition(b"\r\n\r\n")[2])["error"]["code"] == "expectation_failed"


async def test_an_expected_continue_is_sent(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up, serve() as gateway:
        backend.add("m", up)
        head, _, body = posted().partition(b"\r\n\r\n")
        async with connected(gateway.server.port) as (reader, writer):
            writer.write(head + b"\r\nExpect: 100-Continue\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(body)
            writer.write_eof()
            assert read_by_h11(await reader.read())[0][-1] == 200


async def test_what_the_server_as_a_whole_can_do(serve: Serve) -> None:
    async with serve(keys=["sk-" + "a" * 20]) as gateway:
        data = await asked(gateway.server.port, b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert data.startswith(b"HTTP/1.1 204 ")
    assert b"\r\nallow: GET, " in data
    assert b"content-length" not in data
