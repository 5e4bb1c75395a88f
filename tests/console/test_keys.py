"""Keys with limits, usage, and signing in once there is an admin's key."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.e2e.home import Home, fake

from .conftest import Look

pytestmark = pytest.mark.browser


def test_from_the_first_key_to_signing_out(look: Look, home: Home) -> None:
    home.write([fake("chat", "--count-words")])
    home.yibu("up", "-d")
    view = look(home.url(), permissions=["clipboard-read", "clipboard-write"])
    # The first key closes the gateway.
    view.expected = ("401", "403", "ERR_INCOMPLETE_CHUNKED_ENCODING")
    page = view.open("keys").page
    page.get_by_role("button", name="New key").click()
    dialog = page.get_by_role("dialog", name="New key")
    dialog.get_by_label("Name").fill("ops")
    expect(dialog.get_by_label("Admin: may use this console")).to_be_checked()  # of the first key
    view.accessible()
    dialog.get_by_role("button", name="Make the key").click()
    made = page.get_by_role("dialog", name="Key ops")
    field = page.get_by_label("Admin API key")
    expect(field).to_be_visible()  # the page is signed out by its own key, which is still shown
    admin = made.locator("code").inner_text()
    assert admin.startswith("yibu-")
    made.get_by_role("button", name="I have it").click()
    view.accessible()
    field.fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(field).to_have_attribute("aria-invalid", "true")
    field.fill(admin)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("row", name=re.compile("ops"))).to_contain_text("admin")
    cookie = page.context.cookies()[0]
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"

    page.get_by_role("button", name="New key").click()
    dialog.get_by_label("Name").fill("app")
    dialog.get_by_label("Requests a minute").fill("60")
    dialog.get_by_label("Token budget").fill("5M/month")
    dialog.get_by_label("Expires in").fill("30d")
    dialog.get_by_label("chat", exact=True).check()
    dialog.get_by_role("button", name="Make the key").click()
    made = page.get_by_role("dialog", name="Key app")
    app = made.locator("code").inner_text()
    made.get_by_role("button", name="I have it").click()
    keys = page.get_by_role("region", name="Keys", exact=True)
    row = keys.get_by_role("row", name=re.compile("^app"))
    expect(row).to_contain_text("60 requests/min")
    expect(row).to_contain_text("chat")

    body = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
    headers = {"Authorization": f"Bearer {app}"}
    asked = page.request.post(f"{view.url}/v1/chat/completions", data=body, headers=headers)
    assert asked.ok
    usage = page.get_by_role("region", name="Usage")
    usage.get_by_role("button", name="Model", exact=True).click()
    usage.get_by_role("button", name="Key", exact=True).click()
    expect(usage.get_by_role("row", name=re.compile("^app"))).to_be_visible()
    view.accessible()

    page.get_by_role("button", name="Actions for app").click()
    page.get_by_role("menuitem", name="Edit limits").click()
    limits = page.get_by_role("dialog", name="Limits of app")
    limits.get_by_label("Requests at once").fill("4")
    limits.get_by_role("button", name="Save").click()
    expect(row).to_contain_text("4 at once")
    expect(row).to_contain_text("60 requests/min")
    page.get_by_role("button", name="Actions for app").click()
    page.get_by_role("menuitem", name="Replace").click()
    page.get_by_role("dialog").get_by_role("button", name="Replace").click()
    expect(page.get_by_role("dialog", name="Key app").locator("code")).not_to_have_text(app)
    page.get_by_role("button", name="I have it").click()
    page.get_by_role("button", name="Actions for app").click()
    page.get_by_role("menuitem", name="Remove").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(row).to_have_count(0)

    page.get_by_role("link", name="Chat", exact=True).click()  # the cookie is a key for the API too
    page.get_by_role("textbox", name="Message").fill("hello")
    page.keyboard.press("Enter")
    expect(page.get_by_role("article")).to_contain_text("t0")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Admin API key")).to_be_visible()


def test_a_key_among_many_is_found(look: Look, home: Home) -> None:
    home.write([fake("chat")])
    home.yibu("up", "-d")
    view = look(home.url())
    view.expected = ("401", "ERR_INCOMPLETE_CHUNKED_ENCODING")
    api = view.page.request
    ops = api.post(f"{view.url}/console/api/keys", data={"name": "ops", "admin": True}).json()[
        "key"
    ]
    headers = {"Authorization": f"Bearer {ops}"}
    for number in range(12):
        made = api.post(
            f"{view.url}/console/api/keys", data={"name": f"app-{number}"}, headers=headers
        )
        assert made.ok
    page = view.page
    page.goto(f"{view.url}/#/keys")
    page.get_by_label("Admin API key").fill(ops)
    page.get_by_role("button", name="Sign in").click()
    keys = page.get_by_role("region", name="Keys", exact=True)
    expect(keys.get_by_role("row")).to_have_count(14)
    search = keys.get_by_label("Search")
    search.fill("APP-1")
    expect(keys.get_by_role("row")).to_have_count(4)  # 1, 10, 11 and the head
    view.accessible()
    search.fill(made.json()["key"][:13])
    expect(keys.get_by_role("row", name="app-11")).to_be_visible()
    expect(keys.get_by_role("row")).to_have_count(2)
    search.fill("nobody")
    expect(keys.get_by_text("No key matches.")).to_be_visible()
