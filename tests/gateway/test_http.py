"""The HTTP server itself, over raw sockets: what a client may do badly, and must not get away
with."""

from __future__ import annotations

import asyncio
import gc
import json

import pytest

from tests.support.connections import connected
from yibu.gateway.http import connection
from yibu.gateway.http.cycle import Cycle
from yibu.gateway.http.exchange import Exchange
from yibu.gateway.http.request_head import MAX_HEAD_BYTES

from .conftest import FakeBackend, Running, Serve, chat
from .upstream import LLAMA_CHAT, Upstream, answering

BODY = json.dumps(chat()).encode()
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
)
WHOLE = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
CLOSE = b"connection: close\r\n\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"


async def talk(gateway: Running, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send the parts, then read until the server closes."""
    async with connected(gateway.server.port) as (reader, writer):
        for part in parts:
            writer.write(part)
            await writer.drain()
            if pause:
                await asyncio.sleep(pause)
        async with asyncio.timeout(60):
            return await reader.read()


@pytest.mark.parametrize(
    "request_bytes",
    [
        HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\nabcdef",
        HEAD + b"content-length: -1\r\n\r\n",
        HEAD + b"content-length: 5, 6\r\n\r\nabcdef",
        HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
        HEAD + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        HEAD + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n folded: y\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"nonsense\r\n\r\n",
    ],
)
async def test_what_could_be_read_two_ways_is_refused(
    serve: Serve, backend: FakeBackend, request_bytes: bytes
) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up)
        async with serve() as gateway:
            answer = await talk(gateway, request_bytes + HEALTH)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1, "nothing behind it may be answered"
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert up.received == []


async def test_an_answered_request_is_no_work_for_the_garbage_collector(
    serve: Serve, backend: FakeBackend
) -> None:
    """Its parts do not refer to each other in a circle: they are freed when the answer has ended."""
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up)
        async with serve() as gateway, connected(gateway.server.port) as (reader, writer):
            gc.collect()
            before = kept()
            gc.disable()
            try:
                for request in (WHOLE, HEALTH) * 10:
                    writer.write(request)
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                    await reader.readexactly(length)
                # The connection and the task of the last request still have some.
                assert kept() - before < 10
            finally:
                gc.enable()


def kept() -> int:
    """Requests in memory."""
    return sum(type(one) in (Cycle, Exchange) for one in gc.get_objects())


async def test_pipelined_requests_are_answered_in_order(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up)
        async with serve() as gateway:
            last = HEALTH.replace(b"host: localhost", b"host: localhost\r\nconnection: close")
            answer = await talk(gateway, WHOLE + HEALTH + WHOLE + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 4
    bodies = [part.partition(b"HTTP/1.1")[0] for part in answer.split(b"\r\n\r\n")[1:]]
    assert [b"chatcmpl" in body for body in bodies] == [True, False, True, False]


async def test_a_bad_request_behind_a_good_one(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up)
        async with serve() as gateway:
            answer = await talk(gateway, WHOLE + b"nonsense\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.count(b"HTTP/1.1 400 ") == 1


async def test_a_request_in_pieces_and_a_chunked_body(serve: Serve, backend: FakeBackend) -> None:
    framed = b"".join(b"%x\r\n%b\r\n" % (1, BODY[at : at + 1]) for at in range(len(BODY)))
    request = HEAD + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    request += framed + b"0\r\n\r\n"
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up)
        async with serve() as gateway:
            pieces = [request[at : at + 50] for at in range(0, len(request), 50)]
            answer = await talk(gateway, *pieces, pause=0.001)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert up.received[0].json == json.loads(BODY)


async def test_expect_continue(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up)
        async with serve() as gateway, connected(gateway.server.port) as (reader, writer):
            writer.write(HEAD + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(BODY))
            async with asyncio.timeout(60):
                assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
                writer.write(BODY)
                assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"


async def test_http_1_0_and_close(serve: Serve, backend: FakeBackend) -> None:
    async with serve() as gateway:
        answer = await talk(gateway, b"GET /healthz HTTP/1.0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b"connection: close" in answer
        answer = await talk(gateway, HEALTH.replace(b" /h", b" http://localhost/h")[:-2] + CLOSE)
        assert answer.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"y" * 100_000,
        b"GET /healthz HTTP/1.1\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
    ],
)
async def test_heads_are_bounded(serve: Serve, head: bytes) -> None:
    async with serve() as gateway:
        answer = await talk(gateway, head)
    assert answer.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("framing", [b"content-length: 5", b"transfer-encoding: chunked"])
async def test_the_bound_of_a_head_is_exact(serve: Serve, framing: bytes) -> None:
    start, end = b"POST /healthz HTTP/1.1\r\nhost: a\r\n" + framing + b"\r\nx: ", b"\r\n\r\n"
    body = b"hello" if b"5" in framing else b"5\r\nhello\r\n0\r\n\r\n"
    most = MAX_HEAD_BYTES - len(start) - len(end) + 4
    async with serve(hosts=["a"]) as gateway:
        for size, status in ((most, b"405"), (most + 1, b"431")):
            head = start + b"y" * size + end
            answer = await talk(gateway, head + body + b"GET / HTTP/1.0\r\nhost: a\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 %b " % status), size


async def test_a_slow_head_is_given_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.0)
    async with serve() as gateway:
        answer = await talk(gateway, b"GET /healthz HTT")
        assert answer.startswith(b"HTTP/1.1 408 ")


async def test_an_idle_connection_and_a_stalled_body_are_closed(
    serve: Serve, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "KEEP_ALIVE_SECONDS", 0.0)
    monkeypatch.setattr(connection, "STALL_SECONDS", 0.0)
    backend.add("m")
    async with serve() as gateway:
        assert await talk(gateway) == b""
        answer = await talk(gateway, HEAD + b"content-length: 100\r\n\r\n{")
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert not gateway.backend.in_flight


async def test_a_slow_reader_makes_the_engine_wait(serve: Serve, backend: FakeBackend) -> None:
    """Nobody reads: what piles up inside is bounded, and the rest stays at the engine."""
    total = 64 * 1024 * 1024
    sent = 0

    async def flood(_, writer):
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
        writer.write(b"content-length: %d\r\n\r\n" % total)
        piece = b'data: {"text":"' + b"x" * (65536 - 19) + b'"}\n\n'
        assert len(piece) == 65536
        while sent < total:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
        return True

    async with Upstream(flood) as up:
        backend.add("m", up, conforming=True)
        async with serve() as gateway, connected(gateway.server.port) as (reader, writer):
            body = json.dumps(chat(stream=True)).encode()
            writer.write(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
            async with asyncio.timeout(60):  # until the gateway reads no more of the engine
                while not any(c.waits_for_reader for c in gateway.app.pool._busy):
                    await asyncio.sleep(0.01)
            assert sent < total / 2
            async with asyncio.timeout(60):
                await reader.readuntil(b"\r\n\r\n")
                received = 0
                while received < total:
                    received += len(await reader.read(1 << 20))
            assert received >= total


async def test_32_streams_at_once_stay_apart(serve: Serve, backend: FakeBackend) -> None:
    async def echo(received, writer):
        name = received.json["messages"][0]["content"].encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
        writer.write(b"transfer-encoding: chunked\r\n\r\n")
        for _ in range(20):
            event = b'data: {"who":"%b"}\n\n' % name
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await asyncio.sleep(0.001)
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        return True

    async with Upstream(echo) as up:
        backend.add("m", up, conforming=True)
        async with serve() as gateway:

            async def one(name: str) -> None:
                body = chat(stream=True, messages=[{"role": "user", "content": name}])
                text = await gateway.stream("/v1/chat/completions", body)
                assert text == f'data: {{"who":"{name}"}}\n\n' * 20 + "data: [DONE]\n\n"

            for _ in range(2):
                await asyncio.gather(*(one(f"client-{n}") for n in range(32)))
            busy, idle = gateway.app.pool.counts()
            assert busy == 0
            assert idle <= 32
    assert len(up.received) == 64


async def test_cors(serve: Serve, backend: FakeBackend) -> None:
    async with serve(cors_origins=("https://app.example",)) as gateway:
        url = gateway.url + "/v1/chat/completions"
        asks = {"access-control-request-method": "POST"}
        async with gateway.http.options(
            url, headers={"origin": "https://app.example", **asks}
        ) as answer:
            assert answer.status == 204
            assert answer.headers["access-control-allow-origin"] == "https://app.example"
        async with gateway.http.options(
            url, headers={"origin": "https://evil.example", **asks}
        ) as answer:
            assert answer.status == 405
            assert "access-control-allow-origin" not in answer.headers


REFUSED = ("rebound.example", "rebound.example:8000", "localhost.evil.example", "127.0.0.1.nip.io",
           "xlocalhost", "internal", "", "0x7f000001")  # fmt: skip
ALLOWED = ("localhost", "LOCALHOST:8000", "localhost.", "app.localhost:1", "127.0.0.1", "10.1.2.3:80",
           "[::1]:8000", "[fe80::1%25eth0]:8000", "host.docker.internal:8000",
           "llm.example:8000", "LLM.example.")  # fmt: skip


async def raw_get(gateway: Running, path: str, *headers: bytes) -> tuple[int, bytes]:
    """Status and body of a GET with just these headers."""
    head = [b"GET %b HTTP/1.1" % path.encode(), *headers, b"connection: close", b"", b""]
    answer = await talk(gateway, b"\r\n".join(head))
    return int(answer.split(b" ")[1]), answer.partition(b"\r\n\r\n")[2]


async def test_names_of_other_sites_are_refused(serve: Serve) -> None:
    async with serve(hosts=("llm.example",)) as gateway:
        for path in ("/v1/models", "/healthz", "/metrics", "/docs"):
            for host in REFUSED:
                status, body = await raw_get(gateway, path, b"host: " + host.encode("latin-1"))
                assert status == 403, (path, host)
                assert json.loads(body)["error"]["code"] == "host_not_allowed"
            for host in ALLOWED:
                status, _ = await raw_get(gateway, path, b"host: " + host.encode())
                assert status == 200, (path, host)
        _, body = await raw_get(gateway, "/v1/models", b"host: rebound.example:8000")
        message = json.loads(body)["error"]["message"]
        assert "'rebound.example'" in message
        assert "hosts: [rebound.example]" in message
        # The preflight too, and what engines answer.
        headers = {"host": "rebound.example", "access-control-request-method": "POST"}
        url = gateway.url + "/v1/chat/completions"
        async with gateway.http.options(url, headers=headers) as answer:
            assert answer.status == 403
        status, _ = await gateway.post("/v1/chat/completions", chat(), headers=headers)
        assert status == 403


async def test_with_keys_any_name_passes(serve: Serve) -> None:
    async with serve(keys=["a-long-enough-key"]) as gateway:
        bearer = b"authorization: Bearer a-long-enough-key"
        status, _ = await raw_get(gateway, "/v1/models", b"host: rebound.example", bearer)
        assert status == 200
        status, _ = await raw_get(gateway, "/v1/models", b"host: rebound.example")
        assert status == 401


async def test_many_names_are_not_all_remembered(serve: Serve) -> None:
    async with serve() as gateway:
        check = gateway.app._hosts
        for number in range(2000):
            check.check(b"h%d.localhost" % number)
        assert len(check._known) < 1000
