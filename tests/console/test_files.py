"""The page's files by themselves: texts, translations, libraries, sizes. No browser is needed."""

from __future__ import annotations

import gzip
import importlib.util
import re
import string
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

from yibu.gateway.console import overview
from yibu.hub import catalogue
from yibu.node.launch import phases
from yibu.planner.types import Verdict
from yibu.routing import State

from .templates import HOLE, markup_of

REPOSITORY = Path(__file__).parents[2]
FIRST_PAGE_BYTES = 300_000


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / f"scripts/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where its dataclasses look their module up
    spec.loader.exec_module(module)
    return module


files = script("console_files")
fetching = script("fetch_console")


def sentences(entry: str | dict[str, str]) -> Iterator[str]:
    yield from [entry] if isinstance(entry, str) else entry.values()


def placeholders(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name}


@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_every_text_is_in_the_catalogue(language: str) -> None:
    assert list(files.differences(files.catalogues()[language], sorted(files.ids()))) == []


@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_translations_have_the_placeholders_of_their_text(language: str) -> None:
    different = [
        text
        for text, entry in files.catalogues()[language].items()
        for sentence in sentences(entry)
        if placeholders(sentence) != placeholders(text) | ({"count"} & placeholders(sentence))
    ]
    assert different == []


def test_chinese_is_chinese() -> None:
    """Whatever has English words has Chinese characters too, names and units apart."""
    kept = {"Top p", "GPU {index}", "GPU {index} · {name}", "TTFT p95", "TTFT {time}"}
    left = [
        text
        for text, entry in files.catalogues()["zh-CN"].items()
        for sentence in sentences(entry)
        if text not in kept
        and re.search(r"[a-z]{3,}", re.sub(r"\{\w+\}|yibu|token|\.\w+", "", sentence))
        and not re.search(r"[\u4e00-\u9fff]", sentence)
    ]
    assert left == []


NOT_TRANSLATED = {"yibu", "always", "8xh20", "--max-model-len 8192", "PORT=8000", "5M/month"}
"""The product's name, and what people type as it stands."""
_SAID = re.compile(r'\b(aria-label|title|placeholder|alt|label|hint|fault|text)="([^"\0]*)"')
_LETTERS = re.compile(r"[A-Za-z\u4e00-\u9fff]")
_LITERAL = re.compile(
    r'\b(?:label|title|text|action|hint): "[^"]|\btoast\("|new Error\("|showLabel="'
)
_NOT_A_LITERAL = re.compile(r'(?<![\w.])t\((?!\s*")')


def said_outside(source: str) -> Iterator[str]:
    """What a person would read that does not come out of t()."""
    for markup in markup_of(source):
        text = re.sub(r"<kbd>.*?</kbd>", "", markup)
        yield from (found[1] for found in _SAID.findall(text))
        yield from re.sub(r"<(?:[^<>]|=>)*>", "\n", text).replace(HOLE, "").split("\n")


def test_no_text_stands_outside_the_catalogue() -> None:
    faults = [
        f"{path.name}: {text.strip()}"
        for path in files.sources()
        for text in said_outside(path.read_text("utf-8"))
        if _LETTERS.search(text) and text.strip() not in NOT_TRANSLATED
    ]
    assert faults == []


def test_no_text_is_put_together_or_passed_without_translation() -> None:
    faults = [
        f"{path.name}: {line.strip()}"
        for path in files.sources()
        if path.name != "i18n.js"
        for line in path.read_text("utf-8").splitlines()
        if _NOT_A_LITERAL.search(line) or _LITERAL.search(line)
    ]
    assert faults == []


def test_the_scanner_sees_what_stands_outside() -> None:
    source = (
        'html`<p title="Some title" class="row">${t("a")} words ${b ? html`<i>more</i>` : 1}</p>`'
    )
    said = [text.strip() for text in said_outside(source) if _LETTERS.search(text)]
    assert sorted(said) == ["Some title", "more", "words"]


def test_the_libraries_are_the_pinned_ones_with_their_licences() -> None:
    assert fetching.differences() == []
    for package in fetching.PACKAGES:
        folder = next(iter(package.files.values())).split("/")[0]
        assert (fetching.VENDOR / folder / "LICENSE").stat().st_size > 400, folder


def test_the_first_page_is_small() -> None:
    names = ["index.html", "main.js", "icon.svg", "locales/zh-CN.json", *files.first_modules()]
    names += [f"styles/{one.name}" for one in (files.CONSOLE / "styles").glob("*.css")]
    sizes = {name: len(gzip.compress((files.CONSOLE / name).read_bytes())) for name in names}
    assert sum(sizes.values()) < FIRST_PAGE_BYTES, sizes
    lazy = ("katex", "highlight", "marked", "uplot", "dompurify")
    assert not [name for name in names if any(word in name for word in lazy)]


def test_the_first_pages_modules_are_fetched_at_once() -> None:
    assert files.INDEX.read_text("utf-8") == files.preloaded()


def test_nothing_inline_and_nothing_from_elsewhere() -> None:
    """What the page's policy would refuse."""
    html = files.INDEX.read_text("utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", html)
    faults = [
        f"{path.name}: {found}"
        for path in [*files.sources(), files.INDEX, *(files.CONSOLE / "styles").glob("*.css")]
        for found in re.findall(r"https?://[^\s\"'`)]+", path.read_text("utf-8"))
        if "www.w3.org" not in found
    ]
    assert faults == []


def test_files_are_short() -> None:
    own = [*files.sources(), *(files.CONSOLE / "styles").glob("*.css")]
    lengths = {path.name: len(path.read_text("utf-8").splitlines()) for path in own}
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}


def _words_of_the_node() -> Iterator[tuple[str, str]]:
    """Codes that the node sends, and the module that has their words."""
    yield from (("components/state.js", state) for state in get_args(State))
    known = {value for name, value in vars(phases).items() if name.isupper()}
    for log in files.CONSOLE.parent.glob("engines/*/log.toml"):
        known |= tomllib.loads(log.read_text("utf-8"))["phases"].keys()
    yield from (("components/state.js", phase) for phase in known if isinstance(phase, str))
    yield from (("pages/deploy/arithmetic.js", verdict) for verdict in get_args(Verdict))
    yield from (("lib/jobs.js", verb) for verb in (*overview.VERBS, "pull", "apply", "rollback"))
    yield from (("pages/deploy/catalogue.js", entry.kind) for entry in catalogue.entries())


def test_every_code_of_the_node_has_a_word() -> None:
    """One without is shown as it stands, in Chinese too."""
    without = [
        f"{module}: {code}"
        for module, code in _words_of_the_node()
        if not re.search(
            rf'(?<![\w-])"?{re.escape(code)}"?: ?\[?t\("',
            (files.CONSOLE / module).read_text("utf-8"),
        )
    ]
    assert without == []
