"""What a command line that cannot be read was probably meant to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

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
    message = error.format_message()
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "yibu"
    verb = words[0] if words else ""
    option = getattr(error, "option_name", None)
    if "No such command" in message and path == "yibu" and verb in _OTHER_WORDS:
        message = f"No such command {verb!r}. Did you mean '{_OTHER_WORDS[verb]}'?"
    elif (
        option is not None and verb in ENGINE_FLAG_VERBS and not getattr(error, "possibilities", ())
    ):
        at = next((i for i, word in enumerate(words) if word.startswith(option)), 1)
        meant = " ".join(("yibu", *words[:at], "--", words[at]))
        return f"{message}\n  → An engine's flags stand after `--`: {meant} …"
    return f"{message}\n  → See how it goes with: {path} --help"
