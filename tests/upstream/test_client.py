"""The client towards engines, over real sockets, with h11 as the judge of what an answer says."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import h11
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from yibu.engines.base import Endpoint
from yibu.upstream.ask import ask, request_head
from yibu.upstream.connection import HIGH_WATER, EngineConnection, UpstreamError
from yibu.upstream.pool import Pool, connect

SECOND = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nSECOND"


@dataclass
class Reading:
    """What a client made of an answer; ``status`` 0 is an error."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    whole: bool = False
    """Its end was known before the connection ended."""


def by_h11(raw: bytes) -> Reading:
    """What h11 reads in ``raw``, followed by the end of the connection."""
    judge = h11.Connection(h11.CLIENT, max_incomplete_event_size=64 * 1024)
    judge.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    judge.send(h11.EndOfMessage())
    reading = Reading(whole=True)
    try:
        judge.receive_data(raw)
        while True:
            event = judge.next_event()
            if event is h11.NEED_DATA:
                reading.whole = False
                judge.receive_data(b"")
            elif isinstance(event, h11.Response):
                reading.status = event.status_code
                reading.headers = list(event.headers)
            elif isinstance(event, h11.Data):
                reading.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return reading
            elif not isinstance(event, h11.InformationalResponse):
                return Reading()
    except h11.RemoteProtocolError:
        return Reading(whole=reading.whole)


class Engine:
    """Answers the first request with the bytes it is given, every further one with SECOND."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.closes = True
        self.requests: list[int] = []
        """The number of the connection that each request came by."""
        self.second = SECOND
        """What the second request is answered, once."""
        self._connections = 0
        self._last: asyncio.StreamWriter | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.endpoint = Endpoint("r", "127.0.0.1", self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    def will_send(self, *parts: bytes, closes: bool) -> None:
        self.parts, self.closes, self.requests = list(parts), closes, []

    def send_late(self, data: bytes) -> None:
        """Send on the last connection, at once: nobody's event loop runs in between."""
        assert self._last is not None
        self._last.write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        number = self._connections
        self._last = writer
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                self.requests.append(number)
                if len(self.requests) > 1:
                    writer.write(self.second)
                    self.second = SECOND
                    continue
                for part in self.parts:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0)
                if self.closes:
                    break
        writer.close()


async def request(pool: Pool, engine: Engine) -> EngineConnection:
    head = request_head("GET", "/", engine.endpoint, [])

    async def send(connection: EngineConnection) -> None:
        connection.send(head)

    return await pool.begin(engine.endpoint.host, engine.endpoint.port, send)


async def by_us(pool: Pool, engine: Engine) -> Reading:
    try:
        async with asyncio.timeout(60):
            connection = await request(pool, engine)
    except UpstreamError:
        return Reading()
    try:
        async with asyncio.timeout(60):
            body = await connection.read_all(10**9)
        return Reading(connection.status, connection.headers, body)
    except UpstreamError:
        return Reading()
    finally:
        pool.release(connection)


# The fuzz -------------------------------------------------------------------------------------

