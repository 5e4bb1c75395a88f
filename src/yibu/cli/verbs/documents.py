"""``yibu docs``: the documents of this version, without a network."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from yibu.cli import manual, output
from yibu.cli.options import argument
from yibu.errors import UsageError
from yibu.messages import ENGLISH, active

_SECTIONS = 20
"""Sections shown at once."""
_WIDTH = 96


def register(app: typer.Typer) -> None:
    app.command()(docs)


def docs(
    words: Annotated[
        list[str] | None, argument("A page's name, or words to look for.", metavar="[WORD]...")
    ] = None,
) -> None:
    """Read or search the documents of this version; no network is needed."""
    chinese = active() != ENGLISH
    pages = manual.pages(manual.folder(), chinese=chinese)
    if not words:
        output.table([[page.name, page.title] for page in pages], ("PAGE", "TITLE"))
        output.say("Read one: yibu docs PAGE. Search them: yibu docs WORD.")
        return
    page = manual.named(pages, words[0]) if len(words) == 1 else None
    if page is not None:
        _show(page)
        return
    found = manual.search(pages, words) or manual.search(
        manual.pages(manual.folder(), chinese=not chinese), words
    )
    if not found:
        raise UsageError(
            "The documents have nothing with {words!r} in it.",
            words=" ".join(words),
            hint="See all pages with: yibu docs",
        )
    for section in found[:_SECTIONS]:
        output.data(f"{section.page.name}: {section.heading}")
        if section.line:
            output.data(f"    {_short(section.line)}")
    if len(found) > _SECTIONS:
        output.say(
            "{found_count} more sections; another word finds fewer.",
            found_count=len(found) - _SECTIONS,
        )
    output.say("Read one: yibu docs {page}", page=found[0].page.name)


def _short(line: str) -> str:
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"


def _show(page: manual.Page) -> None:
    """Print a page; on a terminal drawn and in a pager, else as it is."""
    if not sys.stdout.isatty():
        output.data(page.text.rstrip())
        return
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console(width=min(Console().width, _WIDTH))
    if not sys.stdin.isatty():
        console.print(Markdown(page.text))
        return
    os.environ.setdefault("LESS", "-FRX")  # as git does: colours pass, a short page ends at once
    with console.pager(styles=True):
        console.print(Markdown(page.text))
