"""systemd's units: the command of a service, as a script that does the same."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from yibu.adopt.bash import Gap, UnknownScriptError

_SERVICE = re.compile(r"^\[Service\][ \t]*$", re.MULTILINE)
_SPECIFIER = re.compile(r"%([%A-Za-z])")
_USED = re.compile(r"ExecStart=|Environment=|WorkingDirectory=|^\s")
"""Settings that are read here, and the lines that go on with them."""
_PREFIXES = "-@:+!|"
"""Of ``ExecStart=``: how failures and rights are treated, no part of the command."""


def is_unit(text: str) -> bool:
    """Whether a text is a unit with a service, and not a script."""
    return _SERVICE.search(text) is not None


def read_unit(text: str, home: str = "") -> tuple[str, list[str]]:
    """The shell commands that do what a service does, and what a reader should know, in words.

    Args:
        home: The user's, for the units that their own manager runs.

    Raises:
        UnknownScriptError: systemd fills in something that is not known here.
    """
    if "default.target" not in text:
        home = "/root"  # of the system's manager, whatever User= says
    text = _filled(text, home)
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


def _filled(text: str, home: str) -> str:
    """The text with systemd's specifiers filled in: ``%h`` is the home of the manager's user.

    Raises:
        UnknownScriptError: one that depends on the instance or the machine.
    """

    def fill(found: re.Match[str]) -> str:
        if found[1] == "%":
            return "%"
        if found[1] == "h" and home:
            return home
        if _USED.search(text, text.rfind("\n", 0, found.start()) + 1, found.start()) is None:
            return found[0]
        line = text.count("\n", 0, found.start()) + 1
        raise UnknownScriptError(
            Gap(line, found[0]), "is filled in by systemd when it starts the unit"
        )

    return _SPECIFIER.sub(fill, text)


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
