"""Every page in both languages and themes, at a desk and on a phone, by keyboard."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from tests.e2e.home import Home

from .conftest import DESK, PHONE, Look, View, pages

pytestmark = pytest.mark.browser

TITLES = {
    "en-US": ["Overview", "Deploy", "Chat", "Speech", "Logs", "Metrics", "Keys", "Configuration"],
    "zh-CN": ["总览", "部署", "对话", "语音", "日志", "监控", "密钥", "配置"],
}


@pytest.mark.parametrize(
    ("viewport", "language", "theme"),
    [
        pytest.param(DESK, "en-US", "light", id="desk"),
        pytest.param(DESK, "zh-CN", "dark", id="desk-zh-dark"),
        pytest.param(PHONE, "zh-CN", "light", id="phone-zh"),
        pytest.param(PHONE, "en-US", "dark", id="phone-dark"),
    ],
)
def test_every_page(
    look: Look, node: Home, viewport: dict[str, int], language: str, theme: str
) -> None:
    view = look(node.url(), viewport, locale=language, color_scheme=theme)
    for name, title in zip(pages(), TITLES[language], strict=True):
        view.open(name)
        expect(view.page).to_have_title(re.compile(f"{title}.* · yibu"))
        expect(view.page.locator(".loading")).to_have_count(0)
        view.accessible()


def test_the_language_and_theme_that_one_chooses_stay(console: View) -> None:
    page = console.open().page
    page.get_by_role("button", name="简体中文").click()
    expect(page.locator("h1")).to_have_text("总览")
    page.get_by_role("button", name="主题：跟随系统").click()
    page.get_by_role("button", name="主题：浅色").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(page.locator("h1")).to_have_text("总览")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")


def test_by_keyboard(console: View) -> None:
    page = console.open().page
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    for letters, title in ("gc", "Chat"), ("gl", "Logs"), ("go", "Overview"):
        for letter in letters:
            page.keyboard.press(letter)
        expect(page).to_have_title(f"{title} · yibu")
    page.keyboard.press("?")
    shown = page.get_by_role("dialog", name="Keyboard")
    expect(shown).to_be_visible()
    console.accessible()
    page.keyboard.press("Escape")
    expect(shown).to_have_count(0)
    for letter in "gc":
        page.keyboard.press(letter)
    expect(page).to_have_title("Chat · yibu")
    message = page.get_by_role("textbox", name="Message")
    expect(message).to_be_visible()
    page.keyboard.press("/")
    expect(message).to_be_focused()


def test_the_menu_of_a_phone(look: Look, node: Home) -> None:
    view = look(node.url(), PHONE).open()
    page = view.page
    chat = page.get_by_role("link", name="Chat", exact=True)
    expect(chat).to_be_hidden()
    page.get_by_role("button", name="Menu", exact=True).click()
    expect(chat).to_be_visible()
    view.accessible()
    chat.click()
    expect(page).to_have_title("Chat · yibu")
    expect(chat).to_be_hidden()


def test_a_node_that_is_gone_is_said_and_one_that_returns_found(look: Look, home: Home) -> None:
    from tests.e2e.home import fake

    home.write([fake("chat")])
    home.yibu("up", "-d")
    view = look(home.url()).open()
    view.expected = ("ERR_", "failed:")
    view.page.context.set_offline(offline=True)  # what is open stays; what is asked fails
    view.page.evaluate("window.stop()")
    home.yibu("down")
    expect(view.page.get_by_text("No connection to the node")).to_be_visible()


def test_long_names_do_not_widen_a_page(look: Look, home: Home) -> None:
    from tests.e2e.home import fake

    long = "a-very-long-name/Qwen3-Coder-480B-A35B-Instruct-FP8-dynamic-2026-11-with-adapters"
    home.write([fake(long), fake("short"), fake("spare-" + long)])
    home.yibu("up", "-d", long, "short")
    for viewport in PHONE, DESK:
        view = look(home.url(), viewport)
        for name in pages():
            view.open(name)
            expect(view.page.locator(".loading")).to_have_count(0)
            view.fits()
        if viewport == PHONE:
            continue
        view.open(f"logs/{quote(long, safe='')}")
        expect(view.page.get_by_role("log", name="Lines").locator(".text").first).to_be_visible()
        name, text = (
            view.page.locator(f".log-line .{part}").first.bounding_box()
            for part in ("name", "text")
        )
        assert name is not None
        assert text is not None
        assert text["width"] > name["width"]
        view.fits()
