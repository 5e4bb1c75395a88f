"""What a command line that cannot be read was probably meant to be."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from yibu.messages import filled, tr

if TYPE_CHECKING:
    import typer

ENGINE_FLAG_VERBS = frozenset({"up", "serve", "plan"})
"""The verbs after which ``--`` begins flags for the engine."""

_OTHER_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "kill": "down",
        "start": "up",
        "deploy": "up",
        "launch": "up",
        "log": "logs",
        "download": "pull",
        "install": "engine install",
        "delete": "rm",
        "remove": "rm",
        "help": "--help",
    }
)
"""What other tools call our verbs. The nearest spelling alone would send `start` to `restart`."""

_REFUSALS = (
    (
        r"No such option: (?P<option>\S+) \(Possible options: (?P<near>.+)\)",
        tr("No such option: {option}. Did you mean {near}?"),
    ),
    (r"No such option: (?P<option>\S+)", tr("No such option: {option}")),
    (
        r"No such command (?P<verb>.+)\. Did you mean (?P<near>.+)\?",
        tr("No such command {verb}. Did you mean {near}?"),
    ),
    (r"No such command (?P<verb>.+)\.", tr("No such command {verb}.")),
    (r"Missing command\.", tr("A command is missing.")),
    (r"Missing argument '(?P<name>.+?)'\..*", tr("{name} is missing")),
    (r"Missing (?:option|parameter) '(?P<name>.+?)'\..*", tr("{name} is missing")),
    (
        r"Got unexpected extra argument\(s\) \((?P<words>.+)\)",
        tr("One word too many, or several: {words}"),
    ),
    (
        r"Option '(?P<option>.+)' requires (?:an argument|\d+ arguments)\.",
        tr("The option {option} needs a value."),
    ),
    (
        r"Option '(?P<option>.+)' does not take a value\.",
        tr("The option {option} takes no value."),
    ),
    (
        r"Invalid value for '(?P<name>.+?)': (?P<said>.+)",
        tr("Invalid value for {name}: {said}"),
    ),
    (r"(?P<value>.+) is not one of (?P<known>.+)\.", tr("{value} is not one of {known}")),
    (
        r"(?P<value>.+) is not in the range (?P<range>.+)\.",
        tr("{value} is not in the range {range}"),
    ),
    (r"(?P<value>.+) is not a valid int(?: range)?\.", tr("{value} is not an integer")),
    (r"(?P<value>.+) is not a valid float(?: range)?\.", tr("{value} is not a number")),
)
"""typer's refusals, which have no codes, and our texts with the same values. Patterns are compiled where a
command line is refused, not by each command."""


def mistyped(error: typer.TyperException, words: Sequence[str]) -> str:
    """A message and what to type instead, for a command line that the parser refused."""
    kind, said = type(error).__name__, error.format_message()
    if kind == "NoArgsIsHelpError":
        return said
    message = refusal(said.replace("' / '", ", "))
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "yibu"
    verb = words[0] if words else ""
    option = getattr(error, "option_name", "")
    if path == "yibu" and verb in _OTHER_WORDS and not option:
        meant = repr(_OTHER_WORDS[verb])
        message = tr("No such command {verb}. Did you mean {near}?", verb=repr(verb), near=meant)
    hint = tr("How to use it: {path} --help", path=path)
    if kind == "NoSuchOption" and verb in ENGINE_FLAG_VERBS and not error.possibilities:  # type: ignore[attr-defined]
        at = next((i for i, word in enumerate(words) if word.startswith(option)), 1)
        meant = " ".join(("yibu", *words[:at], "--", words[at]))
        hint = tr("An engine's flags stand after `--`: {meant} …", meant=meant)
    return f"yibu: {message}\n  → {hint}"


def refusal(said: str) -> str:
    """What the parser says of a command line, in the terminal's language."""
    for pattern, text in _REFUSALS:
        if found := re.fullmatch(pattern, said, re.DOTALL):
            values = {name: refusal(value) for name, value in found.groupdict().items()}
            return filled(text, **values)
    return said
