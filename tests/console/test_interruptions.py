"""What a person loses when something is interrupted: nothing that was written, asked or answered."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator

import psutil
import pytest
from playwright.sync_api import Page, Route, expect

from tests.e2e.home import Home, fake
from tests.support.chromium import Chromium

from .conftest import Look, View

pytestmark = pytest.mark.browser

HIDE = """hidden => {
  Object.defineProperty(document, "hidden", {get: () => hidden, configurable: true});
  document.dispatchEvent(new Event("visibilitychange"));
}"""
"""What a browser does to a tab behind another; a headless one shows all of them."""
MOST_CONNECTIONS = 6


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, chromium: Chromium) -> Iterator[Home]:
    with Home(tmp_path_factory.mktemp("home")) as home:
        home.write([fake("slow", "--tokens", "4000", "--slow-tokens", "0.05"), fake("quick")])
        home.yibu("up", "-d")
        yield home


@pytest.fixture
def view(look: Look, served: Home) -> View:
    return look(served.url())


def ask(page: Page, text: str) -> None:
    page.locator("#chat-model-0").select_option("slow")
    page.locator("#chat-text").fill(text)
    page.locator("#chat-text").press("Enter")
    expect(page.get_by_role("article").last).to_contain_text("t1")


def test_more_tabs_than_a_browser_opens_connections(view: View) -> None:
    """Each tab follows the node; those behind another would take all connections of the browser."""
    first = view.open("logs").page
    for _ in range(MOST_CONNECTIONS):
        page = first.context.new_page()
        page.goto(f"{view.url}/#/logs")
        expect(page.get_by_role("log", name="Lines").locator(".text").first).to_be_visible()
        page.evaluate(HIDE, True)
    first.evaluate(HIDE, True)
    first.evaluate(HIDE, False)
    with first.expect_response("**/console/api/logs/follow**"):
        first.get_by_label("Log", exact=True).select_option("quick-0")
    expect(first.get_by_role("log", name="Lines")).to_contain_text("quick-0")


def test_a_question_is_kept_when_its_answer_is_left(view: View) -> None:
    page = view.open("chat").page
    history = page.locator(".history")

    ask(page, "asked and left for another")
    page.get_by_role("button", name="New", exact=True).click()
    page.get_by_role("button", name="History").click()
    history.get_by_role("button", name=re.compile("^asked and left")).click()
    answer = page.get_by_role("article")
    expect(answer).to_contain_text("t1")
    expect(answer.get_by_text("stopped")).to_be_visible()

    page.get_by_role("button", name="New", exact=True).click()
    ask(page, "asked and reloaded")
    page.reload()
    page.get_by_role("button", name="History").click()
    history.get_by_role("button", name=re.compile("^asked and reloaded")).click()
    expect(answer).to_have_attribute("aria-busy", "false")

    # One that is deleted while it is answered stays deleted.
    page.get_by_role("button", name="New", exact=True).click()
    ask(page, "asked and deleted")
    expect(history).to_contain_text("asked and deleted")
    page.get_by_role("button", name="Delete asked and deleted").click()
    expect(page.get_by_role("article")).to_have_count(0)
    page.reload()
    page.get_by_role("button", name="History").click()
    expect(history).to_contain_text("asked and reloaded")
    expect(history).not_to_contain_text("asked and deleted")


def test_an_answer_goes_on_while_another_page_is_looked_at(view: View) -> None:
    page = view.open("chat").page
    ask(page, "go on")
    page.locator("#chat-text").fill("the next question")
    view.open("logs").open("chat")
    answer = page.get_by_role("article")
    expect(answer).to_have_attribute("aria-busy", "true")
    expect(page.locator("#chat-text")).to_have_value("the next question")
    before = answer.inner_text()
    expect(answer).not_to_have_text(before)
    page.get_by_role("button", name="Stop").click()
    expect(answer.get_by_text("stopped")).to_be_visible()


def test_what_is_written_outlives_its_page_and_the_session(look: Look, home: Home) -> None:
    home.write([fake("chat")])
    home.yibu("up", "-d")
    admin = [home.yibu("key", "add", name, "--admin").stdout.strip() for name in ("one", "two")]
    view = look(home.url())
    view.expected = ("401", "ERR_INCOMPLETE_CHUNKED_ENCODING")
    page = view.open("config").page
    sign_in = page.get_by_label("Admin API key")
    sign_in.fill(admin[0])
    page.get_by_role("button", name="Sign in").click()
    editor = page.get_by_role("textbox", name="Text of the configuration")
    editor.fill("models: []  # to be gone on with")
    view.open("deploy")
    page.get_by_label("Model", exact=True).fill("some/model")
    page.get_by_role("button", name="A start script").click()
    page.get_by_label("Start script or command line").fill("vllm serve some/model")
    view.open("config")
    expect(editor).to_have_value("models: []  # to be gone on with")

    home.yibu("key", "rm", "one")
    sign_in.fill(admin[1])
    page.get_by_role("button", name="Sign in").click()
    expect(editor).to_have_value("models: []  # to be gone on with")
    view.open("deploy")
    expect(page.get_by_label("Start script or command line")).to_have_value("vllm serve some/model")
    page.get_by_role("button", name="A model").click()
    expect(page.get_by_label("Model", exact=True)).to_have_value("some/model")

    view.open("config")
    (home.root / "yibu.yaml").write_text(json.dumps({"gateway": {"port": 0}, "models": []}))
    page.get_by_role("button", name="简体中文").click()  # which asks for the file again
    expect(page.get_by_text("文件已被他人修改")).to_be_visible()
    page.get_by_role("button", name="放弃修改").click()
    expect(page.get_by_role("textbox", name="配置文件内容")).to_have_value(
        re.compile('^{"gateway"')
    )


def test_a_node_that_dies_in_mid_answer_and_comes_back(look: Look, home: Home) -> None:
    home.write([fake("slow", "--tokens", "4000", "--slow-tokens", "0.05")])
    home.yibu("up", "-d")
    view = look(home.url(), locale="zh-CN")
    view.expected = ("ERR_", "Failed to load module script", "failed:", "exception: ")
    page = view.open("chat").page
    ask(page, "go on")
    told = page.request.get(f"{view.url}/console/api/overview").json()
    node = psutil.Process(told["node"]["pid"])
    down = re.compile(r"/(console|v1)/")
    page.context.route(down, lambda route: route.abort("connectionrefused"))
    node.send_signal(signal.SIGKILL)
    alert = page.get_by_role("article").get_by_role("alert")
    expect(alert).to_have_text("与节点的连接中断。")
    expect(page.get_by_text("与节点的连接已断开")).to_be_visible()
    page.evaluate("location.hash = '#/metrics'")  # whose module is not here yet
    expect(page.get_by_role("alert")).to_have_text("页面加载失败：节点没有响应。")
    expect(page.get_by_role("button", name="重试")).to_be_visible()
    page.context.unroute(down)  # its holder has started it again
    expect(page.get_by_role("heading", name="监控")).to_be_visible()


def test_the_end_of_a_log_is_followed_however_fast_it_is_written(view: View, served: Home) -> None:
    """A scroll event that comes after the next lines have been written is no wish to look back."""
    log = served.root / "logs/quick-0.log"

    def write(*words: str) -> None:
        with log.open("a") as file:
            file.writelines(f"INFO {word}\n" for word in words)

    page = view.open("logs/quick-0").page
    lines = page.get_by_role("log", name="Lines")
    write(*(f"many-{number}" for number in range(100)))
    last = lines.get_by_text("many-99", exact=False)
    expect(last).to_be_in_viewport()
    lines.evaluate("""async element => {
      for (let frame = 0; frame < 3; frame += 1) await new Promise(requestAnimationFrame);
      const more = document.createElement("div");
      more.style.height = "5000px";
      element.append(more);
      element.dispatchEvent(new Event("scroll"));
      more.remove();
    }""")
    write(*(f"more-{number}" for number in range(20)), "one-more")
    expect(lines.get_by_text("one-more")).to_be_in_viewport()

    lines.hover()
    page.mouse.wheel(0, -600)
    expect(last).not_to_be_in_viewport()
    write("unseen")
    expect(lines.get_by_text("unseen")).to_be_attached()
    expect(lines.get_by_text("unseen")).not_to_be_in_viewport()


def test_an_answer_whose_end_is_missing_is_not_shown_as_whole(view: View) -> None:
    """A proxy in between has closed the connection in good order."""
    page = view.open("chat").page
    chunk = {"choices": [{"index": 0, "delta": {"content": "half of"}, "finish_reason": None}]}

    def half(route: Route) -> None:
        body = f"data: {json.dumps(chunk)}\n\n"
        route.fulfill(content_type="text/event-stream", body=body)

    page.route("**/v1/chat/completions", half)
    page.locator("#chat-text").fill("whole?")
    page.locator("#chat-text").press("Enter")
    answer = page.get_by_role("article")
    expect(answer.get_by_role("alert")).to_have_text("The answer broke off.")
    expect(answer).to_contain_text("half of")


def test_the_end_of_a_job_that_nobody_heard_is_asked_for(view: View) -> None:
    view.expected = ("404",)
    page = view.page
    told = view.page.request.get(f"{view.url}/console/api/overview").json()
    job = {
        "id": "j999", "verb": "restart", "models": ["quick"], "started": told["time"], "ended": None,
        "error": None, "progress": None, "can_be_cancelled": False,
    }  # fmt: skip
    first = json.dumps({**told, "jobs": [job]})
    second = json.dumps({**told, "jobs": []})
    body = f"event: overview\ndata: {first}\n\nevent: overview\ndata: {second}\n\n"
    events = {"content_type": "text/event-stream", "body": body}
    page.route("**/console/api/events", lambda route: route.fulfill(**events))
    view.open()
    row = page.get_by_role("region", name="Jobs").get_by_role("row", name=re.compile("Restart"))
    expect(row).to_contain_text("failed")
    expect(row).to_contain_text("started again meanwhile")


def test_files_that_cannot_be_used_are_named(look: Look, home: Home) -> None:
    models = [fake("hears"), fake("sees")]
    models[0]["options"]["capabilities"] = ["transcriptions"]
    models[1]["options"]["capabilities"] = ["chat", "vision"]
    home.write(models)
    home.yibu("up", "-d", code=None)
    view = look(home.url())
    page = view.open("speech").page
    empty = {"name": "空.wav", "mimeType": "audio/wav", "buffer": b""}
    for _ in range(2):  # the same file can be chosen again
        page.locator("input[type=file]").set_input_files(files=[empty])  # type: ignore[list-item]
        expect(page.locator(".toast", has_text="空.wav is empty.")).to_be_visible()
        page.get_by_role("button", name="Dismiss").click()
    view.open("chat")
    broken = {"name": "broken.png", "mimeType": "image/png", "buffer": b"no picture"}
    page.locator("input[type=file]").set_input_files(files=[broken])  # type: ignore[list-item]
    expect(page.locator(".toast", has_text="broken.png is no picture")).to_be_visible()
