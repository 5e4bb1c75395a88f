"""Websocket sessions through the gateway, over engines that echo and fail at will."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from websockets.asyncio import client
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request, Response

from tests.support.polling import eventually
from yibu.accounts.live import LiveAccounts
from yibu.accounts.store import AccountStore
from yibu.accounts.types import Account
from yibu.config.types import Limits
from yibu.engines.base import Endpoint
from yibu.gateway.live.routes import LIVE_ROUTES

from .conftest import SPEECH, FakeBackend, Running, Serve

KEY = "a-key-that-is-long-enough"
SECONDS = 60.0
REALTIME = "/v1/realtime?intent=transcription"
connect = partial(client.connect, open_timeout=SECONDS, ping_timeout=SECONDS)


class EchoEngine:
    """Says what it is asked to: echoes, reports, floods, dies."""

    def __init__(self) -> None:
        self.handshakes: list[Request] = []
        self.open: set[ServerConnection] = set()
        self.refuse_with: tuple[int, bytes] | None = None
        self.port = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[EchoEngine]:
        async with serve_websockets(
            self.talk,
            "127.0.0.1",
            0,
            process_request=self.handshake,
            select_subprotocol=lambda _, offered: offered[0] if offered else None,
            compression=None,
            open_timeout=SECONDS,
            ping_timeout=SECONDS,
        ) as server:
            self.port = next(iter(server.sockets)).getsockname()[1]
            yield self

    def handshake(self, connection: ServerConnection, request: Request) -> Response | None:
        self.handshakes.append(request)
        if self.refuse_with is None:
            return None
        status, body = self.refuse_with
        response = connection.respond(status, "")
        response.body = body
        response.headers["content-length"] = str(len(body))
        del response.headers["content-length"]
        response.headers["content-length"] = str(len(body))
        return response

    async def talk(self, connection: ServerConnection) -> None:
        self.open.add(connection)
        try:
            await connection.send("hello")
            async for message in connection:
                await self.answer(connection, message)
        except ConnectionClosed:
            return
        finally:
            self.open.discard(connection)

    async def answer(self, connection: ServerConnection, message: str | bytes) -> None:
        if message == "die":
            connection.transport.abort()
        elif message == "restart":
            await connection.close(1012)
        elif message == "idle":
            await connection.close(1001, "idle")
        elif isinstance(message, str) and message.startswith("heard "):
            seconds = float(message.removeprefix("heard "))
            await connection.send(
                json.dumps({"type": "yibu.usage", "audio_seconds": seconds}, separators=(",", ":"))
            )
            await connection.send("told")
        elif isinstance(message, str) and message.startswith("flood "):
            for number in range(int(message.removeprefix("flood "))):
                await connection.send(f"{number} " + "x" * 1000)
        else:
            await connection.send(message)


@pytest.fixture
async def engine() -> AsyncIterator[EchoEngine]:
    async with EchoEngine().running() as engine:
        yield engine


def add(backend: FakeBackend, *engines: EchoEngine, model: str = "sense", **fields: Any) -> None:
    backend.add(model, capabilities=SPEECH, **fields)
    backend.endpoints[model] = [
        Endpoint(f"{model}-{n}", "127.0.0.1", engine.port, key="inner-key")
        for n, engine in enumerate(engines)
    ]


def address(gateway: Running, path: str = REALTIME) -> str:
    return gateway.url.replace("http", "ws", 1) + path


async def told(socket: ClientConnection) -> str | bytes:
    return await asyncio.wait_for(socket.recv(), SECONDS)


async def closed(socket: ClientConnection) -> tuple[list[str], int]:
    """What came until the end, and the code of it."""
    messages = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            messages.append(str(await told(socket)))
    assert socket.close_code is not None
    return messages, socket.close_code


async def refused(url: str, **arguments: Any) -> tuple[int, dict[str, Any]]:
    with pytest.raises(InvalidStatus) as info:
        await connect(url, **arguments)
    response = info.value.response
    assert response.headers["x-request-id"]
    return response.status_code, json.loads(response.body)["error"]


async def test_messages_pass_as_they_are(
    serve: Serve, backend: FakeBackend, engine: EchoEngine
) -> None:
    add(backend, engine)
    async with serve() as gateway:
        async with connect(
            address(gateway, REALTIME + "&model=sense&extra=1"),
            subprotocols=["realtime"],  # type: ignore[list-item]
        ) as socket:
            assert socket.subprotocol == "realtime"
            assert await told(socket) == "hello"
            for message in (
                "text",
                "四。",
                b"\x00\xff",
                "",
                b"",
                "x" * 400_000,
                b"\x01" * 400_000,
            ):
                await socket.send(message)
                assert await told(socket) == message
            pong = await socket.ping()
            await asyncio.wait_for(pong, SECONDS)
            assert backend.in_flight == 1
        [request] = engine.handshakes
        assert request.path == "/v1/realtime?intent=transcription&extra=1"
        assert request.headers["authorization"] == "Bearer inner-key"
        assert request.headers["x-yibu-model"] == "sense"
        assert request.headers["x-yibu-usage"] == "1"
        await eventually(lambda: not engine.open, "the engine's side closed")
        await eventually(lambda: backend.finished == [("sense-0", False)], "the replica is free")


async def test_every_live_route_says_who_may_call_it(
    serve: Serve, backend: FakeBackend, engine: EchoEngine
) -> None:
    add(backend, engine)
    async with serve(keys=[KEY]) as gateway:
        for path, route in LIVE_ROUTES.items():
            assert route.access == "key"
            url = address(gateway, path)
            status, error = await refused(url)
            assert (status, error["code"]) == (401, "invalid_api_key")
            assert (await refused(url, subprotocols=["openai-insecure-api-key.wrong"]))[0] == 401
            assert (await refused(url, additional_headers={"Authorization": "Basic !"}))[0] == 401
            basic = base64.b64encode(f":{KEY}".encode()).decode()
            for given in (
                {"additional_headers": {"Authorization": f"Bearer {KEY}"}},
                {"additional_headers": {"x-api-key": KEY}},
                {"additional_headers": {"Authorization": f"Basic {basic}"}},
                {"subprotocols": ["realtime", f"openai-insecure-api-key.{KEY}"]},
            ):
                async with connect(url, **given) as socket:  # type: ignore[arg-type]
                    assert await told(socket) == "hello"
        for request in engine.handshakes:
            assert KEY not in repr(list(request.headers.raw_items()))
            assert request.headers["authorization"] == "Bearer inner-key"


async def test_what_cannot_be_opened_is_refused_by_a_status(
    serve: Serve, backend: FakeBackend, engine: EchoEngine
) -> None:
    async with serve() as gateway:
        assert (await refused(address(gateway)))[0] == 404
        add(backend, engine)
        backend.add("talker")
        assert (await refused(address(gateway, REALTIME + "&model=none")))[1][
            "code"
        ] == "model_not_found"
        status, error = await refused(address(gateway, REALTIME + "&model=talker"))
        assert (status, error["code"]) == (404, "model_not_capable")
        status, error = await refused(address(gateway, "/v1/audio/transcriptions"))
        assert (status, error["code"]) == (404, "unknown_path")
        evil = {"Origin": "https://evil.example"}
        status, error = await refused(address(gateway), additional_headers=evil)
        assert (status, error["code"]) == (403, "origin_not_allowed")
        with pytest.raises(aiohttp.WSServerHandshakeError) as rebound:
            await gateway.http.ws_connect(gateway.url + REALTIME, headers={"Host": "evil.example"})
        assert rebound.value.status == 403
        engine.refuse_with = (
            429, json.dumps({"error": {"message": "full", "type": "x", "code": "rate_limit_exceeded"}}).encode()
        )  # fmt: skip
        status, error = await refused(address(gateway))
        assert (status, error["code"], error["message"]) == (429, "rate_limit_exceeded", "full")
        engine.refuse_with = (401, b"{}")
        assert (await refused(address(gateway)))[1]["code"] == "engine_gone"
        engine.refuse_with = (404, b"no json")
        assert (await refused(address(gateway)))[1]["code"] == "engine_gone"
        engine.refuse_with = None
        own = {"Origin": gateway.url}
        async with connect(address(gateway), additional_headers=own) as socket:
            assert await told(socket) == "hello"
    pages = "https://app.example"
    async with (
        serve(cors_origins=(pages,)) as gateway,
        connect(address(gateway), origin=pages) as socket,  # type: ignore[arg-type]
    ):
        assert await told(socket) == "hello"


async def test_a_replica_that_cannot_be_reached_is_passed_over(
    serve: Serve, backend: FakeBackend, engine: EchoEngine
) -> None:
    gone = EchoEngine()
    async with gone.running():
        pass
    add(backend, gone, engine)
    async with serve() as gateway:
        async with connect(address(gateway)) as socket:
            assert await told(socket) == "hello"
        await eventually(lambda: len(backend.finished) == 2, "both replicas are free")
        assert backend.finished == [("sense-0", True), ("sense-1", False)]
        add(backend, gone, gone)
        status, error = await refused(address(gateway))
        assert (status, error["code"]) == (502, "engine_gone")


@pytest.mark.parametrize(("word", "failed"), [("die", True), ("restart", False)])
@pytest.mark.parametrize("path", list(LIVE_ROUTES))
async def test_a_replica_that_ends_ends_its_sessions(
    serve: Serve, backend: FakeBackend, engine: EchoEngine, path: str, word: str, failed: bool
) -> None:
    add(backend, engine)
    async with serve() as gateway:
        async with connect(address(gateway, path)) as socket:
            await socket.send(word)
            (hello, error), code = await closed(socket)
        assert (hello, code) == ("hello", 1011)
        message = json.loads(error)
        if path == "/ws":
            assert "engine has gone" in message["error"]
            assert message["text"] == ""
        else:
            assert (message["type"], message["error"]["code"]) == ("error", "engine_gone")
        await eventually(lambda: backend.finished == [("sense-0", failed)], "the replica is free")
        async with connect(address(gateway, path)) as socket:
            assert await told(socket) == "hello"


async def test_what_the_engine_closes_with_is_passed_on(
    serve: Serve, backend: FakeBackend, engine: EchoEngine
) -> None:
    add(backend, engine)
    async with serve() as gateway, connect(address(gateway)) as socket:
        await socket.send("idle")
        assert await closed(socket) == (["hello"], 1001)


async def test_clients_that_vanish_leave_nothing_behind(
    serve: Serve, backend: FakeBackend, engine: EchoEngine
) -> None:
    add(backend, engine)
    async with serve() as gateway:
        sockets = [await connect(address(gateway)) for _ in range(20)]
        assert backend.in_flight == 20
        for number, socket in enumerate(sockets):
            if number % 2:
                socket.transport.abort()
            else:
                await socket.close()
        await eventually(lambda: backend.in_flight == 0, "the replicas are free")
        await eventually(lambda: not engine.open, "the engine's sides closed")
        await eventually(lambda: gateway.server.connections == 0, "no connection is left")
        assert gateway.app.metrics.in_flight == 0
        named = [task.get_name() for task in asyncio.all_tasks()]
        assert not [name for name in named if name.startswith("live ")]


async def test_a_slow_reader_slows_the_engine(
    serve: Serve, backend: FakeBackend, engine: EchoEngine
) -> None:
    """What nobody takes waits at the engine, not in the gateway's memory."""
    add(backend, engine)
    count = 30_000
    async with serve() as gateway, connect(address(gateway), max_queue=4) as socket:
        await socket.send(f"flood {count}")
        assert await told(socket) == "hello"
        [sending] = engine.open

        def stuck() -> bool:
            return sending.transport.get_write_buffer_size() > 0

        await eventually(stuck, "the engine is made to wait")
        for number in range(count):
            assert str(await told(socket)).startswith(f"{number} ")


