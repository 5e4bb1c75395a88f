"""Signing in: the cookie, its token, and all that must not get in."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from http.cookies import SimpleCookie
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from yarl import URL

from tests.gateway.conftest import FakeBackend, Serve, chat
from tests.gateway.upstream import LLAMA_CHAT, Upstream, answering

from .conftest import SESSION, Keys, browser

CHAT = "/v1/chat/completions"


def code(answer: dict[str, dict[str, str]]) -> str:
    return answer["error"]["code"]


async def test_a_session_is_a_key_for_all_of_the_api(
    serve: Serve, backend: FakeBackend, keys: Keys
) -> None:
    async with (
        Upstream(answering(LLAMA_CHAT)) as upstream,
        serve(accounts=keys.live) as gateway,
        browser(gateway.url) as page,
    ):
        backend.add("m", upstream)
        status, told, _ = await page.ask("GET", SESSION)
        assert (status, told["signed_in"], told["keys"]) == (200, False, True)
        assert (await page.ask("POST", CHAT, chat()))[0] == 401
        await page.sign_in(keys.admin)
        status, told, _ = await page.ask("GET", SESSION)
        assert (told["signed_in"], told["name"], told["csrf"]) == (True, "ops", page.csrf)
        assert told["expires"]
        assert (await page.ask("GET", "/v1/models"))[0] == 200
        status, told, _ = await page.ask("POST", CHAT, chat())
        assert (status, told["object"]) == (200, "chat.completion")
        used = await keys.live.usage("key", 0.0, None)
        assert [row["key"] for row in used if row["requests"]] == ["ops"]


@pytest.mark.parametrize(("origin", "secure"), [(None, False), ("https://yibu.example", True)])
async def test_the_cookie_is_for_the_browser_alone(
    serve: Serve, keys: Keys, origin: str | None, secure: bool
) -> None:
    async with serve(accounts=keys.live) as gateway, browser(gateway.url) as page:
        host = urlsplit(origin or gateway.url).netloc
        _, _, answer = await page.ask(
            "POST", SESSION, {"key": keys.admin}, origin=origin or gateway.url, host=host
        )
        cookie = SimpleCookie(answer.headers["set-cookie"])
        (morsel,) = cookie.values()
        port = urlsplit(gateway.url).port
        assert morsel.key == ("yibu_session" if secure else f"yibu_session_{port}")
        assert morsel["httponly"]
        assert morsel["samesite"] == "Strict"
        assert bool(morsel["secure"]) is secure
        assert morsel["path"] == "/"
        assert answer.headers["cache-control"] == "no-store"


async def test_a_change_needs_the_token(serve: Serve, backend: FakeBackend, keys: Keys) -> None:
    async with (
        Upstream(answering(LLAMA_CHAT)) as upstream,
        serve(accounts=keys.live) as gateway,
        browser(gateway.url) as page,
        browser(gateway.url) as other,
    ):
        backend.add("m", upstream)
        await page.sign_in(keys.admin)
        await other.sign_in(keys.admin)
        assert other.csrf != page.csrf
        for token in ("", "wrong", other.csrf or "-"):
            status, told, _ = await page.ask("POST", CHAT, chat(), x_csrf_token=token)
            assert (status, code(told)) == (403, "csrf_token")
            status, told, _ = await page.ask("DELETE", SESSION, x_csrf_token=token)
            assert (status, code(told)) == (403, "csrf_token")
        assert (await page.ask("GET", "/v1/models", x_csrf_token=""))[0] == 200
        # Another key in the header needs no token: no page of another site has it.
        bearer = {"authorization": f"Bearer {keys.app}", "x_csrf_token": ""}
        assert (await page.ask("POST", CHAT, chat(), **bearer))[0] == 200


OTHERS = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site"},
]


@pytest.mark.parametrize("headers", OTHERS, ids=lambda headers: next(iter(headers.values())))
async def test_pages_of_other_origins_stay_outside(
    serve: Serve, keys: Keys, headers: dict[str, str]
) -> None:
    """Those that gateway.cors_origins lets use the API too."""
    async with (
        serve(accounts=keys.live, cors_origins=("*",)) as gateway,
        browser(gateway.url) as page,
    ):
        status, told, answer = await page.ask("POST", SESSION, {"key": keys.admin}, **headers)
        assert (status, code(told)) == (403, "origin_not_allowed")
        assert "set-cookie" not in answer.headers
        await page.sign_in(keys.admin)
        for method, path in (("GET", SESSION), ("DELETE", SESSION), ("GET", "/v1/models")):
            status, told, answer = await page.ask(method, path, **headers)
            assert (status, code(told)) == (403, "origin_not_allowed"), path
            if path == SESSION:
                assert "access-control-allow-origin" not in answer.headers


async def test_who_may_sign_in(serve: Serve, keys: Keys) -> None:
    configured = "a-key-of-the-configuration"
    async with (
        serve(accounts=keys.live, keys=[configured]) as gateway,
        browser(gateway.url) as page,
    ):
        for key, status, why in (
            ("wrong-but-long-enough", 401, "invalid_api_key"),
            (keys.app, 403, "admin_key_needed"),
            (configured, 403, "admin_key_needed"),
        ):
            found, told, answer = await page.ask("POST", SESSION, {"key": key})
            assert (found, code(told)) == (status, why)
            assert "set-cookie" not in answer.headers
            assert key not in str(told)
        for body in ({}, {"key": ""}, {"key": "ключ"}, {"key": 4}, ["key"], {"key": "a" * 600}):
            assert (await page.ask("POST", SESSION, body))[0] == 400
        text = {"content_type": "text/plain"}
        assert (await page.ask("POST", SESSION, {"key": keys.admin}, **text))[0] == 400


async def test_guessing_is_slow(serve: Serve, keys: Keys) -> None:
    async with serve(accounts=keys.live) as gateway, browser(gateway.url) as page:
        sessions = gateway.app.console.authentication.sessions
        now = 1_800_000_000.0
        sessions._clock = lambda: now
        for _ in range(10):
            assert (await page.ask("POST", SESSION, {"key": "wrong-but-long-enough"}))[0] == 401
        status, told, answer = await page.ask("POST", SESSION, {"key": keys.admin})
        assert (status, code(told)) == (429, "too_many_attempts")
        assert 0 < int(answer.headers["retry-after"]) <= 60
        now += 61
        await page.sign_in(keys.admin)
        # Whoever tries from ever new addresses fills no memory.
        for number in range(6000):
            with pytest.raises(Exception, match="not known"):
                sessions.sign_in("wrong-but-long-enough", f"10.0.{number // 256}.{number % 256}")
        assert len(sessions._tries) <= 4096


async def test_two_sessions_end_each_by_itself(serve: Serve, keys: Keys) -> None:
    async with (
        serve(accounts=keys.live) as gateway,
        browser(gateway.url) as one,
        browser(gateway.url) as two,
    ):
        await one.sign_in(keys.admin)
        await two.sign_in(keys.admin)
        cookies = one.http.cookie_jar.filter_cookies(URL(gateway.url))
        kept = "; ".join(f"{name}={morsel.value}" for name, morsel in cookies.items())
        status, _, answer = await one.ask("DELETE", SESSION)
        assert status == 204
        assert "Max-Age=0" in answer.headers["set-cookie"]
        assert (await one.ask("GET", "/v1/models"))[0] == 401
        # A stolen cookie is of no use either after that.
        assert (await one.ask("GET", "/v1/models", cookie=kept))[0] == 401
        assert (await two.ask("GET", "/v1/models"))[0] == 200


async def test_a_session_ends_with_time_and_with_its_key(serve: Serve, keys: Keys) -> None:
    async with serve(accounts=keys.live) as gateway, browser(gateway.url) as page:
        sessions = gateway.app.console.authentication.sessions
        now = 1_800_000_000.0
        sessions._clock = lambda: now

        async def signed_in() -> bool:
            return bool((await page.ask("GET", SESSION))[1]["signed_in"])

        await page.sign_in(keys.admin)
        for _ in range(13):  # used every 11 hours it lasts, for a week
            now += 11 * 3600
            assert await signed_in()
        now += 3600 * 26
        assert not await signed_in()
        await page.sign_in(keys.admin)
        now += 12 * 3600 + 1
        assert not await signed_in()
        await page.sign_in(keys.admin)
        await keys.remove("ops")
        assert not await signed_in()
        assert (await page.ask("GET", "/v1/models"))[0] == 401
        assert not sessions._open


async def test_there_are_so_many_sessions_and_no_more(serve: Serve, keys: Keys) -> None:
    async with serve(accounts=keys.live) as gateway, browser(gateway.url) as page:
        await page.sign_in(keys.admin)
        sessions = gateway.app.console.authentication.sessions
        for _ in range(300):
            sessions.sign_in(keys.admin, "127.0.0.1")
        assert len(sessions._open) == 256
        assert not (await page.ask("GET", SESSION))[1]["signed_in"]


async def test_a_websocket_takes_the_cookie_of_its_own_page(serve: Serve, keys: Keys) -> None:
    async with serve(accounts=keys.live) as gateway, browser(gateway.url) as page:
        await page.sign_in(keys.admin)
        cookies = page.http.cookie_jar.filter_cookies(URL(gateway.url))
        cookie = "; ".join(f"{name}={morsel.value}" for name, morsel in cookies.items())
        url = gateway.url.replace("http", "ws") + "/v1/realtime?intent=transcription"

        async def refused(**headers: str) -> tuple[int, str]:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            with pytest.raises(InvalidStatus) as info:
                await connect(url, additional_headers=sent, proxy=None)
            response = info.value.response
            return response.status_code, json.loads(response.body)["error"]["code"]

        # Nothing here does speech: who is let in is told so.
        assert await refused(cookie=cookie, origin=gateway.url) == (404, "model_not_found")
        assert await refused(cookie=cookie, origin="https://evil.example") == (
            403,
            "origin_not_allowed",
        )
        assert await refused(cookie=cookie) == (403, "origin_not_allowed")
        assert (await refused(origin=gateway.url))[0] == 401


async def test_without_keys_it_is_open_to_the_nodes_own_user(serve: Serve, keys: Keys) -> None:
    await keys.remove("ops")
    async with serve() as gateway, browser(gateway.url) as page:
        status, told, _ = await page.ask("GET", SESSION)
        assert (status, told["signed_in"], told["keys"], told["csrf"]) == (200, True, False, None)
        status, told, _ = await page.ask("POST", SESSION, {"key": "whatever-it-may-be"})
        assert (status, told["signed_in"]) == (200, True)
        assert (await page.ask("GET", SESSION, origin="https://evil.example"))[0] == 403


AS_NOBODY = """
import encodings.idna, json, os, sys, urllib.request
os.setgid(65534)
os.setuid(65534)
print(json.load(urllib.request.urlopen(sys.argv[1], timeout=60))["signed_in"])
"""


async def test_without_keys_it_is_no_other_users(serve: Serve, root: None) -> None:
    async with serve() as gateway:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-c",
            AS_NOBODY,
            gateway.url + SESSION,
            stdout=subprocess.PIPE,
            env={},
        )
        said, _ = await process.communicate()
        assert said.decode().strip() == "False"


@pytest.fixture
def root() -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can become another user")


async def test_a_new_gateway_knows_no_session_of_the_old_one(serve: Serve, keys: Keys) -> None:
    async with serve(accounts=keys.live) as gateway, browser(gateway.url) as page:
        await page.sign_in(keys.admin)
        assert (await page.ask("GET", "/v1/models"))[0] == 200
        async with serve(accounts=keys.live) as other:
            cookies = page.http.cookie_jar.filter_cookies(URL(gateway.url))
            (morsel,) = cookies.values()
            cookie = f"yibu_session_{other.server.port}={morsel.value}"
            async with page.http.get(
                other.url + "/v1/models", headers={"cookie": cookie}
            ) as answer:
                assert answer.status == 401
