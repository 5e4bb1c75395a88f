"""Listening, draining, and who may reach it."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import aiohttp
import pytest

from yibu.config import GatewayConfig
from yibu.config.keys import check_exposure, load_keys
from yibu.errors import ConfigError, UnauthorizedError
from yibu.gateway.app import create_app
from yibu.gateway.deps import GatewayDeps
from yibu.gateway.keys import KeyRing
from yibu.gateway.listening import ListenError
from yibu.gateway.server import GatewayServer

from .conftest import FakeBackend, Serve, chat
from .upstream import LLAMA_CHAT, LLAMA_CHAT_STREAM, STREAM_HEAD, Upstream, chunked, sending

COMPLETIONS = "/v1/chat/completions"


async def test_a_port_in_use_says_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = GatewayServer(create_app(GatewayDeps(FakeBackend(), GatewayConfig(port=port))))
        with pytest.raises(ListenError, match=rf"port {port} on 127\.0\.0\.1 is in use"):
            await server.start()
        await server.stop()


async def test_an_address_of_another_machine() -> None:
    config = GatewayConfig(host="192.0.2.1", port=0)
    server = GatewayServer(create_app(GatewayDeps(FakeBackend(), config, ("long-enough-key",))))
    with pytest.raises(ListenError, match=r"192\.0\.2\.1"):
        await server.start()


async def test_a_public_host_needs_a_key() -> None:
    server = GatewayServer(create_app(GatewayDeps(FakeBackend(), GatewayConfig(host="0.0.0.0"))))
    with pytest.raises(ConfigError, match=r"0\.0\.0\.0"):
        await server.start()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8", "[::1]"])
def test_loopback_needs_none(host: str) -> None:
    check_exposure(host, ())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", ""])
def test_all_else_does(host: str) -> None:
    with pytest.raises(ConfigError):
        check_exposure(host, ())
    check_exposure(host, ("a-key-of-some-length",))


def test_where_keys_come_from(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\nfrom-the-file-1\n\nfrom-the-config\n")
    config = GatewayConfig(api_keys=("from-the-config",))
    file.chmod(0o644)
    with pytest.raises(ConfigError, match=r"mode 0644.*0600"):
        load_keys(config, {}, file)
    file.chmod(0o600)
    keys = load_keys(config, {"YIBU_API_KEYS": "from-the-env-1, from-the-env-2,"}, file)
    assert keys == ("from-the-config", "from-the-env-1", "from-the-env-2", "from-the-file-1")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_keys(config, {}, tmp_path / "missing")
    for bad in ("short", "with spaces in it", "schlüssel-schlüssel"):
        with pytest.raises(ConfigError, match="number 2") as error:
            load_keys(config, {"YIBU_API_KEYS": bad})
        assert bad not in str(error.value)


def test_the_key_ring() -> None:
    ring = KeyRing(["first-key", "second-key"])
    assert ring.check(b"Bearer first-key") != ring.check(b"bearer  second-key")
    for wrong in (None, b"", b"Bearer ", b"Bearer first-key2", b"Basic first-key"):
        with pytest.raises(UnauthorizedError):
            ring.check(wrong)
    assert KeyRing([]).check(None).name == "-"


@pytest.mark.parametrize("stream", [False, True])
async def test_stopping_lets_requests_finish_and_refuses_new_ones(
    serve: Serve, backend: FakeBackend, stream: bool
) -> None:
    go_on = asyncio.Event()

    async def behave(_, writer):
        if stream:
            writer.write(STREAM_HEAD + chunked(b"data: " + LLAMA_CHAT_STREAM[0] + b"\n\n"))
        await go_on.wait()
        if stream:
            writer.write(chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        else:
            import orjson

            from .upstream import response

            writer.write(response(orjson.dumps(LLAMA_CHAT)))
        await writer.drain()
        return True

    async with Upstream(behave) as up:
        backend.add("m", up)
        async with serve(drain_timeout=10.0) as gateway:

            async def ask() -> str:
                async with gateway.http.post(
                    gateway.url + COMPLETIONS, json=chat(stream=stream)
                ) as answer:
                    assert answer.status == 200
                    return await answer.text()

            call = asyncio.create_task(ask())
            async with asyncio.timeout(60):
                while not up.received:
                    await asyncio.sleep(0.005)
            stopping = asyncio.create_task(gateway.server.stop())
            await asyncio.sleep(0)
            status, error = await gateway.post(COMPLETIONS, chat())
            assert (status, error["error"]["code"]) == (503, "shutting_down")
            async with gateway.http.get(gateway.url + "/readyz") as answer:
                assert answer.status == 503
            assert not stopping.done()
            go_on.set()
            text = await call
            assert "[DONE]" in text if stream else "Hello" in text
            async with asyncio.timeout(60):
                await stopping
            with pytest.raises(aiohttp.ClientConnectionError):
                await gateway.post(COMPLETIONS, chat())


async def test_what_outlasts_the_drain_is_cut_off(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(sending(30.0)) as up:
        backend.add("m", up)
        async with serve(drain_timeout=0.1) as gateway:
            call = asyncio.create_task(gateway.post(COMPLETIONS, chat()))
            async with asyncio.timeout(60):
                while not up.received:
                    await asyncio.sleep(0.005)
                await gateway.server.stop()
                with pytest.raises(aiohttp.ClientConnectionError):
                    await call
                await up.received[0].disconnected.wait()


async def test_port_0_and_stopping_twice(serve: Serve) -> None:
    async with serve() as gateway:
        assert gateway.server.port > 0
        await gateway.server.stop()
        await gateway.server.stop()
