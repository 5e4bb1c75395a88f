"""Heads that a well-meaning client never sends: whom a request is for, and what it asks to become."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re
import socket
import struct
from typing import cast

import pytest

from tests.support.connections import connected
from yibu.gateway.http.transport import AnswerTransport, Owner

from .conftest import FakeBackend, Running, Serve
from .test_http import BODY, CLOSE, HEAD, talk
from .upstream import LLAMA_CHAT, Upstream, answering


def get(target: str, *lines: str, host: str = "localhost", version: str = "1.1") -> bytes:
    head = "\r\n".join((f"GET {target} HTTP/{version}", f"Host: {host}", *lines, "", ""))
    return head[:-2].encode("latin-1") + CLOSE


def read(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the one answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.count(b"HTTP/1.1 ") == 1, answer
    first, *lines = head.decode().split("\r\n")
    return int(first.split(" ")[1]), dict(line.split(": ", 1) for line in lines), body


async def refused(gateway: Running, request: bytes) -> tuple[int, str]:
    """Status and code of an answer in the one form that errors have."""
    status, _, body = read(await talk(gateway, request))
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return status, error["code"]


@pytest.mark.parametrize("keys", [(), ("secret",)])
async def test_a_request_is_for_one_host(serve: Serve, keys: tuple[str, ...]) -> None:
    """A target that is a whole URL names its host too, and wins over the header (RFC 9112)."""
    answered = (
        ("/healthz", "localhost"), ("http://localhost/healthz", "localhost"),
        ("HTTP://LOCALHOST/healthz", "localhost"), ("https://localhost:8/healthz", "localhost:8"),
        ("/healthz", "[::1]:18080"), ("/healthz", "[fe80::1%25eth0]"), ("/healthz", "localhost:"),
        ("/healthz?http://a@b", "localhost"),
    )  # fmt: skip
    two_ways = (
        ("http://evil.example/healthz", "localhost"), ("http://localhost:81/healthz", "localhost"),
        ("http://a@localhost/healthz", "localhost"), ("http:///healthz", "localhost"),
        ("ftp://localhost/healthz", "localhost"), ("*", "localhost"), ("healthz", "localhost"),
        ("?x", "localhost"), ("/healthz", "a, localhost"), ("/healthz", "a@localhost"),
        ("/healthz", "localhost/x"), ("/healthz", "[::1"), ("/healthz", "localhost:80x"),
        ("/healthz", "localhost:123456"), ("/healthz", "http://localhost"), ("/healthz", "a:b:c"),
        ("/healthz", "h\xe9.example"),
    )  # fmt: skip
    async with serve(keys=keys) as gateway:
        for target, host in answered:
            status, _, body = read(await talk(gateway, get(target, host=host)))
            assert (status, body) == (200, b'{"status":"ok"}'), (target, host)
        for target, host in two_ways:
            assert await refused(gateway, get(target, host=host)) == (400, "invalid_http"), target
        # A URL without a path is that of the root.
        root = read(await talk(gateway, get("/")))[0]
        for target in ("http://localhost", "http://localhost?x"):
            assert read(await talk(gateway, get(target)))[0] == root


UPGRADE = ("Connection: Upgrade", "Upgrade: websocket")
KEY = "Sec-WebSocket-Key: " + base64.b64encode(bytes(16)).decode()
VERSION = "Sec-WebSocket-Version: 13"


async def test_what_opens_no_websocket_is_told_why(serve: Serve) -> None:

    def opening(*lines: str) -> bytes:
        return get("/v1/realtime", *UPGRADE, *lines).replace(CLOSE, b"\r\n")

    whole = opening(KEY, VERSION)
    async with serve() as gateway:
        for path in ("/v1/realtime", "/v1/realtime/", "/ws"):
            status, headers, body = read(await talk(gateway, get(path)))
            assert (status, headers["upgrade"]) == (426, "websocket")
            assert json.loads(body)["error"]["code"] == "upgrade_required"
        for given in ((), ("Sec-WebSocket-Version: 8",), ("Sec-WebSocket-Version: x", KEY)):
            status, headers, _ = read(await talk(gateway, opening(*given)))
            assert (status, headers["sec-websocket-version"]) == (426, "13")
        for handshake in (
            opening(VERSION),
            opening(VERSION, "Sec-WebSocket-Key: eA=="),
            opening(VERSION, "Sec-WebSocket-Key: *"),
            whole.replace(b"GET", b"POST"),
            whole.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\nabc"),
            whole.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            whole + b"\x81\x00",
        ):
            assert await refused(gateway, handshake) == (400, "invalid_http"), handshake


async def test_other_protocols_are_named(serve: Serve) -> None:
    told = {
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03": "http:// instead of https://",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0": "This is HTTP/2",
    }
    async with serve() as gateway:
        for opening, words in told.items():
            status, _, body = read(await talk(gateway, opening))
            assert (status, words in body.decode()) == (400, True)


async def test_a_client_of_http_1_0_gets_no_interim_answer(
    serve: Serve, backend: FakeBackend
) -> None:
    head = HEAD + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(BODY)
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up)
        async with serve() as gateway:
            old = await talk(gateway, head.replace(b"HTTP/1.1", b"HTTP/1.0") + BODY)
            async with connected(gateway.server.port) as (reader, writer):
                writer.write(head)
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
                writer.write(BODY)
                assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    assert re.findall(rb"HTTP/1\.1 (\d+)", old) == [b"200"]


async def test_a_compressed_body_is_refused(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up)
        async with serve() as gateway:
            for path in ("chat/completions", "audio/transcriptions", "models"):
                for coding in ("gzip", "br", "x-gzip, gzip", "identity, gzip"):
                    async with gateway.http.post(
                        f"{gateway.url}/v1/{path}",
                        data=gzip.compress(BODY),
                        headers={"Content-Encoding": coding, "Content-Type": "application/json"},
                    ) as answer:
                        assert answer.status == 415
                        error = (await answer.json())["error"]
                        assert error["code"] == "unsupported_encoding"
            plain = {"Content-Encoding": "identity", "Content-Type": "application/json"}
            async with gateway.http.post(
                f"{gateway.url}/v1/chat/completions", data=BODY, headers=plain
            ) as answer:
                assert answer.status == 200
    assert len(up.received) == 1


async def test_what_a_client_that_is_gone_is_told_last() -> None:
    """It resets the connection while its request is refused."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
    transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, ours)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    with pytest.raises(OSError, match="not connected"):
        transport.write_eof()
    AnswerTransport(transport, cast("Owner", None), loop).write_eof()
    transport.abort()
    await asyncio.sleep(0)
