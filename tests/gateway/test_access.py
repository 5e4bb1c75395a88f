"""Who may call which path, and what a path is called."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi import FastAPI

from yibu.engines.base import Endpoint
from yibu.gateway.access import AUTHORIZED, access_of, allow, check_declared
from yibu.gateway.operations import OPERATIONS, right_path
from yibu.gateway.surface import routes
from yibu.routing import ModelDetails

from .conftest import FakeBackend, Serve

REPOSITORY = Path(__file__).parents[2]
KEY = "a-key-that-is-long-enough"
OPEN = {"/", "/docs", "/redoc", "/openapi.json", "/healthz", "/health", "/readyz",
        "/static/{path:path}", "/api/version", "/console",
        "/console/api/session", "/console/assets/{digest}/{name:path}"}  # fmt: skip
"""docs/api.md names these; everything else asks for a key."""
ADMIN = {"/v1/admin/usage"}
"""Want an administrator's; the configuration's keys are none."""


@pytest.mark.parametrize("page", ["docs/api.md", "docs/zh/api.md"])
def test_the_open_paths_are_those_that_the_documents_name(page: str) -> None:
    text = (REPOSITORY / page).read_text("utf-8")
    (listed,) = re.findall(r"(?:except:|例外是：)\n(.*?)\n\n", text, re.DOTALL)
    named = set(re.findall(r"`(/[^`\n]+|/)`", listed))
    # The console's files are said in words.
    declared = {re.sub(r"\{.*", "…", path) for path in OPEN if "/assets/" not in path}
    assert named == declared


async def test_every_route_asks_for_a_key_but_the_open_ones(serve: Serve) -> None:
    async with serve(keys=[KEY]) as gateway:
        routes = gateway.app.surface().routes
        seen = set()
        for path, method in [
            *((route.path, method) for route in routes for method in route.methods),  # type: ignore[attr-defined]
            *((operation, "POST") for operation in OPERATIONS),
            *((f"/nothing{n}", method) for n, method in enumerate(("GET", "POST", "DELETE"))),
        ]:
            seen.add(path)
            url = gateway.url + re.sub(r"\{.*?\}", "swagger-ui.css", path)
            async with gateway.http.request(method, url) as answer:
                assert (answer.status != 401) == (path in OPEN), (method, path, answer.status)
            headers = {"authorization": f"Bearer {KEY}"}
            async with gateway.http.request(method, url, headers=headers) as answer:
                assert (answer.status == 401) == (path in ADMIN), path
        assert seen >= OPEN | ADMIN


def test_a_route_that_does_not_say_who_may_call_it_is_refused() -> None:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.get("/said", openapi_extra=allow("open"))(lambda: None)
    check_declared(app)
    app.get("/unsaid")(lambda: None)
    with pytest.raises(TypeError, match="/unsaid"):
        check_declared(app)
    assert access_of(app, {"type": "http", "method": "GET", "path": "/nowhere"}) == "key"
    assert AUTHORIZED


@pytest.mark.parametrize("add", ["add_usage", "add_inventory", "add_pages", "add_keys"])
async def test_the_application_is_not_built_with_such_a_route(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, add: str
) -> None:
    """Of the API or of the console."""
    monkeypatch.setattr(routes, add, lambda app, *_: app.get("/unsaid")(lambda: None))
    async with serve() as gateway:
        with pytest.raises(TypeError, match="/unsaid"):
            gateway.app.surface()


async def test_an_admins_route_is_nobodys_by_http(serve: Serve) -> None:
    async with serve(keys=[KEY]) as gateway:
        surface = gateway.app.surface()
        surface.get("/admin", openapi_extra=allow("admin"))(lambda: None)
        headers = {"authorization": f"Bearer {KEY}"}
        async with gateway.http.get(gateway.url + "/admin", headers=headers) as answer:
            assert answer.status == 401


async def test_readiness_names_the_models_to_holders_of_a_key_only(
    serve: Serve, backend: FakeBackend
) -> None:
    backend.add("secret-project", state="failed")
    async with serve(keys=[KEY]) as gateway:
        async with gateway.http.get(gateway.url + "/readyz") as answer:
            assert (answer.status, await answer.json()) == (503, {"status": "not ready"})
        headers = {"x-api-key": KEY}
        async with gateway.http.get(gateway.url + "/readyz", headers=headers) as answer:
            assert (await answer.json())["models"] == {"secret-project": "failed"}
    async with serve() as gateway, gateway.http.get(gateway.url + "/readyz") as answer:
        assert (await answer.json())["models"] == {"secret-project": "failed"}


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/models/", "/v1/models/org/m", "/health", "/healthz/", "/docs"]
)
async def test_head_and_a_slash_at_the_end(serve: Serve, backend: FakeBackend, path: str) -> None:
    backend.add("org/m")
    async with serve() as gateway:
        async with gateway.http.get(gateway.url + path, allow_redirects=False) as answer:
            assert answer.status == 200
            length = len(await answer.read())
        async with gateway.http.head(gateway.url + path, allow_redirects=False) as answer:
            assert (answer.status, await answer.read()) == (200, b"")
            assert answer.headers["content-length"] == str(length)


async def test_a_posts_slash_at_the_end_changes_nothing(serve: Serve) -> None:
    async with serve() as gateway:
        for path in OPERATIONS:
            status, answer = await gateway.post(path.rstrip("/") + "/", {})
            assert status == 400, (path, answer)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/openai/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/tokenize", "/tokenize"),
        ("/models", "/v1/models"),
        ("/v1/recognize", "/recognize/"),
        ("/messages", "/v1/messages"),
    ],
)
async def test_a_wrong_path_is_answered_with_the_right_one(
    serve: Serve, wrong: str, right: str
) -> None:
    async with serve() as gateway:
        status, answer = await gateway.post(wrong, {})
    assert status == 404
    assert f"Write {right}" in answer["error"]["message"]
    assert answer["error"]["code"] == "unknown_path"


def test_a_path_that_is_like_none() -> None:
    assert right_path("/nothing") == right_path("/") == "/docs lists the paths"


async def test_the_wrong_method_names_the_right_one(serve: Serve) -> None:
    async with serve() as gateway:
        async with gateway.http.get(gateway.url + "/v1/chat/completions") as answer:
            assert (answer.status, answer.headers["allow"]) == (405, "POST")
        async with gateway.http.post(gateway.url + "/v1/models") as answer:
            assert (answer.status, answer.headers["allow"]) == (405, "GET")


async def test_models_tell_their_context_in_every_clients_words(
    serve: Serve, backend: FakeBackend
) -> None:
    details = ModelDetails("gguf", "llama", 134_515_008, "Q4_1", 98_000_000, 8192)
    backend.add("m", max_context=4096, details=details, names={"adapter": "adapter", "alias": "m"})
    backend.endpoints["m"] = [Endpoint("m-0", "127.0.0.1", 1)]
    async with serve() as gateway, gateway.http.get(gateway.url + "/v1/models") as answer:
        models = {model["id"]: model for model in (await answer.json())["data"]}
    model = models["m"]
    assert {model["max_model_len"], model["context_length"], model["meta"]["n_ctx"]} == {4096}
    assert model["meta"] == {
        "n_ctx": 4096, "n_ctx_train": 8192, "n_params": 134_515_008, "size": 98_000_000,
    }  # fmt: skip
    assert {name: model["parent"] for name, model in models.items()} == {
        "m": None, "alias": None, "adapter": "m",
    }  # fmt: skip
