"""What uvicorn leaves open and the gateway's connections bound, over real sockets."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import psutil
import pytest
import wsproto
from wsproto.events import RejectConnection, Request

from tests.support.connections import connected
from tests.support.tools import debian_program
from yibu.gateway.app import Gateway
from yibu.gateway.envelope import EngineTimeoutError
from yibu.gateway.http import connection
from yibu.gateway.http.exchange import Exchange

from .conftest import FakeBackend, Serve, chat
from .test_http import CLOSE, HEAD, HEALTH, WHOLE, talk
from .upstream import LLAMA_CHAT, STREAM_HEAD, Upstream, answering, chunked, sending

LAST = HEALTH[:-2] + CLOSE
STREAM_BODY = json.dumps(chat(stream=True)).encode()
STREAM = HEAD + b"content-length: %d\r\n\r\n" % len(STREAM_BODY) + STREAM_BODY
BROKEN = sending(STREAM_HEAD, chunked(b'data: {"choices":[]}\n\n'), close=True)


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch):
    """Time-outs of a fraction of a second, looked for as often."""

    def set_to(seconds: float, *names: str) -> None:
        for name in names:
            monkeypatch.setattr(connection, name, seconds)

    return set_to


# An answer ends once ---------------------------------------------------------------------


async def test_an_exchange_has_one_answer() -> None:
    sent = []

    async def send(message) -> None:
        sent.append(message)

    scope = {"method": "GET", "path": "/", "headers": []}
    exchange = Exchange(scope, receive=None, send=send)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError):
        await exchange.write(b"before its head")
    exchange.stream = True
    await exchange.start(200, [])
    await exchange.write(b"x")
    await exchange.end()
    before = len(sent)
    await exchange.refuse(EngineTimeoutError("too late"))
    for second in (exchange.end(), exchange.write(b"y"), exchange.start(200, [])):
        with pytest.raises(RuntimeError):
            await second
    assert len(sent) == before


async def test_a_broken_stream_leaves_its_connection_clean(
    serve: Serve, backend: FakeBackend
) -> None:
    async with Upstream(BROKEN) as up:
        backend.add("m", up, conforming=True)
        async with (
            serve() as gateway,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as http,
        ):
            for _ in range(20):
                async with http.post(
                    gateway.url + "/v1/chat/completions", json=chat(stream=True)
                ) as answer:
                    assert b'"error"' in await answer.read()
                async with http.get(gateway.url + "/healthz") as answer:
                    assert await answer.json() == {"status": "ok"}


async def test_pipelined_answers_belong_to_their_requests(
    serve: Serve, backend: FakeBackend
) -> None:
    async with Upstream(BROKEN) as up:
        backend.add("m", up, conforming=True)
        async with serve() as gateway:
            answer = await talk(gateway, (STREAM + HEALTH) * 5 + LAST)
    heads = re.findall(rb"HTTP/1\.1 (\d+).*?\r\n\r\n(.*?)(?=HTTP/1\.1 |\Z)", answer, re.DOTALL)
    assert [code for code, _ in heads] == [b"200"] * 11
    assert [b'"error"' in body for _, body in heads] == [True, False] * 5 + [False]
    assert [body for _, body in heads][1::2] == [b'{"status":"ok"}'] * 5
    assert answer.count(b"\r\n0\r\n\r\n") == 5


NGINX = """
worker_processes 1; daemon off; master_process off; pid {folder}/pid; error_log {folder}/log;
events {{ worker_connections 64; }}
http {{
    access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b;
    fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    upstream yibu {{ server 127.0.0.1:{port}; keepalive 2; }}
    server {{
        listen unix:{folder}/socket;
        location / {{ proxy_pass http://yibu; proxy_http_version 1.1;
                     proxy_set_header Connection ""; proxy_set_header Host localhost; }}
    }}
}}
"""


async def test_behind_nginx_nobody_gets_anothers_bytes(
    serve: Serve, backend: FakeBackend, tmp_path: Path, engine_cache: Path
) -> None:
    nginx = debian_program(engine_cache, "nginx", "nginx", folder="usr/sbin")
    async with Upstream(BROKEN) as up:
        backend.add("m", up, conforming=True)
        async with serve() as gateway:
            file = tmp_path / "nginx.conf"
            file.write_text(NGINX.format(folder=tmp_path, port=gateway.server.port))
            process = subprocess.Popen([nginx, "-c", file, "-e", tmp_path / "log"])
            try:
                await _until_exists(tmp_path / "socket")
                connector = aiohttp.UnixConnector(str(tmp_path / "socket"))
                async with aiohttp.ClientSession(connector=connector) as http:

                    async def one(number: int) -> None:
                        if number % 2:
                            body = chat(stream=True)
                            async with http.post(
                                "http://x/v1/chat/completions", json=body
                            ) as answer:
                                assert b'"error"' in await answer.read()
                        else:
                            async with http.get("http://x/healthz") as answer:
                                assert (answer.status, await answer.text()) == (
                                    200,
                                    '{"status":"ok"}',
                                )

                    for start in range(0, 120, 8):
                        await asyncio.gather(*(one(start + n) for n in range(8)))
            finally:
                process.terminate()
                process.wait()


async def _until_exists(path: Path) -> None:
    async with asyncio.timeout(60):
        while not path.exists():
            await asyncio.sleep(0.01)


# What nobody reads, and what nobody asked for ------------------------------------------------


@pytest.mark.skipif(
    (3, 12) <= sys.version_info < (3, 12, 9) or (3, 13) <= sys.version_info < (3, 13, 2),
    reason="asyncio's writelines tells of no full buffer (CVE-2024-12254); a node runs on uvloop",
)
async def test_answers_that_nobody_reads_are_bounded_and_given_up(serve: Serve, ticking) -> None:
    ask = b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n"
    async with serve() as gateway:
        async with gateway.http.get(gateway.url + "/openapi.json") as answer:
            size = len(await answer.read())
        memory = psutil.Process().memory_info().rss
        async with connected(gateway.server.port, limit=1) as (_, writer):
            flood = asyncio.create_task(_flood(writer, ask * 1000))
            served = gateway.app.metrics.requests
            async with asyncio.timeout(60):  # until it reads no more of what is asked
                while not any(c.flow.read_paused for c in gateway.server._state.timed):
                    await asyncio.sleep(0.01)
            assert sum(served.values()) * size < 64 << 20, "only what the sockets hold was made"
            assert psutil.Process().memory_info().rss - memory < 64 << 20
            ticking(0.0, "STALL_SECONDS")
            async with asyncio.timeout(60):
                await flood


async def _flood(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Send until the other side breaks the connection."""
    writer.transport.pause_reading()
    try:
        while True:
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        return


