"""Signing in: the cookie, its token, and all that must not get in."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import stat
import subprocess
import sys
import time
from dataclasses import replace
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from yarl import URL

from tests.gateway.conftest import FakeBackend, Running, Serve, chat
from tests.gateway.upstream import LLAMA_CHAT, Upstream, answering
from yibu.accounts.store import AccountStore
from yibu.errors import OverloadedError, UnauthorizedError
from yibu.gateway.keys import KeyRing
from yibu.gateway.saved import Saved
from yibu.gateway.sessions import Sessions

from .conftest import SESSION, Browser, Keys, browser

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


def remembers(gateway: Running, path: Path) -> Saved:
    """Give a gateway the file that a node's has in its state directory."""
    saved = Saved(path)
    gateway.app.console.authentication.sessions.saved = saved
    return saved


def cookie_of(page: Browser, gateway: Running) -> str:
    """The page's cookie as a browser would send it to a gateway that has come to another port."""
    (morsel,) = page.http.cookie_jar.filter_cookies(URL(page.url)).values()
    return f"yibu_session_{gateway.server.port}={morsel.value}"


async def test_a_session_outlives_the_process_and_the_file_tells_nothing(
    serve: Serve, keys: Keys, tmp_path: Path
) -> None:
    file = tmp_path / "console.db"
    configured = "a-key-of-the-configuration"
    async with (
        serve(accounts=keys.live, keys=[configured]) as gateway,
        browser(gateway.url) as page,
    ):
        remembers(gateway, file)
        await page.sign_in(keys.admin)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        async with serve(accounts=keys.live, keys=[configured]) as other:
            remembers(other, file)
            cookie = cookie_of(page, other)
            page.url = other.url
            status, told, _ = await page.ask("GET", SESSION, cookie=cookie)
            assert (status, told["name"], told["csrf"]) == (200, "ops", page.csrf)
            assert (await page.ask("POST", "/v1/nothing", {}, cookie=cookie))[0] == 404
            without = {"cookie": cookie, "x_csrf_token": ""}
            assert (await page.ask("POST", "/v1/nothing", {}, **without))[0] == 403
        value = cookie.partition("=")[2]
        secrets = (keys.admin, keys.admin[-30:], configured, value, page.csrf or "-")
        for secret in secrets:
            assert secret.encode() not in file.read_bytes()
        # What the file has is of no use as a cookie.
        (row,) = Saved(file).sessions()
        async with serve(accounts=keys.live) as other:
            remembers(other, file)
            page.url = other.url
            for guess in (row.cookie.hex(), row.key.hex(), base64.b64encode(row.cookie).decode()):
                cookie = f"yibu_session_{other.server.port}={guess}"
                assert (await page.ask("GET", "/v1/models", cookie=cookie))[0] == 401


@pytest.mark.parametrize(
    "why", ["signed out", "key removed", "key replaced", "no admin", "time", "week"]
)
async def test_what_has_ended_stays_ended_in_the_next_process(
    serve: Serve, keys: Keys, tmp_path: Path, why: str
) -> None:
    file = tmp_path / "console.db"
    later = 0.0
    async with serve(accounts=keys.live) as gateway, browser(gateway.url) as page:
        saved = remembers(gateway, file)
        await page.sign_in(keys.admin)
        (morsel,) = page.http.cookie_jar.filter_cookies(URL(page.url)).values()
        match why:
            case "signed out":
                assert (await page.ask("DELETE", SESSION))[0] == 204
            case "key removed":
                await keys.remove("ops")
            case "key replaced":
                with AccountStore.open(keys.live.path) as store:
                    store.rotate("ops", grace=0)
            case "no admin":
                with AccountStore.open(keys.live.path) as store:
                    store.change("ops", lambda ops: replace(ops, admin=False))
            case "time":
                later = 12 * 3600.0 + 1
            case "week":
                later = 7 * 86400.0 + 1
                (row,) = saved.sessions()
                saved.use_session(row.cookie, row.used + later - 60)
                await saved.write()
        await keys.live.sync()
        async with serve(accounts=keys.live) as other:
            remembers(other, file)
            other.app.console.authentication.sessions._clock = lambda: time.time() + later
            page.url = other.url
            cookie = f"yibu_session_{other.server.port}={morsel.value}"
            assert (await page.ask("GET", "/v1/models", cookie=cookie))[0] == 401
            await other.app.console.authentication.sessions.saved.write()
        assert Saved(file).sessions() == []


async def test_a_key_of_the_configuration_that_is_an_admins_keeps_its_session(
    serve: Serve, tmp_path: Path
) -> None:
    """The command line's key is one: the next node has another, and the session ends."""
    ring = KeyRing(["a-key-of-the-configuration"], own_key="own-key-of-the-command-line")
    first = Sessions(ring, Saved(tmp_path / "console.db"))
    value, _, caller = first.sign_in("own-key-of-the-command-line", "127.0.0.1")
    await first.saved.write()
    assert caller.admin
    headers = {b"cookie": f"yibu_session={value}".encode()}
    assert Sessions(ring, Saved(tmp_path / "console.db")).find(headers)
    other = KeyRing(["a-key-of-the-configuration"], own_key="another-key-of-the-command-line")
    assert Sessions(other, Saved(tmp_path / "console.db")).find(headers) is None


@pytest.mark.parametrize("damage", ["no database", "directory", "read-only"])
async def test_a_file_that_cannot_be_used_keeps_nobody_out(
    serve: Serve, keys: Keys, tmp_path: Path, damage: str
) -> None:
    file = tmp_path / "console.db"
    if damage == "directory":
        file.mkdir()
    elif damage == "no database":
        file.write_bytes(b"this is no database" * 100)
    else:
        file = Path("/proc/console.db")
    async with serve(accounts=keys.live) as gateway, browser(gateway.url) as page:
        remembers(gateway, file)
        await page.sign_in(keys.admin)
        assert (await page.ask("GET", "/v1/models"))[0] == 200
        assert (await page.ask("DELETE", SESSION))[0] == 204
        assert (await page.ask("GET", "/v1/models"))[0] == 401


async def test_a_network_of_ipv6_has_one_allowance(keys: Keys) -> None:
    sessions = Sessions(KeyRing([], keys.live), Saved(None))
    for number in range(10):
        with pytest.raises(UnauthorizedError):
            sessions.sign_in("wrong-but-long-enough", f"2001:db8::{number:x}")
    with pytest.raises(OverloadedError):
        sessions.sign_in(keys.admin, "2001:db8::ffff:1")
    for other in ("2001:db8:0:1::1", "::ffff:192.0.2.1", "192.0.2.1", "fe80::1%eth0", ""):
        assert sessions.sign_in(keys.admin, other)
