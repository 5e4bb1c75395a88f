"""Talking to models: what streams, how it is shown, and what can be done with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.e2e.home import Home, fake
from tests.support.chromium import Chromium
from tests.support.polling import until

from .conftest import Look, View, picture

pytestmark = pytest.mark.browser

ANSWER = r"""## A heading

Solve $u_t = \alpha u_{xx}$, which costs $5 and $6:

$$\sum_{n=1}^{\infty} \frac{1}{n^2} = \frac{\pi^2}{6}$$

```python
def step(u):
    return [2 * one for one in u]
```

| a | b |
|---|---|
| 1 | 2 |

<img src=x onerror="document.title='broken in'"> <b onclick="document.title='broken in'">raw</b> <script>document.title = 'broken in'</script>
[bad](javascript:document.title='broken-in') ![far](https://example.com/tracker.png) <a href="https://example.com" style="position:fixed">link</a>
"""
FOLDED = ["The *first* part.", "\n\n<details><summary>More</summary>\n\n- inside $x^2$\n\n", "```python\ndef",
          " f(): pass\n```\n\n</details>\n\nThe [last][1] part.", "\n\n[1]: https://example.com"]  # fmt: skip
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]


@pytest.fixture(scope="module")
def talkers(tmp_path_factory: pytest.TempPathFactory, chromium: Chromium) -> Iterator[Home]:
    """Models that answer with Markdown, with reasoning and a tool call, slowly, and one that sees."""
    root = tmp_path_factory.mktemp("home")
    pieces = [ANSWER[at : at + 30] for at in range(0, len(ANSWER), 30)]
    deltas = {
        "rich": [{"content": piece} for piece in pieces],
        "tools": [
            {"reasoning_content": "The weather "},
            {"reasoning_content": "must be asked for."},
            {
                "tool_calls": [
                    {"index": 0, "id": "call_1", "type": "function",
                     "function": {"name": "weather", "arguments": '{"city": '}}
                ]
            },
            {"tool_calls": [{"index": 0, "function": {"arguments": '"Beijing"}'}}]},
        ],
        "tagged": [{"content": "<think>Hidden "}, {"content": "thoughts.</think>Shown."}],
    }  # fmt: skip
    models = []
    for name, list_of in deltas.items():
        (root / f"{name}.json").write_text(json.dumps(list_of))
        models.append(fake(name, "--deltas", str(root / f"{name}.json"), "--count-words"))
    (root / "folded.json").write_text(json.dumps([{"content": piece} for piece in FOLDED]))
    folded = ("--deltas", str(root / "folded.json"), "--end-when", str(root / "end"))
    models.append(fake("folded", *folded))
    models.append(fake("slow", "--tokens", "400", "--slow-tokens", "0.25"))
    models.append(fake("sees"))
    models[-1]["options"]["capabilities"] = ["chat", "vision"]
    with Home(root) as home:
        home.write(models)
        home.yibu("up", "-d")
        yield home


@pytest.fixture
def chat(look: Look, talkers: Home) -> View:
    return look(talkers.url(), permissions=["clipboard-read", "clipboard-write", "microphone"])


def pick(view: View, model: str) -> None:
    view.page.get_by_label("Model", exact=True).first.select_option(model)


def ask(view: View, text: str) -> None:
    view.page.get_by_role("textbox", name="Message").fill(text)
    view.page.keyboard.press("Enter")


def copied(view: View, role: Any, name: str) -> str:
    """What a click puts into the clipboard, whenever it gets there."""
    view.page.evaluate("navigator.clipboard.writeText('')")
    view.page.get_by_role(role, name=name).click()
    return str(until(lambda: view.page.evaluate("navigator.clipboard.readText()"), name))


def test_markdown_formulas_and_code_without_what_could_do_harm(chat: View) -> None:
    page = chat.open("chat").page
    pick(chat, "rich")
    ask(chat, "Tell me")
    answer = page.get_by_role("article")
    expect(answer).to_have_attribute("aria-busy", "false")
    expect(answer.get_by_role("heading", name="A heading")).to_be_visible()
    expect(answer.locator(".katex")).to_have_count(2)
    expect(answer.locator(".katex-display")).to_have_count(1)
    expect(answer.locator("math")).to_have_count(2)  # what a screen reader reads
    expect(answer.locator(".hljs-keyword").first).to_have_text("def")
    expect(answer.get_by_role("cell", name="2")).to_be_visible()
    expect(answer).to_contain_text("costs $5 and $6")
    expect(answer.locator("img, script, [onclick], [style*='fixed']")).to_have_count(0)
    expect(answer.get_by_role("link", name="far")).to_have_attribute(
        "href", "https://example.com/tracker.png"
    )
    expect(answer.get_by_text("bad", exact=True)).not_to_have_attribute("href", "javascript:")
    assert copied(chat, "button", "Copy the code").startswith("def step(u):")
    assert page.title() == "Chat · yibu"
    chat.accessible()


def test_what_has_been_drawn_of_an_answer_stays(chat: View, talkers: Home) -> None:
    """A long answer that was drawn anew for each word would hold the page up."""
    page = chat.open("chat").page
    pick(chat, "folded")
    ask(chat, "Tell me")
    answer = page.get_by_role("article")
    first = answer.locator(".markdown p").first
    expect(answer.get_by_role("link", name="last")).to_have_attribute("href", "https://example.com")
    expect(answer.locator("details .katex")).to_have_count(1)
    expect(answer.locator("details .hljs-keyword").first).to_have_text("def")  # its block has ended
    first.evaluate("element => { element.drawnOnce = true; }")
    expect(answer).to_have_attribute("aria-busy", "true")
    (talkers.root / "end").touch()
    expect(answer).to_have_attribute("aria-busy", "false")
    expect(answer.locator(".figures")).to_be_visible()
    assert first.evaluate("element => element.drawnOnce")
    expect(answer.locator("details")).to_have_count(1)
    chat.accessible()


def test_figures_and_the_request_as_code(chat: View, tmp_path: Path) -> None:
    page = chat.open("chat").page
    pick(chat, "rich")
    page.get_by_role("button", name="Parameters").click()
    page.get_by_label("System prompt").fill('It\'s "quoted"')
    page.get_by_label("Temperature").fill("0.5")
    chat.accessible()
    ask(chat, "Tell me")
    figures = page.locator(".figures")
    expect(figures).to_contain_text("tokens")
    expect(figures).to_contain_text("TTFT")
    requests = {}
    for kind in "curl", "Python", "JavaScript":
        page.get_by_role("button", name="Copy the request as code").click()
        requests[kind] = copied(chat, "menuitem", f"Copy as {kind}")
        assert "0.5" in requests[kind]
    if shutil.which("curl"):
        done = subprocess.run(
            ["bash", "-c", requests["curl"]], capture_output=True, text=True, timeout=60, check=True
        )
        assert json.loads(done.stdout)["choices"][0]["message"]["content"].startswith("t0")
    program = tmp_path / "asked.py"
    program.write_text(requests["Python"])
    env = {**os.environ, "PYTHONWARNINGS": "default"}
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=120, check=False, env=env
    )
    assert done.stdout.startswith("t0"), done.stderr
    assert 'import OpenAI from "openai"' in requests["JavaScript"]


def test_reasoning_is_folded_and_tools_are_shown_and_answered(chat: View) -> None:
    page = chat.open("chat").page
    pick(chat, "tools")
    page.get_by_role("button", name="Parameters").click()
    page.get_by_role("textbox", name="Tools").fill("[{")
    expect(page.get_by_role("textbox", name="Tools")).to_have_attribute("aria-invalid", "true")
    page.get_by_role("textbox", name="Tools").fill(json.dumps(TOOLS))
    ask(chat, "How is the weather?")
    answer = page.get_by_role("article").first
    expect(answer.get_by_text("must be asked for.")).to_be_hidden()
    answer.get_by_text("Reasoning").click()
    expect(answer.get_by_text("must be asked for.")).to_be_visible()
    expect(answer.get_by_label("Arguments of weather")).to_contain_text('"city": "Beijing"')
    answer.get_by_label("Result of weather").fill('{"degrees": 3}')
    with page.expect_request("**/v1/chat/completions") as sent:
        answer.get_by_role("button", name="Send the results").click()
    messages = json.loads(sent.value.post_data or "")["messages"]
    assert messages[-1] == {"role": "tool", "tool_call_id": "call_1", "content": '{"degrees": 3}'}
    assert messages[-2]["tool_calls"][0]["function"] == {
        "name": "weather",
        "arguments": '{"city": "Beijing"}',
    }
    expect(page.get_by_role("article")).to_have_count(2)


def test_reasoning_in_tags_is_split_off(chat: View) -> None:
    page = chat.open("chat").page
    pick(chat, "tagged")
    ask(chat, "Think")
    answer = page.get_by_role("article")
    expect(answer.locator(".markdown")).to_have_text("Shown.")
    expect(answer.get_by_text("Hidden thoughts.")).to_be_hidden()


def test_stop_edit_and_answer_again(chat: View) -> None:
    page = chat.open("chat").page
    pick(chat, "slow")
    ask(chat, "Count")
    answer = page.get_by_role("article")
    expect(answer).to_contain_text("t1")
    page.get_by_role("button", name="Stop").click()
    expect(answer.get_by_text("stopped")).to_be_visible()
    page.get_by_role("button", name="Answer again").click()
    expect(answer).to_have_attribute("aria-busy", "true")
    expect(answer).to_contain_text("t1")
    page.keyboard.press("Escape")
    expect(answer.get_by_text("stopped")).to_be_visible()
    pick(chat, "tagged")
    page.locator(".question").hover()
    page.get_by_role("button", name="Edit the message").click()
    page.get_by_role("textbox", name="Edit the message").fill("Think instead")
    page.get_by_role("button", name="Ask again").click()
    expect(page.locator(".question")).to_have_count(1)
    expect(page.locator(".question")).to_contain_text("Think instead")
    expect(answer.locator(".markdown")).to_have_text("Shown.")


def test_models_side_by_side_history_and_export(chat: View, tmp_path: Path) -> None:
    page = chat.open("chat").page
    pick(chat, "tagged")
    page.get_by_role("button", name="Compare").click()
    page.get_by_label("Model", exact=True).nth(1).select_option("rich")
    ask(chat, "Both of you")
    for model, said in ("tagged", "Shown."), ("rich", "A heading"):
        column = page.get_by_role("region", name=f"Answers of {model}")
        expect(column.get_by_role("article")).to_contain_text(said)
        expect(column.get_by_role("article")).to_have_attribute("aria-busy", "false")
    chat.accessible()
    page.get_by_role("button", name="Export").click()
    with page.expect_download() as downloading:
        page.get_by_role("menuitem", name="Export as Markdown").click()
    downloading.value.save_as(tmp_path / "export.md")
    text = (tmp_path / "export.md").read_text()
    assert text.startswith("# Both of you")
    assert text.index("## tagged") < text.index("Shown.") < text.index("## rich")
    page.get_by_role("button", name="New", exact=True).click()
    expect(page.get_by_role("article")).to_have_count(0)
    page.reload()
    page.get_by_role("button", name="History").click()
    chat.accessible()
    page.get_by_role("button", name="Both of you").first.click()
    expect(page.get_by_role("article")).to_have_count(2)
    page.get_by_role("button", name="Delete Both of you").click()
    expect(page.get_by_text("There are none yet.")).to_be_visible()


def test_pictures_for_models_that_see(chat: View, tmp_path: Path) -> None:
    page = chat.open("chat").page
    pick(chat, "rich")
    expect(page.get_by_role("button", name="Image")).to_have_count(0)
    pick(chat, "sees")
    page.locator("input[type=file]").set_input_files(picture(tmp_path / "dot.png"))
    expect(page.get_by_role("button", name="Remove image 1")).to_be_visible()
    with page.expect_request("**/v1/chat/completions") as sent:
        ask(chat, "What is this?")
    text, image = json.loads(sent.value.post_data or "")["messages"][0]["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert text["text"] == "What is this?"
    expect(page.get_by_role("article")).to_contain_text("t0")


def test_a_refusal_is_shown_in_the_answers_place(chat: View) -> None:
    page = chat.open("chat").page
    chat.expected = ("400",)
    pick(chat, "rich")
    page.get_by_role("button", name="Parameters").click()
    page.get_by_label("Temperature").fill("5")
    ask(chat, "Too hot")
    expect(page.get_by_role("article").get_by_role("alert")).to_contain_text("temperature")
