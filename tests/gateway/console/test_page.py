"""The page and its files: to browsers, before anybody has signed in, and with nothing that runs from elsewhere."""

from __future__ import annotations

import gzip
import logging
import os
import re
from pathlib import Path

import pytest

from tests.gateway.conftest import Serve
from yibu.gateway.console.assets import Assets

from .conftest import SESSION, Keys, browser

HTML = {"accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
SCRIPT = "import './more/other.js';\n" + "// much of the same\n" * 200


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "console"
    (root / "more").mkdir(parents=True)
    (root / "index.html").write_text(
        '<!doctype html><link rel="stylesheet" href="__BASE__/page.css">'
        '<script type="module" src="__BASE__/page.js"></script>'
    )
    (root / "page.js").write_text(SCRIPT)
    (root / "page.css").write_text("body { color: red }")
    (root / "more" / "other.js").write_text("export default 1;")
    (root / "secret.py").write_text("print()")
    return root


async def test_the_log_has_what_an_open_console_is_refused_and_does_not_what_it_reads(
    serve: Serve, keys: Keys, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "yibu.gateway.access")
    async with serve(accounts=keys.live) as gateway, browser(gateway.url) as page:
        gateway.app.console.assets = Assets(folder)
        _, html, _ = await page.ask("GET", "/console", **HTML)
        for url in re.findall(r'(?:src|href)="([^"]+)"', html.decode()):
            await page.ask("GET", url)
        await page.ask("GET", SESSION)
        await page.ask("GET", "/console/assets/0/none.js")
        await page.ask("POST", SESSION, {"key": "wrong"})
    lines = [
        record.getMessage().split(" model=")[0]
        for record in caplog.records
        if record.name == "yibu.gateway.access"
    ]
    assert lines == [
        "GET /console 200",
        "GET /console/assets/0/none.js 404",
        f"POST {SESSION} 401",
    ]


async def test_browsers_get_the_page_and_scripts_a_greeting(
    serve: Serve, keys: Keys, folder: Path
) -> None:
    async with serve(accounts=keys.live) as gateway, browser(gateway.url) as page:
        gateway.app.console.assets = Assets(folder)
        status, told, _ = await page.ask("GET", "/", accept="*/*")
        assert (status, told["console"], told["docs"]) == (200, "/console", "/docs")
        for path in ("/", "/console", "/console/"):
            status, html, answer = await page.ask("GET", path, **HTML)
            assert status == 200
            assert answer.content_type == "text/html"
            assert answer.headers["cache-control"] == "no-cache"
            policy = answer.headers["content-security-policy"]
            assert "unsafe" not in policy
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "script-src 'self';" in policy
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["x-content-type-options"] == "nosniff"
        for url in re.findall(r'(?:src|href)="([^"]+)"', html.decode()):
            status, content, answer = await page.ask("GET", url, accept_encoding="identity")
            assert status == 200
            assert content == (folder / Path(url).name).read_bytes()
            assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert "content-encoding" not in answer.headers
            etag = answer.headers["etag"]
            status, content, answer = await page.ask("GET", url, if_none_match=f'W/"a", {etag}')
            assert (status, content, answer.headers["etag"]) == (304, b"", etag)
        base = url.rpartition("/")[0]
        for name in ("secret.py", "nothing.js", "../routes.py", "..%2f..%2fdaemon.py", "more"):
            assert (await page.ask("GET", f"{base}/{name}"))[0] in (404, 401)
        status, _, _ = await page.ask("HEAD", url)
        assert status == 200


async def test_files_are_compressed_for_who_takes_it(serve: Serve, folder: Path) -> None:
    async with serve() as gateway, browser(gateway.url) as page:
        gateway.app.console.assets = assets = Assets(folder)
        url = f"/console/assets/{assets._current().digest}/page.js"
        request = page.http.get(gateway.url + url, headers={"accept-encoding": "br, gzip"})
        async with request as answer:
            assert answer.headers["content-encoding"] == "gzip"
            assert answer.headers["vary"] == "accept-encoding"
            assert int(answer.headers["content-length"]) < len(SCRIPT) / 4
            assert await answer.text() == SCRIPT
        for refused in ("gzip;q=0", "br", "identity"):
            _, content, answer = await page.ask("GET", url, accept_encoding=refused)
            assert content == SCRIPT.encode()
        assert gzip.decompress(assets._current().files["page.js"].packed or b"") == SCRIPT.encode()


async def test_a_changed_file_has_another_address(serve: Serve, folder: Path) -> None:
    async with serve() as gateway, browser(gateway.url) as page:
        gateway.app.console.assets = Assets(folder)
        _, before, _ = await page.ask("GET", "/", **HTML)
        (folder / "page.css").write_text("body { color: green }")
        os.utime(folder / "page.css", ns=(1, 1))
        _, after, _ = await page.ask("GET", "/", **HTML)
        assert before != after
        (old,) = re.findall(r'href="([^"]+)"', before.decode())
        _, css, answer = await page.ask("GET", old)
        assert css == b"body { color: green }"
        assert answer.headers["cache-control"] == "no-cache"


async def test_without_a_page_browsers_get_the_documents(serve: Serve, tmp_path: Path) -> None:
    async with serve() as gateway, browser(gateway.url) as page:
        gateway.app.console.assets = Assets(tmp_path / "nothing")
        _, _, answer = await page.ask("GET", "/", **HTML)
        assert answer.url.path == "/docs"
