"""A node, and a Chromium that looks at its console and forgives nothing."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    expect,
    sync_playwright,
)

from tests.e2e.home import REPOSITORY, Home
from tests.support.chromium import Chromium, find

SECONDS = 60.0
"""That a page may take for anything, on a machine that does much else."""
SPOKEN = REPOSITORY / "tests/data/hello.wav"
expect.set_options(timeout=SECONDS * 1000)
REBOUND = "rebound.example"
"""A name of somebody else's that leads the browser to this machine."""
DESK = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
_AXE = (
    "axe.run(document, {resultTypes: ['violations']}).then(found => found.violations.map(one => "
    "`${one.id}: ${one.nodes.map(node => node.html.slice(0, 200)).slice(0, 3).join(' | ')}`))"
)
_SETTLE = (
    "document.getAnimations().filter(one => one.effect.getTiming().iterations !== Infinity)"
    ".forEach(one => one.finish())"
)
"""A notice that is still appearing has the contrast of its first frames."""


@dataclass
class View:
    """A page of the console, and what the browser complained about."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()
    """Parts of complaints that the test provokes."""

    def open(self, name: str = "overview") -> View:
        self.page.goto(f"{self.url}/#/{name}")
        self.page.locator("h1").first.wait_for()
        return self

    def accessible(self) -> None:
        """axe-core finds no violation in what is shown, and nothing is wider than the window."""
        script = files("axe_playwright_python").joinpath("axe.min.js").read_text()
        self.page.evaluate(script)
        self.page.evaluate(_SETTLE)
        assert self.page.evaluate(_AXE) == []
        self.fits()

    def fits(self) -> None:
        """Nothing is wider than the window."""
        assert self.page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    def check(self) -> None:
        left = [one for one in self.complaints if not any(part in one for part in self.expected)]
        assert left == []


@pytest.fixture(scope="session")
def chromium() -> Chromium:
    found = find()
    if found is None:
        pytest.skip("no Chromium here: install Debian's, or make chromium")
    return found


@pytest.fixture(scope="module")
def browser(chromium: Chromium) -> Iterator[Browser]:
    """Not for longer: while it is there, its event loop runs, and tests that are coroutines cannot."""
    switches = [
        "--no-sandbox",  # which root cannot have
        "--disable-dev-shm-usage",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={SPOKEN}",
        "--autoplay-policy=no-user-gesture-required",
        f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1",
    ]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=chromium.path, args=switches, env={**os.environ, **chromium.env}
        )
        yield running
        running.close()


Look = Callable[..., View]


@pytest.fixture
def look(browser: Browser, home: Home) -> Iterator[Look]:
    """``look(url)`` → a :class:`View` in a browser profile of its own; the test fails for every complaint of
    the browser's: errors in its console, exceptions, requests that fail or leave the machine.

    It needs ``home`` so that pages are closed before the node that they follow is stopped."""
    contexts: list[BrowserContext] = []
    views: list[View] = []

    def begin(url: str, viewport: dict[str, int] = DESK, **options: Any) -> View:
        settings = {"locale": "en-US", "color_scheme": "light", "accept_downloads": True, **options}
        context = browser.new_context(viewport=viewport, **settings)  # type: ignore[arg-type]
        contexts.append(context)
        context.set_default_timeout(SECONDS * 1000)
        view = View(context.new_page(), url)
        views.append(view)
        _listen(view)
        return view

    yield begin
    for context in contexts:
        context.close()
    for view in views:
        view.check()


def _listen(view: View) -> None:
    def said(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            view.complaints.append(f"console: {message.text} ({message.location.get('url')})")

    def asked(request: Request) -> None:
        if not request.url.startswith((view.url, "data:", "blob:")):
            view.complaints.append(f"left the machine: {request.url}")

    def failed(request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # the page itself stopped waiting
            view.complaints.append(f"failed: {request.url}: {request.failure}")

    view.page.on("console", said)
    view.page.on("pageerror", lambda error: view.complaints.append(f"exception: {error}"))
    view.page.on("request", asked)
    view.page.on("requestfailed", failed)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, chromium: Chromium) -> Iterator[Home]:
    """A node with a fake engine that chats, and another in the file that is not up."""
    from tests.e2e.home import fake

    with Home(tmp_path_factory.mktemp("home")) as home:
        home.write([fake("chat", "--tokens", "12"), fake("spare")])
        home.yibu("up", "-d", "chat")
        yield home


@pytest.fixture
def console(look: Look, node: Home) -> View:
    """The node's console at a desk, in English."""
    return look(node.url())


def pages() -> list[str]:
    return ["overview", "deploy", "chat", "speech", "logs", "metrics", "keys", "config"]


def picture(path: Path) -> Path:
    """A small PNG: one red line."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", 8, 1, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" + b"\xff\0\0" * 8)
    signature = b"\x89PNG\r\n\x1a\n"
    path.write_bytes(
        signature + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    return path