async def test_an_idle_session_is_closed(
    serve: Serve, backend: FakeBackend, engine: EchoEngine
) -> None:
    add(backend, engine)
    async with serve(idle_timeout=0.3) as gateway, connect(address(gateway)) as socket:
        (hello, error), code = await closed(socket)
        assert (hello, code) == ("hello", 1001)
        assert json.loads(error)["error"]["code"] == "session_idle"


async def test_audio_is_counted_and_limited(
    serve: Serve, backend: FakeBackend, engine: EchoEngine
) -> None:
    add(backend, engine)
    async with serve(max_live_audio=60.0) as gateway, connect(address(gateway)) as socket:
        await socket.send("heard 12.5")
        assert [await told(socket), await told(socket)] == ["hello", "told"]
        await socket.send("heard 61")
        (error,), code = await closed(socket)
        assert code == 1008
        assert json.loads(error)["error"]["code"] == "audio_limit_reached"


async def test_sessions_are_limited_as_requests_are(
    serve: Serve, backend: FakeBackend, engine: EchoEngine
) -> None:
    add(backend, engine, limits=Limits(concurrency=2))
    async with serve() as gateway:
        async with connect(address(gateway)), connect(address(gateway, "/ws")):
            status, error = await refused(address(gateway))
            assert (status, error["code"]) == (429, "rate_limit_exceeded")

        async def another() -> bool:
            with contextlib.suppress(InvalidStatus):
                async with connect(address(gateway)):
                    return True
            return False

        await eventually(another, "a session ended")


