"""``--help`` in the terminal's language: typer's own words are English, and it breaks lines at spaces
only."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from yibu.cli.mistyped import typer_texts
from yibu.cli.output import cell_width
from yibu.messages import ENGLISH, active, tr

_WIDE = "\u2e80-\u9fff\uff00-\uffef“”‘’—…"
_UNIT = rf"\s+|[（“‘「《]*(?:`[^`]+`|[{_WIDE}]|[^\s`{_WIDE}]+|`)[，。；：、！？）”’」》…]*"
"""A unit between which lines may be broken: a space, a Chinese character, a word."""
_BROKEN = rf"(?<=[{_WIDE}])\n(?=[{_WIDE}])"


def _translated(text: str) -> str:
    if text in typer_texts()["whole"]:
        return tr(text)
    parts: dict[str, str] = typer_texts()["parts"]
    return re.sub("|".join(map(re.escape, parts)), lambda found: tr(parts[found[0]]), text)


def wrapped(text: str, width: int) -> list[str]:
    """The lines of a paragraph, broken as Chinese is: between any two characters."""
    lines = [""]
    for unit in re.findall(_UNIT, text):
        if lines[-1] and cell_width(lines[-1] + unit.rstrip()) > width:
            lines.append("")
        if lines[-1] or not unit.isspace():
            lines[-1] += " " if unit.isspace() else unit
    return [line.rstrip() for line in lines]


_Base: Any = typer.Context.formatter_class


class _Formatter(_Base):  # type: ignore[misc]
    """Lays out a page of help by the width of its characters."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        del prefix
        for name in ("[OPTIONS]", "COMMAND [ARGS]..."):
            args = args.replace(name, _translated(name))
        self.write(f"{tr('Usage:')}{prog} {args}\n")

    def write_heading(self, heading: str) -> None:
        self.write(tr("{heading}:", heading=_translated(heading)) + "\n")

    def write_text(self, text: str) -> None:
        indent = " " * self.current_indent
        paragraphs = (wrapped(part, self.width - len(indent)) for part in text.split("\n\n"))
        self.write("\n\n".join("\n".join(indent + line for line in part) for part in paragraphs))
        self.write("\n")

    def write_dl(
        self, rows: Sequence[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        rows = [(_translated(first), _translated(second)) for first, second in rows]
        column = min(max(cell_width(first) for first, _ in rows), col_max)
        blank = " " * (self.current_indent + column + col_spacing)
        for first, second in rows:
            room = column - cell_width(first)
            self.write(" " * self.current_indent + first)
            self.write(" " * (room + col_spacing) if room >= 0 else "\n" + blank)
            lines = wrapped(second, max(self.width - len(blank), 10))
            self.write(("\n" + blank).join(lines).rstrip() + "\n")


class _Context(typer.Context):
    formatter_class = _Base if active() == ENGLISH else _Formatter


class HelpCommand(TyperCommand):
    """A verb."""

    context_class = _Context


class HelpGroup(TyperGroup):
    """``yibu``, and verbs that have verbs."""

    context_class = _Context


def translate(app: typer.Typer) -> None:
    """Print each verb's help in the terminal's language; a docstring is its English."""
    for command in app.registered_commands:
        command.cls = HelpCommand
        if command.help is None and command.callback is not None:
            command.help = re.sub(_BROKEN, "", tr(inspect.cleandoc(command.callback.__doc__ or "")))
            command.short_help = _first_sentence(command.help)
    for group in app.registered_groups:
        group.cls = HelpGroup
        if group.typer_instance is not None:
            group.short_help = group.typer_instance.info.help
            translate(group.typer_instance)


def _first_sentence(text: str) -> str:
    """What a list of verbs says of one, whole: typer would cut it at the width of one line."""
    paragraph = " ".join(text.partition("\n\n")[0].split("\n"))
    return re.split(r"(?<=。)|(?<=\.)\s", paragraph, maxsplit=1)[0]
