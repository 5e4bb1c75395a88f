"""What h11 refuses is refused: thousands of requests, most of them broken somewhere, are sent to
both. The gateway may be stricter; it may never answer what h11 cannot read."""

from __future__ import annotations

import asyncio
import random

import h11
import pytest

from tests.support.connections import connected
from yibu.gateway.http.request_head import MAX_HEAD_BYTES

from .conftest import Serve

SEED = 20261128
COUNT = 1500
BATCH = 300
WAIT = 1.0
"""Seconds for an answer: to a request without an end none comes."""

LINES = (
    b"GET /healthz HTTP/1.1", b"GET /healthz HTTP/1.0", b"POST /v1/models HTTP/1.1",
    b"GET /healthz HTTP/2.0", b"GET /healthz RTSP/1.0", b"GET /healthz RTSP/1.1",
    b"GET /healthz ICE/1.0", b"SOURCE /healthz ICE/1.1", b"GET /healthz HTTP/0.9",
    b"GET /healthz HTTP/1.2", b"GET /healthz HTTP/11", b"GET /healthz HTTP/1.1 ",
    b"GET  /healthz HTTP/1.1", b" GET /healthz HTTP/1.1", b"\r\nGET /healthz HTTP/1.1",
    b"\nGET /healthz HTTP/1.1", b"GET\t/healthz HTTP/1.1", b"GET /healthz\tHTTP/1.1",
    b"GET /health\xe9 HTTP/1.1", b"GET /health\x01 HTTP/1.1", b"GET /health z HTTP/1.1",
    b"get /healthz HTTP/1.1", b"G@T /healthz HTTP/1.1", b"GET /healthz", b"GET", b"",
    b"GET http://localhost/healthz HTTP/1.1", b"OPTIONS * HTTP/1.1", b"GET /healthz http/1.1",
    b"CONNECT localhost:80 HTTP/1.1", b"GET /healthz#x HTTP/1.1", b"PRI * HTTP/2.0",
)  # fmt: skip
HEADERS = (
    b"Host: localhost", b"Host: localhost", b"Host: evil.example", b"host:localhost", b"Host:",
    b"Host : localhost", b"Content-Length: 3", b"Content-Length: 0", b"Content-Length: 03",
    b"Content-Length: +3", b"Content-Length: 3, 3", b"Content-Length: 3, 4", b"Content-Length: -1",
    b"Content-Length: 0x3", b"Content-Length:", b"Content-Length: 3_0", b"Content-Length: \xb3",
    b"Content-Length: 99999999999999999999999", b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: Chunked", b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip",
    b"Transfer-Encoding: identity, chunked", b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: chunked,",
    b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding: chunked ", b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: 'chunked'", b"Transfer_Encoding: chunked", b"X: a\x00b", b"X: a\x0bb",
    b"X: a\x0cb", b"X: a\rb", b"X: a\nb", b"X: a\x7fb", b"X: \xe9", b"X: a\x01b", b"X y: z", b"X@: z",
    b": z", b"X", b" folded: y", b"\tfolded", b"X:", b"X:   y  ", b"X\x00: y", b"\xe9: y", b"X: y\r",
    b"Connection: close", b"Connection: keep-alive", b"Expect: 100-continue",
    b"Connection: Upgrade", b"Upgrade: h2c", b"Upgrade: websocket",
)  # fmt: skip
BODIES = (
    b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n", b"3\nabc\n0\n\n", b"0\r\n\r\n", b"3;x=y\r\nabc\r\n0\r\n\r\n",
    b"3\r\nabcd\r\n0\r\n\r\n", b"zz\r\nabc\r\n0\r\n\r\n", b"0x3\r\nabc\r\n0\r\n\r\n", b"-3\r\nabc\r\n0\r\n\r\n",
    b"3 \r\nabc\r\n0\r\n\r\n", b" 3\r\nabc\r\n0\r\n\r\n", b"3\r\nabc0\r\n\r\n", b"3\r\nabc\r\n0\r\nX: y\r\n\r\n",
    b"3\r\nabc\r\n0\r\nX y: z\r\n\r\n", b"3\r\nabc\r\n00\r\n\r\n", b"ffffffffffffffffffffff\r\nabc",
    b"3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n", b"3\r\n\r\nabc\r\n0\r\n\r\n",
)  # fmt: skip
ENDS = (b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n")


def make(dice: random.Random) -> bytes:
    """A request: sound in most of its parts, so that one fault at a time is what is tried."""
    sound = dice.random() < 0.5
    end = b"\r\n" if dice.random() < 0.9 else dice.choice(ENDS)
    line = dice.choice(LINES[:3]) if sound or dice.random() < 0.5 else dice.choice(LINES)
    headers = [] if dice.random() < 0.1 else [HEADERS[0]]
    headers += dice.choices(HEADERS, k=dice.choice((0, 1, 1, 2, 3)))
    dice.shuffle(headers)
    data = end.join((line, *headers, b"", b"")) + dice.choice(BODIES)
    if not sound and dice.random() < 0.2:
        at = dice.randrange(len(data))
        data = data[:at] + dice.randbytes(1) + data[at + dice.randrange(2) :]
    return data


def judged(data: bytes) -> bool:
    """Whether h11 reads the head of ``data``, and finds no fault in the body as far as it goes."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
    connection.receive_data(data)
    begun = False
    try:
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                return begun
            begun = True
    except h11.RemoteProtocolError:
        return False
    return True


async def status(port: int, data: bytes) -> int:
    """The status of the first answer; 0 where the connection is closed or nothing comes."""
    async with connected(port) as (reader, writer):
        try:
            writer.write(data)
            async with asyncio.timeout(WAIT):
                line = await reader.readline()
                while line.startswith(b"HTTP/1.1 100"):
                    await reader.readline()
                    line = await reader.readline()
        except (ConnectionError, TimeoutError):
            return 0
    return int(line.split(b" ")[1]) if line else 0


async def test_what_h11_refuses_is_not_answered(serve: Serve) -> None:
    dice = random.Random(SEED)
    wrong = []
    answered = refused = 0
    async with serve() as gateway:
        for _ in range(COUNT // BATCH):
            batch = [make(dice) for _ in range(BATCH)]
            found = await asyncio.gather(*(status(gateway.server.port, data) for data in batch))
            for data, code in zip(batch, found, strict=True):
                # 404, 405: read, and then refused for what it asks.
                answered += code in {200, 404, 405}
                if not judged(data):
                    refused += 1
                    if code not in {0, 400, 408, 413, 431}:
                        wrong.append((code, data))
    assert wrong == []
    assert answered > COUNT // 20, "the fuzz must reach what is answered too"
    assert refused > COUNT // 4


SOUND = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("piece", [1, 7, 1000])
async def test_the_same_in_pieces(serve: Serve, piece: int) -> None:
    """A head is judged the same however its bytes arrive."""
    cases = [
        (SOUND, 200),
        (SOUND.replace(b" HTTP/", b" RTSP/"), 400),
        (b"\r\n" + SOUND, 400),
        (SOUND.replace(b"HTTP/1.1", b"HTTP/2.0"), 400),
        (SOUND.replace(b"Host: localhost\r\n", b""), 400),
        (SOUND.replace(b"Host: localhost\r\n", b"Host: localhost\r\nHost: localhost\r\n"), 400),
    ]
    async with serve() as gateway:
        for data, expected in cases:
            async with connected(gateway.server.port) as (reader, writer):
                for at in range(0, len(data), piece):
                    writer.write(data[at : at + piece])
                    await writer.drain()
                    await asyncio.sleep(0)
                line = await asyncio.wait_for(reader.readline(), 60)
                assert int(line.split(b" ")[1]) == expected, data


async def test_a_second_request_is_judged_like_the_first(serve: Serve) -> None:
    post = b"POST /v1/models HTTP/1.1\r\nHost: localhost\r\n"
    bodies = (
        SOUND,
        post + b"Content-Length: 3\r\n\r\nabc",
        post + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    )
    async with serve() as gateway:
        for first in bodies:
            for bad in (
                SOUND.replace(b"HTTP/", b"RTSP/"),
                SOUND.replace(b"Host: localhost", b"X:"),
            ):
                async with connected(gateway.server.port) as (reader, writer):
                    writer.write(first + bad + SOUND)
                    answer = await asyncio.wait_for(reader.read(), 60)
                    assert answer.count(b"HTTP/1.1 ") == 2, (first, bad)
                    assert answer.count(b"HTTP/1.1 400 ") == 1
