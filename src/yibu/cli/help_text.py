"""``--help`` and the parser's refusals in the terminal's language: typer's own words are English."""

from __future__ import annotations

import inspect
import re
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from yibu.messages import ENGLISH, active, tr

_HEADINGS = {
    "Usage:": tr("Usage:"),
    "Arguments:": tr("Arguments:"),
    "Options:": tr("Options:"),
    "Commands:": tr("Commands:"),
    "Show this message and exit.": tr("Show this message and exit."),
    "[default:": tr("[default:"),
    "[required]": tr("[required]"),
    "[env var:": tr("[env var:"),
}
_HEADING = re.compile("|".join(map(re.escape, _HEADINGS)))


def translated(text: str) -> str:
    """A page of help with typer's own words in the terminal's language."""
    if active() == ENGLISH:
        return text
    return _HEADING.sub(lambda found: _HEADINGS[found[0]], text)


class Command(TyperCommand):
    """A verb."""

    def get_help(self, ctx: Any) -> str:
        return translated(super().get_help(ctx))


class Group(TyperGroup):
    """``yibu``, and verbs that have verbs."""

    def get_help(self, ctx: Any) -> str:
        return translated(super().get_help(ctx))


def translate(app: typer.Typer) -> None:
    """Have each verb print its help in the terminal's language; a docstring is its English."""
    for command in app.registered_commands:
        command.cls = Command
        if command.help is None and command.callback is not None:
            command.help = tr(inspect.cleandoc(command.callback.__doc__ or ""))
    for group in app.registered_groups:
        group.cls = Group
        if group.typer_instance is not None:
            translate(group.typer_instance)


def refusal(error: typer.TyperException) -> str:
    """What the parser says of a command line that it cannot read."""
    said = error.format_message()
    if active() == ENGLISH:
        return said
    option, near = getattr(error, "option_name", None), getattr(error, "possibilities", None)
    parameter = getattr(error, "param", None)
    name = parameter.human_readable_name if parameter is not None else ""
    if option and near:
        return tr(
            "No such option: {option}. Did you mean {near}?", option=option, near=", ".join(near)
        )
    if option and near is not None:
        return tr("No such option: {option}", option=option)
    if type(error).__name__ == "MissingParameter":
        return tr("{name} is missing", name=name)
    if type(error).__name__ == "BadParameter" and name:
        return tr(
            "Invalid value for {name}: {said}", name=name, said=getattr(error, "message", said)
        )
    return said
