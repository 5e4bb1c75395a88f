"""What a command line that cannot be read was probably meant to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from yibu.cli.help_text import refusal
from yibu.messages import tr

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


def mistyped(error: typer.TyperException, words: Sequence[str]) -> str:
    """A message and what to type instead, for a command line that the parser refused."""
    message = refusal(error)
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "yibu"
    verb = words[0] if words else ""
    option = getattr(error, "option_name", None)
    if path == "yibu" and verb in _OTHER_WORDS and option is None:
        message = tr(
            "No such command {verb!r}. Did you mean '{OTHER_WORDS}'?",
            verb=verb,
            OTHER_WORDS=_OTHER_WORDS[verb],
        )
    elif (
        option is not None and verb in ENGINE_FLAG_VERBS and not getattr(error, "possibilities", ())
    ):
        at = next((i for i, word in enumerate(words) if word.startswith(option)), 1)
        meant = " ".join(("yibu", *words[:at], "--", words[at]))
        return tr(
            "{message}\n  → An engine's flags stand after `--`: {meant} …",
            message=message,
            meant=meant,
        )
    return tr("{message}\n  → See how it goes with: {path} --help", message=message, path=path)