_STATUS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK", b"HTTP/1.1 200 ", b"HTTP/1.1 200", b"HTTP/1.0 200 OK", b"HTTP/2.0 200 OK",
        b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified", b"HTTP/1.1 101 Switching",
        b"HTTP/1.1 500 x", b"HTTP/1.1 99 x", b"HTTP/1.1 600 x", b"HTTP/1.1 2000 x", b"HTTP/0.9 200 OK",
        b"http/1.1 200 OK", b"HTTP/1.1  200 OK", b"ICY 200 OK", b"HTTP/1.1 200 \xff", b"RTSP/1.0 200 OK",
    ]
)  # fmt: skip
_HEADER = st.sampled_from(
    [
        b"content-length: 5", b"content-length: 5", b"Content-Length: 0", b"content-length: -5",
        b"content-length: +5", b"content-length: 5, 5", b"content-length: 5 5", b"content-length:",
        b"content-length: 0x5", b"content-length: 99999999999999999999999", b"content-length : 5",
        b"transfer-encoding: chunked", b"Transfer-Encoding: Chunked", b"transfer-encoding: gzip, chunked",
        b"transfer-encoding: chunked, chunked", b"transfer-encoding: identity", b"transfer-encoding: xchunked",
        b"transfer-encoding: chunked, identity", b"transfer-encoding:\tchunked ", b"connection: close",
        b"connection: keep-alive", b"Connection: x, close", b"content-type: text/plain", b" folded: x",
        b"x: \x00", b"x: \x7f", b"x:y", b"no colon", b": nameless", b"n me: x", b"x: \xe4", b"upgrade: h2c",
        b"connection: upgrade", b"x: a\rb", b"x:  spaces  ", b"x:", b"trailer: content-length",
    ]
)  # fmt: skip
_BODY = st.sampled_from(
    [
        b"", b"hello", b"hello", b"hell", b"hello!", b"5\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n",
        b"5;x=y\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\nx: y\r\n\r\n", b"5\r\nhello\r\n",
        b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n", b"5\nhello\n0\n\n", b"g\r\nhello\r\n0\r\n\r\n", b"00000005\r\nhello\r\n000\r\n\r\n",
        b"FFFFFFFFFFFFFFFFFFF\r\nhello", b"5\r\nhello\r\n0\r\ncontent-length: 1\r\n\r\n", b"0\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx",
        b"helloHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", b"hello\r\n", b"HTTP/1.1 200 OK\r\n\r\n",
    ]
)  # fmt: skip
_BREAK = st.sampled_from([b"\r\n"] * 8 + [b"\n", b"\r", b"\r\n\r\n"])
_INTERIM = st.sampled_from(
    [b""] * 6
    + [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\ncontent-length: 5\r\n\r\n",
        b"\r\n",
        b"\x00",
    ]
)


@st.composite
def answers(draw: Any) -> bytes:
    """An answer made of good and bad pieces, with some bytes of it changed now and then."""
    interim, status = draw(_INTERIM), draw(_STATUS)
    if interim and not status.startswith(b"HTTP/"):
        interim = b""  # there the parser takes RTSP for HTTP, and nothing can be read two ways
    lines = [status, *draw(st.lists(_HEADER, max_size=4))]
    raw = interim + b"".join(line + draw(_BREAK) for line in lines) + b"\r\n" + draw(_BODY)
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(raw)))
        new = draw(st.sampled_from([b"", b" ", b"\r", b"\n", b":", b"0", b"\x00", b"\xff", b"\t"]))
        raw = raw[:at] + new + raw[at + draw(st.integers(0, 1)) :]
    return raw


@pytest.fixture(scope="module")
def runner() -> Iterator[tuple[asyncio.Runner, Engine]]:
    with asyncio.Runner() as loop:
        engine = Engine()
        loop.run(engine.start())
        yield loop, engine
        loop.run(engine.stop())