async def test_whole_answers_that_nobody_reads_are_given_up(
    serve: Serve, backend: FakeBackend, ticking
) -> None:
    big = dict(LLAMA_CHAT, padding="x" * (16 << 20))
    async with Upstream(answering(big)) as up:
        backend.add("m", up, conforming=True)
        async with serve() as gateway, connected(gateway.server.port, limit=1) as (_, writer):
            writer.transport.pause_reading()
            writer.write(WHOLE)
            async with asyncio.timeout(60):
                while not up.received:
                    await asyncio.sleep(0.01)
                ticking(0.0, "STALL_SECONDS")
                while gateway.server.connections:
                    await asyncio.sleep(0.05)


async def test_trailers_are_not_headers(serve: Serve, backend: FakeBackend) -> None:
    key = "a-long-enough-key"
    body = json.dumps(chat()).encode()
    framed = b"%x\r\n%b\r\n0\r\n" % (len(body), body)
    start = HEAD + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up)
        async with serve(keys=(key,)) as gateway:
            trailer = b"authorization: Bearer %b\r\n\r\n" % key.encode()
            answer = await talk(gateway, start, framed + trailer)
            assert answer.startswith(b"HTTP/1.1 401 ")
        async with serve() as gateway:
            plain = start.replace(b"application/json", b"text/plain")
            answer = await talk(gateway, plain + framed + b"content-type: application/json\r\n\r\n")
            assert b"unsupported_media_type" in answer
            answer = await talk(gateway, start + framed + b"x: y\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 ")
            for many in (b"x: y\r\n" * 20_000, b"x: " + b"y" * 100_000):
                answer = await talk(gateway, start + framed + many)
                assert answer.startswith(b"HTTP/1.1 431 ")
            # Nor do they end a connection: what acts on one is refused, as what frames a message is.
            for name in (b"connection", b"Connection", b"proxy-connection", b"transfer-encoding"):
                answer = await talk(gateway, start + framed + name + b": close\r\n\r\n")
                assert answer.startswith(b"HTTP/1.1 400 "), name
            extension = start + b"1;" + b"x" * 100_000
            assert (await talk(gateway, extension)).startswith(b"HTTP/1.1 431 ")
    assert len(up.received) == 1


async def test_a_trickled_body_is_bounded(serve: Serve, backend: FakeBackend, ticking) -> None:
    """A byte now and then keeps no connection for ever."""
    ticking(0.2, "BODY_SECONDS")
    backend.add("m")
    async with serve() as gateway, connected(gateway.server.port) as (reader, writer):
        writer.write(HEAD + b"content-length: 100000\r\n\r\n")
        async with asyncio.timeout(60):
            answer = asyncio.create_task(reader.readline())
            while not answer.done():
                writer.write(b" ")
                await asyncio.sleep(0.05)
        assert (await answer).startswith(b"HTTP/1.1 408 ")


# Connections ---------------------------------------------------------------------------------


