"""What a wrong command line was probably meant to be."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yibu.messages import tr

if TYPE_CHECKING:
    import typer

ENGINE_FLAG_VERBS = frozenset({"up", "serve", "plan"})
"""The verbs after which ``--`` begins flags for the engine."""
_ALIKE = 0.65
"""How much two spellings have in common at least: of 'create' and 'chat', or 'qps' and 'slo', it is 0.6."""
_NO_COMMAND = re.compile(r"No such command '(.+?)'\.(?: Did you mean .+)?", re.DOTALL)


@cache
def typer_texts() -> dict[str, Any]:
    """``typer.toml``, read where help is shown or a command line is refused, and not by each command."""
    return tomllib.loads(Path(__file__).with_name("typer.toml").read_text("utf-8"))


def mistyped(error: typer.TyperException, words: Sequence[str]) -> str:
    """The error and what to type instead, for a command line that the parser refused."""
    kind, context = type(error).__name__, getattr(error, "ctx", None)
    if kind == "NoArgsIsHelpError":
        return error.format_message()
    path = context.command_path if context is not None else " ".join(("yibu", *words[:1]))
    option = getattr(error, "option_name", "")
    message = refusal(error.format_message() if kind != "NoSuchOption" else error.message)
    hint = tr("How to use it: {path} --help", path=path)
    if kind == "NoSuchOption":
        if near := _near(path, option, error.possibilities or ()):  # type: ignore[attr-defined]
            message = tr("No such option: {option}. Did you mean {near}?", option=option, near=near)
        elif words[0] in ENGINE_FLAG_VERBS:
            at = next((i for i, word in enumerate(words) if word.startswith(option)), 1)
            meant = " ".join(("yibu", *words[:at], "--", words[at]))
            hint = tr("An engine's flags stand after `--`: {meant} …", meant=meant)
    elif found := _NO_COMMAND.fullmatch(error.format_message()):
        known = context.command.list_commands(context) if context is not None else ()
        if near := _near(path, found[1], known):
            message = tr(
                "No such command {verb}. Did you mean {near}?", verb=repr(found[1]), near=near
            )
    elif found := re.search(r"extra argument.*?(\S+\.ya?ml)", error.format_message()):
        command = f"{path} -f {found[1].strip('()')}"
        hint = tr("A configuration file stands behind -f: {command}", command=command)
    return f"yibu: {message}\n  → {hint}"


def _near(path: str, word: str, known: Sequence[str]) -> str:
    """What was probably meant by a verb or an option after ``path``."""
    meant: dict[str, dict[str, Sequence[str]]] = typer_texts()["meant"]
    for ours, others in meant.get(path, {}).items():
        if word in others:
            return repr(ours)
    bare = {name.strip("-"): name for name in known}
    near = difflib.get_close_matches(word.strip("-"), bare, cutoff=_ALIKE)
    return ", ".join(repr(bare[name]) for name in near)


def refusal(said: str) -> str:
    """The parser's refusal in the terminal's language."""
    for known in typer_texts()["refusal"]:
        if found := re.fullmatch(known["said"], said, re.DOTALL):
            # An option of two spellings is quoted twice: '-n' / '--lines'.
            values = {
                name: refusal(value.replace("' / '", " / "))
                for name, value in found.groupdict().items()
            }
            return tr(known["text"], **values)
    return said
