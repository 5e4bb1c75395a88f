"""Who may call what, of every route that there is."""

from __future__ import annotations

import re

from tests.gateway.conftest import Serve

from .conftest import SESSION, Keys, browser

OPEN = {"/", "/console", "/console/assets/{digest}/{name:path}", SESSION}


async def test_every_route_wants_an_admin_and_a_change_the_token(serve: Serve, keys: Keys) -> None:
    async with (
        serve(accounts=keys.live) as gateway,
        browser(gateway.url) as stranger,
        browser(gateway.url) as signed_in,
    ):
        await signed_in.sign_in(keys.admin)
        seen = 0
        for route in gateway.app.surface().routes:
            path, methods = route.path, route.methods  # type: ignore[attr-defined]
            if not path.startswith("/console/api/") or path in OPEN:
                continue
            url = re.sub(r"\{.*?\}", "chat", path)
            for method in methods:
                seen += 1
                status, told, answer = await stranger.ask(method, url)
                assert (status, told["error"]["code"]) == (401, "signed_out"), (method, path)
                assert answer.headers["content-type"] == "application/json"
                headers = {"authorization": f"Bearer {keys.app}"}
                status, told, _ = await stranger.ask(method, url, **headers)
                assert (status, told["error"]["code"]) == (403, "admin_key_needed"), (method, path)
                headers = {"x_api_key": "wrong-but-long-enough"}
                status, told, _ = await stranger.ask(method, url, **headers)
                assert (status, told["error"]["code"]) == (401, "invalid_api_key"), (method, path)
                origin = {"origin": "https://evil.example"}
                status, told, _ = await signed_in.ask(method, url, **origin)
                assert (status, told["error"]["code"]) == (403, "origin_not_allowed"), path
                if method == "GET":
                    continue
                status, told, _ = await signed_in.ask(method, url, x_csrf_token="")
                assert (status, told["error"]["code"]) == (403, "csrf_token"), (method, path)
        assert seen >= 22


async def test_what_does_not_exist_is_nobodys(serve: Serve, keys: Keys) -> None:
    async with serve(accounts=keys.live) as gateway, browser(gateway.url) as page:
        assert (await page.ask("GET", "/console/api/nothing"))[0] == 401
        await page.sign_in(keys.admin)
        status, told, _ = await page.ask("GET", "/console/api/nothing")
        assert (status, told["error"]["code"]) == (404, "unknown_path")
        # This gateway has no node behind it.
        status, told, _ = await page.ask("GET", "/console/api/overview")
        assert status == 503
