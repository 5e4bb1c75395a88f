"""What a wrong command line was probably meant to be."""

from __future__ import annotations

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


@cache
def typer_texts() -> dict[str, Any]:
    """``typer.toml``, read where help is shown or a command line is refused, and not by each command."""
    return tomllib.loads(Path(__file__).with_name("typer.toml").read_text("utf-8"))


def mistyped(error: typer.TyperException, words: Sequence[str]) -> str:
    """The error and what to type instead, for a command line that the parser refused."""
    kind, said = type(error).__name__, error.format_message()
    if kind == "NoArgsIsHelpError":
        return said
    message = refusal(said.replace("' / '", ", "))
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "yibu"
    verb = words[0] if words else ""
    option = getattr(error, "option_name", "")
    others: dict[str, str] = typer_texts()["meant"]
    if path == "yibu" and verb in others and not option:
        meant = repr(others[verb])
        message = tr("No such command {verb}. Did you mean {near}?", verb=repr(verb), near=meant)
    hint = tr("How to use it: {path} --help", path=path)
    if kind == "NoSuchOption" and verb in ENGINE_FLAG_VERBS and not error.possibilities:  # type: ignore[attr-defined]
        at = next((i for i, word in enumerate(words) if word.startswith(option)), 1)
        meant = " ".join(("yibu", *words[:at], "--", words[at]))
        hint = tr("An engine's flags stand after `--`: {meant} …", meant=meant)
    return f"yibu: {message}\n  → {hint}"


def refusal(said: str) -> str:
    """The parser's refusal in the terminal's language."""
    for known in typer_texts()["refusal"]:
        if found := re.fullmatch(known["said"], said, re.DOTALL):
            values = {name: refusal(value) for name, value in found.groupdict().items()}
            return tr(known["text"], **values)
    return said