async def test_a_newcomer_takes_the_place_of_the_longest_idle(serve: Serve) -> None:
    async with serve(max_connections=3) as gateway, AsyncExitStack() as held:
        port = gateway.server.port
        old = [await held.enter_async_context(connected(port)) for _ in range(3)]
        assert (await talk(gateway, LAST)).startswith(b"HTTP/1.1 200 ")
        async with asyncio.timeout(60):
            assert await old[0][0].read() == b""
        old[2][1].write(LAST)
        assert (await old[2][0].read()).startswith(b"HTTP/1.1 200 ")


async def test_when_all_are_busy_one_more_is_refused(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(sending(30.0)) as up:
        backend.add("m", up)
        async with (
            serve(max_connections=2, drain_timeout=0.1) as gateway,
            AsyncExitStack() as held,
        ):
            port = gateway.server.port
            busy = [await held.enter_async_context(connected(port)) for _ in "ab"]
            for _, writer in busy:
                writer.write(WHOLE)
            async with asyncio.timeout(60):
                while len(up.received) < 2:
                    await asyncio.sleep(0.01)
            answer = await talk(gateway, HEALTH)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1\r\n" in answer
            assert b"gateway.max_connections" in answer
            busy[0][1].close()
            async with asyncio.timeout(60):
                while (answer := await talk(gateway, LAST)).startswith(b"HTTP/1.1 503 "):
                    await asyncio.sleep(0.01)
            assert answer.startswith(b"HTTP/1.1 200 ")


async def test_many_pipelined_requests_are_all_answered(serve: Serve) -> None:
    async with serve() as gateway:
        answer = await talk(gateway, HEALTH * 2000 + LAST)
    assert answer.count(b'{"status":"ok"}') == 2001


async def test_the_head_leaves_with_the_body(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """One packet for a small answer; a head alone does not wait for its body."""
    go_on = asyncio.Event()

    async def answer(_: Gateway, exchange: Exchange) -> None:
        await exchange.start(200, [])
        if exchange.path == "/later":
            await go_on.wait()
        await exchange.end(b"body")

    monkeypatch.setattr(Gateway, "_answer", answer)
    async with serve() as gateway, connected(gateway.server.port) as (reader, writer):
        async with asyncio.timeout(60):
            for _ in range(20):
                writer.write(HEALTH)
                assert b"body" in await reader.read(65536)
            writer.write(HEALTH.replace(b"/healthz", b"/later"))
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            go_on.set()
            await reader.readuntil(b"0\r\n\r\n")


# Other protocols -----------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_an_offered_upgrade_changes_nothing(
    serve: Serve, backend: FakeBackend, framing: str
) -> None:
    """Java's HTTP client offers HTTP/2 with every first request, bodies included."""
    body = json.dumps(chat()).encode()
    offer = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAA\r\n"
    if framing == "length":
        request = HEAD + offer + b"content-length: %d\r\n\r\n%b" % (len(body), body)
    else:
        framed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        request = HEAD + offer + b"transfer-encoding: chunked\r\n\r\n" + framed
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up)
        async with serve() as gateway:
            answer = await talk(gateway, request, request[:40], request[40:] + LAST)
    assert answer.count(b"HTTP/1.1 200 ") == 3
    assert [received.json["messages"] for received in up.received] == [chat()["messages"]] * 2


async def test_a_websocket_is_refused_politely(serve: Serve) -> None:
    async with serve() as gateway:
        client = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        hello = client.send(Request(host="localhost", target="/v1/nothing"))
        client.receive_data(await talk(gateway, hello))
        event = next(client.events())
    assert isinstance(event, RejectConnection)
    assert event.status_code == 404


@pytest.mark.parametrize("broken", [False, True])
async def test_a_stream_over_http_1_0_lasts_until_the_end(
    serve: Serve, backend: FakeBackend, broken: bool
) -> None:
    """HTTP/1.0 knows no chunks: ApacheBench and nginx's default read them as text."""
    event = b'data: {"choices":[]}\n\n'
    parts = (STREAM_HEAD, chunked(event), chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    async with Upstream(BROKEN if broken else sending(*parts)) as up:
        backend.add("m", up, conforming=True)
        async with serve() as gateway:
            answer = await talk(gateway, STREAM.replace(b"HTTP/1.1", b"HTTP/1.0"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert body.startswith(event)
    assert (b'"error"' if broken else b"data: [DONE]\n\n") in body


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_an_answer_cut_short_is_not_taken_for_whole(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, version: bytes
) -> None:
    async def cut(_: Gateway, exchange: Exchange) -> None:
        await exchange.start(200, [])
        await exchange.write(b"part of it")
        raise EngineTimeoutError("the engine broke off")

    monkeypatch.setattr(Gateway, "_answer", cut)
    async with serve() as gateway:
        try:
            answer = await talk(gateway, HEALTH.replace(b"HTTP/1.1", b"HTTP/" + version))
        except ConnectionResetError:
            return
    assert version == b"1.1", "over HTTP/1.0 only a reset tells"
    assert not answer.endswith(b"0\r\n\r\n")