async def test_sessions_end_when_the_gateway_does(
    serve: Serve, backend: FakeBackend, engine: EchoEngine
) -> None:
    add(backend, engine)
    async with serve(drain_timeout=60.0) as gateway, connect(address(gateway)) as socket:
        assert await told(socket) == "hello"
        stopping = asyncio.create_task(gateway.server.stop())
        (error,), code = await closed(socket)
        assert code == 1012
        assert json.loads(error)["error"]["code"] == "shutting_down"
        await asyncio.wait_for(stopping, SECONDS)


async def test_funasrs_own_port_knows_no_path(
    serve: Serve, backend: FakeBackend, engine: EchoEngine
) -> None:
    add(backend, engine)
    async with serve(funasr_port=0) as gateway:
        port = gateway.server.funasr_port
        assert port not in (None, 0, gateway.server.port)
        for path in ("", "/", "/wss/", "/ws"):
            async with connect(f"ws://127.0.0.1:{port}{path}", subprotocols=["binary"]) as socket:  # type: ignore[list-item]
                assert socket.subprotocol == "binary"
                assert await told(socket) == "hello"
        assert {request.path for request in engine.handshakes} == {"/ws"}
        async with gateway.http.get(f"http://127.0.0.1:{port}/healthz") as answer:
            assert answer.status == 200
        assert (await refused(address(gateway, "/")))[0] == 404