def lower(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """h11 writes a transfer coding in lower case."""
    return [(name, value.lower()) for name, value in headers]


@given(raw=answers(), cut=st.integers(1, 400))
def test_an_answer_says_what_h11_reads_or_is_an_error(
    runner: tuple[asyncio.Runner, Engine], raw: bytes, cut: int
) -> None:
    loop, engine = runner
    judged = by_h11(raw)

    async def go() -> None:
        pool = Pool(10)
        try:
            engine.will_send(raw[:cut], raw[cut:], closes=not (judged.whole and judged.status))
            ours = await by_us(pool, engine)
            if ours.status:
                assert (ours.status, ours.body) == (judged.status, judged.body), raw
                assert lower(ours.headers) == lower(judged.headers)
            # Whatever came, and whenever: the next request gets its own answer.
            after = await by_us(pool, engine)
            assert (after.status, after.body) == (200, b"SECOND"), raw
        finally:
            pool.close()

    loop.run(go())


@pytest.mark.parametrize(
    "faulty",
    [
        b"HTTP/1.1 199 x\r\n\r\n",
        b"HTTP/1.1 600 x\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 a\0b\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
    ],
)
async def test_what_follows_a_refused_answer_is_no_answer(
    engine: Engine, pool: Pool, faulty: bytes
) -> None:
    engine.will_send(faulty + SECOND, closes=False)
    assert await by_us(pool, engine) == Reading()
    assert (await by_us(pool, engine)).body == b"SECOND"
    assert engine.requests == [1, 2]


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_an_answer_is_read_although_the_engine_closes_under_the_request(loop: Any) -> None:
    """It refuses a body that it does not read, and its system resets what is still sent."""
    answer = b"HTTP/1.1 413 x\r\ncontent-length: 9000\r\n\r\n" + b"x" * 9000

    async def go() -> tuple[int, bytes]:
        connection = await connect(*listener.getsockname())
        engine, _ = listener.accept()
        # Nothing here lets the event loop run before the last write has failed.
        connection.send(b"POST / HTTP/1.1\r\n")
        assert engine.recv(4) == b"POST"
        engine.sendall(answer)
        engine.close()
        connection.send(b"host: x\r\n")
        connection.send(b"content-length: 9\r\n\r\n")
        await connection.wait_head()
        return connection.status, await connection.read_all(10**6)

    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        asyncio.Runner(loop_factory=loop) as run,
    ):
        assert run.run(go()) == (413, b"x" * 9000)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    one = Engine()
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    one = Pool(5)
    yield one
    one.close()


async def test_more_than_the_buffer_at_the_end_leaves_a_clean_connection(
    engine: Engine, pool: Pool
) -> None:
    """The end comes while reading is paused; the connection is used again, and reads."""
    body = b"x" * (HIGH_WATER * 4)
    engine.will_send(
        b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body), closes=False
    )
    connection = await request(pool, engine)
    await until(lambda: connection.waits_for_reader)
    assert await connection.read_all(len(body)) == body
    assert connection.reusable
    pool.release(connection)
    assert (await by_us(pool, engine)).body == b"SECOND"
    assert engine.requests[0] == engine.requests[1]


async def test_an_answer_that_nobody_reads_on_is_closed(engine: Engine, pool: Pool) -> None:
    """All has come and not all was taken: whoever is given that connection would wait for ever."""
    body = b"x" * (HIGH_WATER + 1)
    engine.will_send(
        b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body), closes=False
    )
    connection = await request(pool, engine)
    await until(lambda: connection.complete or connection.waits_for_reader)
    pool.release(connection)
    assert pool.counts() == (0, 0)
    assert (await by_us(pool, engine)).body == b"SECOND"
    assert engine.requests[0] != engine.requests[1]


@pytest.mark.parametrize("late", [b"!", b"\r\n", SECOND.replace(b"SECOND", b"FORGED")])
async def test_late_bytes_cost_nobody_an_answer(engine: Engine, pool: Pool, late: bytes) -> None:
    """They come while the connection is idle, and the event loop has not read them yet."""
    engine.will_send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", closes=False)
    assert (await by_us(pool, engine)).body == b"hello"
    assert pool.counts() == (0, 1)
    engine.send_late(late)
    assert (await by_us(pool, engine)).body == b"SECOND"
    assert engine.requests[0] != engine.requests[1]
    # A moment later they would have been taken for the second answer: it is given no such chance.
    assert pool.counts() == (0, 0)
    assert (await by_us(pool, engine)).body == b"SECOND"
    assert len(set(engine.requests)) == 3


@pytest.mark.parametrize("split", [False, True], ids=["one packet", "two packets"])
async def test_an_engine_that_answers_twice_is_given_no_second_request_on_a_connection(
    engine: Engine, pool: Pool, split: bool
) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
    engine.will_send(*([answer, answer] if split else [2 * answer]), closes=False)
    connection = await request(pool, engine)
    if split:
        await until(lambda: connection.overran)
    assert await connection.read_all(5) == b"hello"
    pool.release(connection)
    for _ in range(2):
        assert (await by_us(pool, engine)).body == b"SECOND"
        assert pool.counts() == (0, 0)


