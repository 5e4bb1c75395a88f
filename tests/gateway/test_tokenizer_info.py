"""``/tokenizer_info``: passed on where an engine has it, and refused clearly elsewhere."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from .conftest import TEXT, FakeBackend, Serve
from .upstream import Received, Upstream, response

TOLD = {"tokenizer_class": "Qwen2Tokenizer", "name_or_path": "/home/me/model", "chat_template": "x"}


def answers(body: bytes, status: str = "200 OK") -> Upstream:
    async def behaviour(_: Received, writer: asyncio.StreamWriter) -> bool:
        writer.write(response(body, status=status))
        return True

    return Upstream(behaviour)


async def get(gateway: Any, query: str = "") -> tuple[int, Any]:
    async with gateway.http.get(f"{gateway.url}/tokenizer_info{query}") as answer:
        return answer.status, await answer.json()


async def test_the_engines_own_answer(serve: Serve, backend: FakeBackend) -> None:
    async with answers(orjson.dumps(TOLD)) as upstream, serve() as gateway:
        backend.add("text", upstream)
        status, answer = await get(gateway)
        assert (status, answer["error"]["code"]) == (404, "model_not_capable")
        backend.add("one", upstream, engine="vllm", capabilities=TEXT | {"tokenizer_info"})
        for query in ("", "?model=one"):
            assert await get(gateway, query) == (200, {**TOLD, "name_or_path": "one"})
        assert upstream.received[-1].path == "/tokenizer_info"
        assert upstream.received[-1].header("authorization") == "Bearer inner-key"
        status, answer = await get(gateway, "?model=text")
        assert (status, answer["error"]["code"]) == (404, "model_not_capable")
        assert "enable_tokenizer_info_endpoint" in answer["error"]["message"]
        status, answer = await get(gateway, "?model=none")
        assert (status, answer["error"]["code"]) == (404, "model_not_found")
        backend.add("two", upstream, engine="vllm", capabilities=TEXT | {"tokenizer_info"})
        status, answer = await get(gateway)
        assert (status, answer["error"]["param"]) == (400, "model")


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"[]", "200 OK"), (b"no", "200 OK"), (b"{}", "404 Not Found"), (b"", "500 Oh")],
)
async def test_what_is_no_answer(
    serve: Serve, backend: FakeBackend, body: bytes, status: str
) -> None:
    async with answers(body, status) as upstream, serve() as gateway:
        backend.add("m", upstream, capabilities=TEXT | {"tokenizer_info"})
        got, answer = await get(gateway)
    assert (got, answer["error"]["code"]) == (502, "engine_protocol_error")
