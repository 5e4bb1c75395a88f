"""The documented surface: pages that need no other machine, and a document of every path."""

from __future__ import annotations

import re

from yibu.gateway.operations import OPERATIONS

from .conftest import FakeBackend, Serve, chat
from .upstream import LLAMA_CHAT, Upstream, answering


async def test_pages_load_nothing_from_elsewhere(serve: Serve) -> None:
    async with serve() as gateway:
        for path in ("/docs", "/redoc", "/"):
            async with gateway.http.get(gateway.url + path) as answer:
                assert answer.status == 200
                page = await answer.text()
                assert "default-src 'self'" in answer.headers["content-security-policy"]
            urls = re.findall(r"(?:src|href|spec-url)=[\"']([^\"']+)", page)
            assert urls
            for url in urls:
                assert url.startswith("/"), url
                async with gateway.http.get(gateway.url + url) as answer:
                    assert answer.status == 200, url
                    assert await answer.read()


async def test_the_document_covers_every_path(serve: Serve) -> None:
    async with serve() as gateway, gateway.http.get(gateway.url + "/openapi.json") as answer:
        document = await answer.json()
    paths = document["paths"]
    assert set(OPERATIONS) <= set(paths)
    assert {"/v1/models", "/v1/models/{model}", "/healthz", "/readyz", "/metrics"} <= set(paths)
    schemas = document["components"]["schemas"]
    references = re.findall(r"#/components/schemas/(\w+)", str(document))
    assert set(references) <= set(schemas)
    chat_schema = paths["/v1/chat/completions"]["post"]["requestBody"]["content"]
    name = chat_schema["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
    assert "temperature" in schemas[name]["properties"]
    assert all(
        {"200", "400", "401"} <= set(paths[path]["post"]["responses"]) for path in OPERATIONS
    )


async def test_metrics(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add('odd"name', up)
        async with serve() as gateway:
            await gateway.post("/v1/chat/completions", chat('odd"name'))
            await gateway.post("/v1/chat/completions", chat("x" * 50))
            for number in range(3):
                await gateway.http.get(f"{gateway.url}/some/{number}")
            async with gateway.http.get(gateway.url + "/metrics") as answer:
                assert answer.content_type == "text/plain"
                text = await answer.text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r'\w+(\{(\w+="(\\.|[^"\\])*",?)*\})? [0-9.e+-]+', x) for x in lines)
    path = "/v1/chat/completions"
    assert f'yibu_requests_total{{model="odd\\"name",path="{path}",status="200"}} 1' in lines
    assert f'yibu_requests_total{{model="-",path="{path}",status="404"}} 1' in lines
    assert 'yibu_requests_total{model="-",path="other",status="404"} 3' in lines
    assert 'yibu_tokens_total{model="odd\\"name",direction="prompt"} 31' in lines
    assert "yibu_requests_in_flight 1" in lines
    assert 'yibu_models{state="ready"} 1' in lines
    assert f'yibu_request_seconds_count{{model="odd\\"name",path="{path}"}} 1' in lines
