"""The documented surface: pages that need no other machine, and a document of every path."""

from __future__ import annotations

import re

from yibu.gateway.operations import OPERATIONS

from .conftest import Serve


async def test_pages_load_nothing_from_elsewhere(serve: Serve) -> None:
    async with serve() as gateway:
        for path in ("/docs", "/redoc"):
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
