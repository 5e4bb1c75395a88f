"""Pictures reach a llama.cpp model that sees; others, and addresses, are refused before it is asked."""

from __future__ import annotations

from typing import Any

from yibu.engines.requests import Abilities

from .conftest import TEXT, FakeBackend, Serve, chat
from .upstream import LLAMA_CHAT, Upstream, answering

DATA = "data:image/png;base64,iVBORw0KGgo="
COMPLETIONS = "/v1/chat/completions"


def asking(url: str) -> dict[str, Any]:
    picture = {"type": "image_url", "image_url": {"url": url}}
    return chat(messages=[{"role": "user", "content": [{"type": "text", "text": "?"}, picture]}])


async def test_pictures(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up, serve() as gateway:
        backend.add("m", up, abilities=Abilities(features=frozenset({"images"})),
                    capabilities=TEXT | {"vision"})  # fmt: skip
        status, answer = await gateway.post(COMPLETIONS, asking(DATA))
        assert (status, answer["model"]) == (200, "m")
        assert up.received[0].json["messages"][0]["content"][1]["image_url"]["url"] == DATA
        async with gateway.http.get(gateway.url + "/v1/models") as found:
            listed = await found.json()
        assert "vision" in listed["data"][0]["capabilities"]
        for url in ("https://example.com/a.png", "file:///etc/passwd"):
            status, answer = await gateway.post(COMPLETIONS, asking(url))
            assert (status, answer["error"]["code"]) == (400, "unsupported_parameter")
            assert answer["error"]["param"] == "messages[0].content[1].image_url.url"
            assert "data:image/png;base64" in answer["error"]["message"]
        backend.add("m", up, abilities=Abilities(features=frozenset()))
        status, answer = await gateway.post(COMPLETIONS, asking(DATA))
        assert (status, answer["error"]["param"]) == (400, "messages[0].content[1]")
        assert "vision" in answer["error"]["message"]
    assert len(up.received) == 1