async def test_a_loop_that_is_held_up_does_not_cost_a_connection(
    engine: Engine, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timeout is due by the time the loop looks at the socket, which was connected long ago."""
    monkeypatch.setattr("yibu.upstream.pool.CONNECT_TIMEOUT", 0.5)
    engine.will_send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", closes=False)
    asyncio.get_running_loop().call_soon(time.sleep, 1.0)
    assert (await by_us(pool, engine)).body == b"hello"


async def test_a_program_that_has_a_dead_engines_port_is_sent_nothing(
    engine: Engine, pool: Pool
) -> None:
    with pytest.raises(UpstreamError, match="has ended") as caught:
        await pool.begin(engine.endpoint.host, engine.endpoint.port, b"secret", alive=lambda: False)
    assert caught.value.kind == "connect"
    assert engine.requests == []
    assert pool.counts() == (0, 0)


async def test_bytes_of_no_answer_are_asked_again_on_a_fresh_connection(
    engine: Engine, pool: Pool
) -> None:
    """They come behind the next request: it was answered by nobody, and is sent once more."""
    engine.will_send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", closes=False)
    assert (await by_us(pool, engine)).body == b"hello"
    engine.second = b"!!" + SECOND
    assert (await by_us(pool, engine)).body == b"SECOND"
    assert len(engine.requests) == 3
    assert engine.requests[0] == engine.requests[1] != engine.requests[2]


async def test_a_request_whose_answer_began_is_not_sent_again(engine: Engine, pool: Pool) -> None:
    engine.will_send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", closes=False)
    assert (await by_us(pool, engine)).body == b"hello"
    engine.second = b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"
    with pytest.raises(UpstreamError, match="not HTTP") as caught:
        await request(pool, engine)
    assert not caught.value.stale
    assert len(engine.requests) == 2


@pytest.mark.parametrize(
    "endless",
    [
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"x: y\r\n" * 20_000,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;" + b"x" * 100_000,
    ],
    ids=["headers", "interim answers", "trailers", "chunk extensions"],
)
async def test_what_is_no_body_is_bounded(engine: Engine, endless: bytes) -> None:
    engine.will_send(endless, closes=False)
    with pytest.raises(UpstreamError, match="headers exceed"):
        await ask(engine.endpoint, "GET", "/", seconds=10, limit=10**6)


async def test_trailers_are_not_headers(engine: Engine) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: text/plain\r\n\r\n"
    engine.will_send(head + b"1\r\nx\r\n0\r\ncontent-type: text/html\r\nx: y\r\n\r\n", closes=False)
    answer = await ask(engine.endpoint, "GET", "/", seconds=10, limit=10)
    assert [value for name, value in answer.headers if name != b"transfer-encoding"] == [
        b"text/plain"
    ]


async def test_a_cut_answer_is_never_whole(engine: Engine, pool: Pool) -> None:
    """One that ends with the connection, when it is we who close it."""
    engine.will_send(b"HTTP/1.1 200 OK\r\n\r\nhel", closes=False)
    connection = await request(pool, engine)
    assert await connection.read() == b"hel"
    connection.fail("timeout", "the engine sent nothing")
    await asyncio.sleep(0)
    with pytest.raises(UpstreamError, match="sent nothing"):
        await connection.read()
    pool.release(connection)
    engine.will_send(b"HTTP/1.1 200 OK\r\n\r\nhel", closes=True)
    assert (await ask(engine.endpoint, "GET", "/", seconds=10, limit=10)).body == b"hel"


async def test_one_question_is_bounded(engine: Engine) -> None:
    engine.will_send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", closes=False)
    with pytest.raises(UpstreamError, match="longer than 4 bytes"):
        await ask(engine.endpoint, "GET", "/", seconds=10, limit=4)
    engine.will_send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel", closes=False)
    with pytest.raises(UpstreamError, match="no answer within") as caught:
        await ask(engine.endpoint, "GET", "/", seconds=0.1, limit=10)
    assert caught.value.kind == "timeout"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.002)
