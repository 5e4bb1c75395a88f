"""systemd's units: the command of a service, as a script that does the same."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

_SERVICE = re.compile(r"^\[Service\][ \t]*$", re.MULTILINE)
_PREFIXES = "-@:+!|"
"""Of ``ExecStart=``: how failures and rights are treated, no part of the command."""


def is_unit(text: str) -> bool:
    """Whether a text is a unit with a service, and not a script."""
    return _SERVICE.search(text) is not None


def read_unit(text: str) -> tuple[str, list[str]]:
    """The shell commands that do what a service does, and what a reader should know, in words."""
    lines: list[str] = []
    warnings: list[str] = []
    for key, value in _settings(text):
        match key:
            case "WorkingDirectory":
                lines.append(f"cd {shlex.quote(value.lstrip('-'))}")
            case "Environment":
                lines += [
                    f"export {name}={shlex.quote(held)}"
                    for name, _, held in (word.partition("=") for word in _words(value))
                ]
            case "EnvironmentFile":
                warnings.append(
                    f"{value.lstrip('-')}, which the unit takes variables from, was not read: a key"
                    " or a setting may be missing here"
                )
            case "User" if value != "root":
                warnings.append(
                    f"the unit runs it as {value}; yibu runs engines as the user it runs as"
                )
            case "Restart" if value != "no":
                warnings.append(
                    "systemd starts it again when it ends: systemctl disable --now UNIT, before"
                    " yibu serves in its place"
                )
            case "ExecStart" if value:
                lines.append(value.lstrip(_PREFIXES))
    return "\n".join(lines), warnings


def _settings(text: str) -> Iterator[tuple[str, str]]:
    """The service's settings, those first that hold for its commands wherever they stand."""
    section, found = "", []
    for line in map(str.strip, re.sub(r"\\\r?\n", " ", text).splitlines()):
        if line.startswith("["):
            section = line
        elif section == "[Service]" and not line.startswith(("#", ";")) and "=" in line:
            key, _, value = line.partition("=")
            found.append((key.strip(), value.strip()))
    return iter(sorted(found, key=lambda setting: setting[0] == "ExecStart"))


def _words(value: str) -> list[str]:
    try:
        return [word for word in shlex.split(value) if "=" in word]
    except ValueError:  # a quote that nothing closes
        return []
