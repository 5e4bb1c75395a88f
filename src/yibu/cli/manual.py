"""This version's documents: their pages, and a search in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_HEADING_OR_CODE = re.compile(r"^```.*?^```$|^#{1,6} (?P<heading>.+?)$", re.MULTILINE | re.DOTALL)
_HIDDEN = re.compile(r"^<!--.*?-->\n", re.MULTILINE | re.DOTALL)
_ORDER = ("index", "tutorials", "howto")
"""The beginning of a list of pages."""
_OF_CLONE = ("CHANGELOG", "CONTRIBUTING", "SECURITY")


@dataclass(frozen=True, slots=True)
class Page:
    """One Markdown file: in the reader's language where it is translated, else in English."""

    name: str
    """Its path without suffix: ``tutorials/speech``."""
    text: str

    @property
    def title(self) -> str:
        return next((heading for heading, _ in _sections(self)), self.name)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page, below one heading, in which all words were found."""

    page: Page
    heading: str
    line: str
    """The first line that has one of the words."""


def folder() -> Path:
    """The folder of the documents: in the package, or in the clone that it was installed from."""
    packaged = Path(__file__).parents[1] / "documents"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "docs"


def pages(root: Path, *, chinese: bool) -> list[Page]:
    """Every page: tutorials and how-tos first."""
    translated = root / "zh"
    files = {file.relative_to(root): file for file in root.rglob("*.md")
             if not file.is_relative_to(translated)}  # fmt: skip
    for name in _OF_CLONE:  # a package has them among the others
        if (file := root.parent / f"{name}.md").is_file():
            files[Path(f"{name.lower()}.md")] = file
    found = []
    for below, file in files.items():
        own = translated / below
        text = (own if chinese and own.is_file() else file).read_text(encoding="utf-8")
        found.append(Page(below.with_suffix("").as_posix(), _HIDDEN.sub("", text)))
    return sorted(found, key=_rank)


def _rank(page: Page) -> tuple[int, str]:
    first = page.name.split("/")[0]
    return (_ORDER.index(first) if first in _ORDER else len(_ORDER), page.name)


def named(found: Iterable[Page], name: str) -> Page | None:
    """The page of that name, or the only one whose name ends with it."""
    wanted = name.removesuffix(".md").casefold()
    by_name = {page.name: page for page in found}
    if wanted in by_name:
        return by_name[wanted]
    ending = [page for key, page in by_name.items() if key.endswith(f"/{wanted}")]
    return ending[0] if len(ending) == 1 else None


def search(found: Iterable[Page], words: Sequence[str]) -> list[Section]:
    """Sections that have every word, whatever its case; those with one in the heading first."""
    wanted = [word.casefold() for word in words]
    hits = [
        section
        for page in found
        for heading, text in _sections(page)
        if (section := _match(page, heading, text, wanted)) is not None
    ]
    return sorted(hits, key=lambda hit: not any(word in hit.heading.casefold() for word in wanted))


def _sections(page: Page) -> Iterator[tuple[str, str]]:
    """(heading, text below it). A line of a code block that begins with # is no heading."""
    headings = [m for m in _HEADING_OR_CODE.finditer(page.text) if m["heading"]]
    ends = [m.start() for m in headings[1:]] + [len(page.text)]
    for match, end in zip(headings, ends, strict=True):
        yield match["heading"], page.text[match.end() : end]


def _match(page: Page, heading: str, text: str, words: Sequence[str]) -> Section | None:
    whole = f"{heading}\n{text}".casefold()
    if not all(word in whole for word in words):
        return None
    lines = (line.strip() for line in text.splitlines())
    line = next((line for line in lines if any(word in line.casefold() for word in words)), "")
    return Section(page, heading, line)
