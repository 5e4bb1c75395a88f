"""What h11 refuses is refused: thousands of requests, most of them broken somewhere, are sent to
both. The gateway may be stricter; it may never answer what h11 cannot read."""

from __future__ import annotations

import asyncio
import random
from typing import Any, Literal

import h11
import pytest

from tests.support.connections import connected
from yibu.gateway.app import Gateway
from yibu.gateway.http.exchange import Exchange
from yibu.gateway.http.known_heads import KnownHeads
from yibu.gateway.http.request_head import MAX_HEAD_BYTES

from .conftest import Serve

SEED = 20261128
COUNT = 1500
BATCH = 300
WAIT = 1.0
"""Seconds for an answer that need not come: to a request without an end none does."""

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


def judged(data: bytes) -> Literal["whole", "unended", "refused"]:
    """What h11 makes of the head of ``data``, and of the body as far as it goes."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
    connection.receive_data(data)
    begun = False
    try:
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                return "unended" if begun else "refused"
            begun = True
    except h11.RemoteProtocolError:
        return "refused"
    return "whole"


async def status(port: int, data: bytes, *, before: bytes = b"") -> int:
    """The status of the answer; 0 where the connection is closed or nothing comes. ``before`` is a
    request on the same connection that was answered already."""
    async with connected(port) as (reader, writer):
        try:
            if before:
                writer.write(before)
                async with asyncio.timeout(60):
                    head = await reader.readuntil(b"\r\n\r\n")
                    await reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
            writer.write(data)
            async with asyncio.timeout(60 if judged(data) == "whole" else WAIT):
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
                if judged(data) == "refused":
                    refused += 1
                    if code not in {0, 400, 408, 413, 431}:
                        wrong.append((code, data))
    assert wrong == []
    assert answered > COUNT // 20, "the fuzz must reach what is answered too"
    assert refused > COUNT // 4


KNOWN = (
    b"POST /v1/models HTTP/1.1\r\nHost: localhost\r\nUser-Agent: fuzz\r\nContent-Length: 3\r\n"
    b"Accept: */*\r\n\r\nabc"
)


async def test_what_h11_refuses_is_not_answered_behind_a_head_that_is_known(serve: Serve) -> None:
    """A known head is not parsed again; whatever differs from it by a byte is."""
    dice = random.Random(SEED)
    pieces = (b"\r\n", b"\r", b"\n", b"\0", b" ", b"\t", b":", b"0", b"3", b"4", b", 3", b"\xb3",
              b"Content-Length: 4\r\n", b"content-length: 3\r\n", b"Transfer-Encoding: chunked\r\n",
              b"Host: x\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n")  # fmt: skip
    wrong = []
    refused = 0
    async with serve() as gateway:
        for _ in range(2):
            batch = [_altered(KNOWN, dice, pieces) for _ in range(BATCH)]
            found = await asyncio.gather(
                *(status(gateway.server.port, data, before=KNOWN) for data in batch)
            )
            for data, code in zip(batch, found, strict=True):
                if judged(data) == "refused":
                    refused += 1
                    if code not in {0, 400, 408, 413, 431}:
                        wrong.append((code, data))
    assert wrong == []
    assert refused > BATCH // 2


def _altered(data: bytes, dice: random.Random, pieces: tuple[bytes, ...]) -> bytes:
    """One piece is put in, or takes the place of some bytes; mostly where a line begins."""
    starts = [at + 2 for at in range(len(data)) if data.startswith(b"\r\n", at)]
    at = dice.choice(starts) if dice.random() < 0.5 else dice.randrange(len(data))
    return data[:at] + dice.choice(pieces) + data[at + dice.choice((0, 0, 1, 2)) :]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], bytes]]:
    """Scope and body of the requests that the application is given; the body is its answer."""
    found: list[tuple[dict[str, Any], bytes]] = []

    async def echo(_: object, exchange: Exchange) -> None:
        body = b"".join(await exchange.read_parts(1000))
        hidden = {"client", "server", "extensions"}
        found.append(({k: v for k, v in exchange.scope.items() if k not in hidden}, body))
        await exchange.respond(200, [], body)

    monkeypatch.setattr(Gateway, "_answer", echo)
    return found


async def test_a_known_head_gives_what_it_gave_when_it_was_parsed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, seen: list[tuple[dict[str, Any], bytes]]
) -> None:
    """With another body and its length, on this connection and the next."""
    known = []
    find = KnownHeads.find
    monkeypatch.setattr(KnownHeads, "find", lambda *of: known.append(find(*of)) or known[-1])
    head = b"POST /a%%20b?c=d HTTP/1.1\r\nHost: localhost\r\ncontent-length: %d\r\nX-Y: z\r\n\r\n"
    bodies = [b"abc", b"", b"x" * 100] * 2
    async with serve() as gateway:
        for turn in (bodies[:3], bodies[3:]):
            async with connected(gateway.server.port) as (reader, writer):
                for body in turn:
                    writer.write(head % len(body) + body)
                    async with asyncio.timeout(60):
                        answer = await reader.readuntil(b"\r\n\r\n")
                        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
                        assert await reader.readexactly(len(body)) == body
    assert [found is not None for found in known] == [False] + 5 * [True]
    assert [body for _, body in seen] == bodies
    first = seen[0][0]
    assert (first["path"], first["query_string"]) == ("/a b", b"c=d")
    for scope, body in seen:
        headers = [
            (n, b"%d" % len(body) if n == b"content-length" else v) for n, v in first["headers"]
        ]
        assert scope == {**first, "headers": headers}


async def test_a_header_cannot_break_out_of_its_line(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def inject(_: object, exchange: Exchange) -> None:
        await exchange.respond(200, [(b"x", b"y\r\nset-cookie: z")], b"")

    monkeypatch.setattr(Gateway, "_answer", inject)
    async with serve() as gateway, connected(gateway.server.port) as (reader, writer):
        writer.write(KNOWN)
        assert b"set-cookie" not in await asyncio.wait_for(reader.read(), 60)


@pytest.mark.parametrize("line", [b"Connection: close", b"Expect: 100-continue"])
async def test_a_head_that_ends_a_connection_or_asks_first_is_parsed_each_time(
    serve: Serve, line: bytes, seen: list[tuple[dict[str, Any], bytes]]
) -> None:
    data = KNOWN.replace(b"Accept: */*", line)
    async with serve() as gateway:
        for _ in range(2):
            async with connected(gateway.server.port) as (reader, writer):
                writer.write(data[:-3])
                if line.startswith(b"Expect"):
                    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
                    assert answer == b"HTTP/1.1 100 Continue\r\n\r\n"
                writer.write(data[-3:])
                async with asyncio.timeout(60):
                    answer = await reader.readuntil(b"\r\n\r\nabc")
                    assert (b"connection: close" in answer) == line.startswith(b"Connection")
                    assert not line.startswith(b"Connection") or await reader.read() == b""
    assert [body for _, body in seen] == [b"abc", b"abc"]


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