async def test_a_hundred_sessions_at_once(
    serve: Serve, backend: FakeBackend, engine: EchoEngine
) -> None:
    add(backend, engine)

    async def one(gateway: Running, number: int) -> None:
        async with connect(address(gateway)) as socket:
            assert await told(socket) == "hello"
            for turn in range(20):
                await socket.send(f"{number}:{turn}")
                assert await told(socket) == f"{number}:{turn}"

    async with serve() as gateway:
        await asyncio.gather(*(one(gateway, number) for number in range(100)))
        await eventually(lambda: backend.in_flight == 0, "the replicas are free")


async def test_a_message_that_is_too_long_ends_the_session(
    serve: Serve, backend: FakeBackend, engine: EchoEngine
) -> None:
    add(backend, engine)
    async with serve() as gateway, connect(address(gateway), compression=None) as socket:
        with contextlib.suppress(ConnectionClosed):
            await socket.send(b"\0" * (16 * 2**20 + 1))
        messages, code = await closed(socket)
        assert (messages, code) == (["hello"], 1009)


async def test_who_leaves_before_the_session_begins_frees_its_place(
    serve: Serve, backend: FakeBackend, engine: EchoEngine
) -> None:
    backend.free = asyncio.Event()
    async with serve() as gateway:
        add(backend, engine, limits=Limits(concurrency=1))
        for _ in range(2):  # the second would be refused if the first were still counted
            opening = asyncio.create_task(connect(address(gateway)).__aenter__())
            await eventually(lambda: backend.waiting == 1)
            opening.cancel()
            await asyncio.wait({opening})
            await eventually(lambda: backend.waiting == 0)
        assert not engine.handshakes
        backend.free.set()
        async with connect(address(gateway)) as socket:
            assert await told(socket) == "hello"


async def test_a_session_waits_as_its_key_says(
    serve: Serve, backend: FakeBackend, engine: EchoEngine, tmp_path: Path
) -> None:
    """The queue is told whose it is and how urgent; the time that it waited is measured."""
    accounts = LiveAccounts(tmp_path / "accounts.db")
    backend.free = asyncio.Event()
    async with accounts.running(), serve(accounts=accounts) as gateway:
        add(backend, engine)
        with AccountStore.open(accounts.path) as store:
            key = store.add(Account("nightly", priority="batch"))
        await accounts.sync()
        headers = {"authorization": f"Bearer {key}"}
        opening = asyncio.create_task(
            connect(address(gateway), additional_headers=headers).__aenter__()
        )
        await eventually(lambda: backend.waiting == 1)
        assert (backend.asked["key"], backend.asked["priority"]) == ("nightly", "batch")
        backend.free.set()
        await (await opening).close()
        assert list(gateway.app.metrics.waits) == [("sense",)]
