"""Who may call from a browser: CORS, cross-site posts, and headers that say two things."""

from __future__ import annotations

import json

import pytest

from tests.support.connections import connected
from yibu.errors import ConfigError
from yibu.gateway.http.cors import Cors

from .conftest import SPEECH, FakeBackend, Running, Serve, chat
from .upstream import LLAMA_CHAT, Upstream, answering

FORM = (
    b'--BB\r\ncontent-disposition: form-data; name="model"\r\n\r\nears\r\n'
    b'--BB\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--BB--\r\n'
)
MULTIPART = {"content-type": "multipart/form-data; boundary=BB"}
KEY = "a-long-enough-key"


async def post(
    gateway: Running, path: str, data: bytes, headers: dict[str, str]
) -> tuple[int, str]:
    """Status and the error's code."""
    skip = ["content-type"]
    async with gateway.http.post(
        gateway.url + path, data=data, headers=headers, skip_auto_headers=skip
    ) as answer:
        body = await answer.json()
        return answer.status, str((body.get("error") or {}).get("code"))


REFUSED = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://localhost:1"},
    {"origin": "https://app.example.evil.example"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:1"},
    {"sec-fetch-site": "cross-site", "origin": "http://HOST"},
]
ALLOWED: list[dict[str, str]] = [
    {},
    {"origin": "http://HOST"},
    {"origin": "http://HOST", "sec-fetch-site": "same-origin"},
    {"origin": "https://behind-a-proxy.example", "sec-fetch-site": "same-origin"},
    {"origin": "https://app.example"},
    {"origin": "https://app.example", "sec-fetch-site": "cross-site"},
    {"origin": "http://localhost:3000", "sec-fetch-site": "same-site"},
]


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/recognize/"])
async def test_uploads_of_other_sites_are_refused(
    serve: Serve, backend: FakeBackend, path: str
) -> None:
    origins = ("https://app.example/", "HTTP://localhost:3000")
    async with Upstream(answering({"text": "", "result": ""})) as up:
        backend.add("ears", up, capabilities=SPEECH)
        async with serve(cors_origins=origins) as gateway:

            def named(headers: dict[str, str]) -> dict[str, str]:
                own = gateway.url.removeprefix("http://")
                return {k: v.replace("HOST", own) for k, v in headers.items()} | MULTIPART

            for headers in REFUSED:
                url = gateway.url + path
                async with gateway.http.post(url, data=FORM, headers=named(headers)) as answer:
                    assert answer.status == 403, headers
                    assert "may not call this gateway" in await answer.text()
            assert up.received == []
            for headers in ALLOWED:
                status, _ = await post(gateway, path, FORM, named(headers))
                assert status == 200, headers
        async with serve(keys=[KEY]) as gateway:  # no page can know it
            headers = {**MULTIPART, "origin": "https://evil.example", "x-api-key": KEY}
            assert (await post(gateway, path, FORM, headers))[0] == 200


async def test_json_without_a_type_is_a_programs(serve: Serve, backend: FakeBackend) -> None:
    """curl and small scripts leave it out; so can a page's fetch(), which tells its origin."""
    body = json.dumps(chat()).encode()
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up)
        async with serve() as gateway:
            path = "/v1/chat/completions"
            assert (await post(gateway, path, body, {}))[0] == 200
            for headers in (
                {"origin": gateway.url},
                {"content-type": "text/plain"},
                {"content-type": "application/x-www-form-urlencoded"},
                {"content-type": "multipart/form-data; boundary=x"},
            ):
                expected = (400, "unsupported_media_type")
                assert await post(gateway, path, body, headers) == expected
            for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
                assert await post(gateway, path, body, headers) == (403, "origin_not_allowed")
            assert (await post(gateway, "/v1/audio/transcriptions", FORM, {}))[0] == 400
    assert len(up.received) == 1


async def test_a_preflight_lets_pass_what_the_sdks_send(serve: Serve) -> None:
    asked = (
        "Authorization, content-type, x-stainless-os, X-Stainless-Retry-Count, openai-organization, "
        "openai-project, OpenAI-Beta, anthropic-beta, anthropic-version, idempotency-key, cookie, "
        "x-evil, x-forwarded-for, x-stainless-\u00e9"
    )
    async with serve(cors_origins=("https://app.example/",)) as gateway:
        headers = {
            "origin": "https://app.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": asked,
        }
        url = gateway.url + "/v1/chat/completions"
        async with gateway.http.options(url, headers=headers) as answer:
            assert answer.status == 204
            passed = set(answer.headers["access-control-allow-headers"].split(", "))
    names = {name.strip().lower() for name in asked.split(",")}
    assert names - passed == {"cookie", "x-evil", "x-forwarded-for", "x-stainless-\u00e9"}


@pytest.mark.parametrize(
    "origin",
    ["app.example", "https://app.example/page", "https://*.example", "https://", "", "https://a b",
     "https://u@app.example", "https://app.example:port", "https://app.example?x"],
)  # fmt: skip
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(ConfigError, match="expected an origin such as"):
        Cors([origin])


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("https://app.example/", b"https://app.example"),
        ("HTTPS://App.Example:443", b"https://app.example"),
        ("http://[::1]:3000", b"http://[::1]:3000"),
        ("chrome-extension://abc", b"chrome-extension://abc"),
        ("null", b"null"),
    ],
)
def test_an_origin_is_known_however_it_is_written(written: str, sent: bytes) -> None:
    assert Cors([written]).headers(sent) is not None


@pytest.mark.parametrize(
    "header",
    ["authorization", "x-api-key", "content-type", "origin", "host", "sec-fetch-site",
     "content-length"],
)  # fmt: skip
async def test_a_header_that_is_given_twice_is_refused(serve: Serve, header: str) -> None:
    async with serve(keys=[KEY]) as gateway:
        host, _, port = gateway.url.removeprefix("http://").partition(":")
        async with connected(int(port), host) as (reader, writer):
            given = {"host": f"{host}:{port}", "authorization": f"Bearer {KEY}", "x-api-key": KEY,
                     "content-type": "application/json", "content-length": "2",
                     "origin": "https://a.example", "sec-fetch-site": "none"}  # fmt: skip
            lines = [f"{name}: {value}" for name, value in given.items()]
            lines.append(f"{header.upper()}: {given[header]}")
            head = "\r\n".join(["POST /v1/chat/completions HTTP/1.1", *lines, "connection: close"])
            writer.write(head.encode() + b"\r\n\r\n{}")
            answer = await reader.read()
    assert answer.split(b" ")[1] == b"400", answer
