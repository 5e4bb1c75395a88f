"""The machine and its models, and what can be done with them."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Locator, expect

from tests.e2e.home import Home, fake
from tests.support.polling import until

from .conftest import Look, View

pytestmark = pytest.mark.browser


def row(view: View, model: str) -> Locator:
    return view.page.locator("li.model").filter(has=view.page.locator("strong", has_text=model))


def choose(view: View, model: str, action: str) -> None:
    view.page.get_by_role("button", name=f"Actions for {model}").click()
    view.page.get_by_role("menuitem", name=action, exact=True).click()


def test_the_machine_and_a_model(console: View, node: Home) -> None:
    page = console.open().page
    for name in "Processor", "Memory":
        expect(page.get_by_role("meter", name=name, exact=True)).to_be_visible()
    expect(row(console, "chat").locator(".badge")).to_have_text("ready")
    page.get_by_role("button", name="Replicas of chat").click()
    table = page.get_by_role("group", name="Replicas of chat")
    expect(table.get_by_role("link", name="chat-0")).to_be_visible()
    expect(
        table.get_by_text(str(node.model("chat")["replicas"][0]["pid"]), exact=True)
    ).to_be_visible()
    console.accessible()


def test_stop_and_start(console: View, node: Home) -> None:
    page = console.open().page
    choose(console, "chat", "Stop")
    asked = page.get_by_role("dialog", name="Stop chat?")
    console.accessible()
    asked.get_by_role("button", name="Cancel").click()
    expect(row(console, "chat").locator(".badge")).to_have_text("ready")
    choose(console, "chat", "Stop")
    asked.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Start chat").click()
    expect(row(console, "chat").locator(".badge")).to_have_text("ready")
    until(lambda: node.model("chat")["state"] == "ready")


def test_a_model_of_the_file_is_started(console: View, node: Home) -> None:
    page = console.open().page
    page.get_by_role("button", name="Start spare").click()
    expect(row(console, "spare").locator(".badge")).to_have_text("ready")
    choose(console, "spare", "Stop")
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Start spare")).to_be_visible()


def test_restart_scale_and_keep(console: View, node: Home) -> None:
    page = console.open().page
    first = node.model("chat")["replicas"][0]["pid"]
    choose(console, "chat", "Restart")
    page.get_by_role("dialog", name="Restart chat?").get_by_role("button", name="Restart").click()
    page.get_by_role("button", name="Replicas of chat").click()
    table = page.get_by_role("group", name="Replicas of chat")
    expect(table.get_by_text(str(first), exact=True)).to_have_count(0)
    expect(row(console, "chat").locator(".badge").first).to_have_text("ready")

    choose(console, "chat", "Scale")
    page.get_by_label("Replicas", exact=True).fill("2")
    page.get_by_role("dialog").get_by_role("button", name="Scale").click()
    expect(row(console, "chat").get_by_text("2 of 2")).to_be_visible()
    expect(table.get_by_role("link")).to_have_count(2)

    choose(console, "chat", "Keep loaded")
    page.get_by_label("Keep", exact=True).select_option(label="until it is idle for some time")
    page.get_by_label("Idle time").fill("20m")
    console.accessible()
    page.get_by_role("button", name="Save").click()
    expect(
        row(console, "chat").get_by_text("loaded on demand, unloaded when idle for 20 min")
    ).to_be_visible()


def test_from_a_model_to_its_chat(look: Look, home: Home) -> None:
    home.write([fake("first"), fake("second")])
    home.yibu("up", "-d")
    view = look(home.url()).open("chat")
    page = view.page
    model = page.locator("#chat-model-0")
    model.select_option("first")
    page.locator("#chat-text").fill("hello")
    page.locator("#chat-text").press("Enter")
    expect(page.get_by_role("article")).to_have_attribute("aria-busy", "false")
    view.open()
    choose(view, "second", "Chat with it")
    expect(model).to_have_value("second")
    expect(page.get_by_role("article")).to_have_count(0)  # the first one's is in the history
    model.select_option("first")
    view.open().open("chat")
    expect(model).to_have_value("first")
    page.goto(f"{view.url}/#/chat/none-of-them")
    expect(model).to_have_value("first")


def test_why_a_model_failed_is_said(look: Look, home: Home) -> None:
    broken = fake("broken", "--fail-start", "error: cannot open shared object file")
    home.write([broken, fake("chat")])
    home.yibu("up", "-d", code=None)
    view = look(home.url()).open()
    expect(row(view, "broken").locator(".badge").first).to_have_text("failed")
    cause = home.model("broken")["cause"]
    expect(row(view, "broken").get_by_role("alert")).to_contain_text(cause.splitlines()[0])
    view.accessible()


def test_gpus_with_the_memory_of_each_model(console: View) -> None:
    """The node's own answer, with two cards in it that this machine does not have."""
    page = console.page
    gib = 2**30
    cards = [
        {"index": index, "name": "NVIDIA H20", "memory_bytes": 96 * gib, "used_bytes": 60 * gib,
         "busy_percent": 40.0, "models": [{"model": "chat", "bytes": 48 * gib}], "other_bytes": gib}
        for index in range(2)
    ]  # fmt: skip

    overview = page.request.get(f"{console.url}/console/api/overview").json()
    overview["machine"]["gpus"] = cards
    body = f"event: overview\ndata: {json.dumps(overview)}\n\n"
    events = {"content_type": "text/event-stream", "body": body}
    page.route("**/console/api/events", lambda route: route.fulfill(**events))
    console.open()
    expect(page.get_by_role("meter", name="Memory of GPU 1")).to_have_attribute(
        "aria-valuenow", "63"
    )
    expect(page.get_by_role("list", name="GPU memory by model").first).to_contain_text("48 GiB")
    console.accessible()
