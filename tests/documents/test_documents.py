"""The documents themselves: both languages, links, and blocks that are not run."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.documents.blocks import DOCS, OUTPUT, ROOT, blocks, pages, translations, without_comments

CHINESE = DOCS / "zh"
NOT_RUN = 30
"""Blocks of tutorials and how-tos that may be left out, each with its reason."""
ALL = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?!https?:|mailto:)([^)\s#]*)(?:#([^)\s]*))?\)")


def relative(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(("english", "chinese"), translations(), ids=relative)
def test_both_languages_have_the_same_code(english: Path, chinese: Path) -> None:
    here, there = blocks(english), blocks(chinese)
    code = [
        [without_comments(b) for b in page if b.language not in OUTPUT] for page in (here, there)
    ]
    assert code[0] == code[1]
    for one, other in zip(here, there, strict=True):
        assert (one.language, one.title) == (other.language, other.title)
        assert (one.why is None) == (other.why is None), other.line


def test_every_page_is_in_both_languages() -> None:
    pairs = translations()
    assert [relative(page) for pair in pairs for page in pair if not page.is_file()] == []
    chinese = {page for _, page in pairs}
    assert [relative(page) for page in CHINESE.rglob("*.md") if page not in chinese] == []


@pytest.mark.parametrize(("english", "chinese"), translations(), ids=relative)
def test_both_languages_have_the_same_parts(english: Path, chinese: Path) -> None:
    """Headings, rows of tables and list items, in the same order; of the changes their versions."""
    parts = re.compile(
        r"^(#+ )" if english.name == "CHANGELOG.md" else r"^(#+ |\||- |\d+\. |!!! )", re.MULTILINE
    )
    assert parts.findall(_prose(chinese)) == parts.findall(_prose(english))


@pytest.mark.parametrize(("english", "chinese"), translations(), ids=relative)
def test_both_languages_have_the_same_figures(english: Path, chinese: Path) -> None:
    """A figure that has changed in one of them is found; of the changes there may be more in English."""
    if english.name == "CHANGELOG.md":
        assert _figures(chinese) - _figures(english) == Counter()
        return
    here, there = _figures(english), _figures(chinese)
    assert {figure for figure in here if figure not in there} == set()
    assert {figure for figure in there if figure not in here} == set()


def _figures(page: Path) -> Counter[str]:
    """Numbers of two digits and more, in sentences and tables; months have a number in Chinese alone."""
    return Counter(re.findall(r"\d[\d,.]*\d", re.sub(r"\d+ 月", "", _prose(page))))


def test_blocks_that_are_not_run_are_few_and_say_why() -> None:
    left_out = [block for page in pages() for block in blocks(page) if block.why is not None]
    assert all(len(block.why or "") > 8 for block in left_out)
    assert len(left_out) <= NOT_RUN
    run = [
        b for page in pages() for b in blocks(page) if b.why is None and b.language not in OUTPUT
    ]
    assert len(run) > len(left_out)


@pytest.mark.parametrize("page", ALL, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in _LINK.findall(_prose(page)):
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), f"{target}#{anchor}"


@pytest.mark.parametrize("page", [other for _, other in translations()], ids=relative)
def test_a_chinese_page_leads_to_chinese_pages(page: Path) -> None:
    targets = {
        (page.parent / target).resolve() for target, _ in _LINK.findall(_prose(page)) if target
    }
    english = {here for here, there in translations() if here.resolve() in targets}
    assert english <= {ROOT / "README.md"}


@pytest.mark.parametrize("name", ["mkdocs.yml", "mkdocs.zh.yml"])
def test_the_sites_navigation_names_pages_that_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    text = re.sub(r"!!python/\S+", "", text)
    listed = set(_files(yaml.safe_load(text)["nav"]))
    assert len(listed) > 40
    of_root = {"security.md", "contributing.md", "changelog.md"}
    assert [page for page in sorted(listed - of_root) if not (DOCS / page).is_file()] == []


def _files(nav: object) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    values = nav if isinstance(nav, list) else list(nav.values()) if isinstance(nav, dict) else []
    return [name for value in values for name in _files(value)]


def _prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """As GitHub and the site make them of headings."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).lower())
        found.add(plain.strip().replace(" ", "-"))
    return found


@cache
def ours() -> set[str]:
    return {one.name for folder in ("src", "tests", "scripts", "benchmarks")
            for one in (ROOT / folder).rglob("*.py")}  # fmt: skip


@pytest.mark.parametrize("page", ALL, ids=relative)
def test_files_of_ours_that_a_page_names_exist(page: Path) -> None:
    """Renamed, they were still told by their old names."""
    theirs = {"funasr_wss_server.py"}
    named = {Path(found).name for found in re.findall(r"`([\w./-]*[a-z_]\.py)`", page.read_text())}
    assert not named - ours() - theirs


def test_make_makes_what_has_a_directory_s_name() -> None:
    """`make docs` did nothing, because there is a directory of this name."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY:((?:.*\\\n)*.*)", text, re.MULTILINE)
    targets = set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))
    assert phony is not None
    assert targets == set(phony[1].replace("\\", " ").split())
