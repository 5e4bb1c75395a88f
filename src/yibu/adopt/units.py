"""systemd's units and supervisord's programs, as a shell script that does the same."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from yibu.adopt.bash import Gap, UnknownScriptError
from yibu.adopt.marks import any_start
from yibu.messages import tr

_SERVICE = re.compile(r"^\[Service\][ \t]*$", re.MULTILINE)
_PROGRAM = re.compile(r"^\[program:[^\]]+\][ \t]*$", re.MULTILINE)
_EXPANDED = re.compile(r"%\([^)]*\)\w+")
_SUPERVISED = frozenset({"command", "directory", "environment"})
_SPECIFIER = re.compile(r"%([%A-Za-z])")
_USED = re.compile(r"ExecStart=|Environment=|WorkingDirectory=|^\s")
"""Settings that are read here, and the lines that go on with them."""
_PREFIXES = "-@:+!|"
"""Prefixes of ``ExecStart=`` that are no part of the command."""


def is_unit(text: str) -> bool:
    """Whether a text is a unit with a service, or a configuration of supervisord, and not a script."""
    return _SERVICE.search(text) is not None or _PROGRAM.search(text) is not None


def read_unit(text: str, home: str = "") -> tuple[str, list[str]]:
    """The shell commands that do what the services do, on the lines of theirs; and what a reader should
    know, in words.

    Args:
        home: The user's, for the units that their own manager runs.

    Raises:
        UnknownScriptError: what runs it fills in something that is not known here.
    """
    if _SERVICE.search(text) is None:
        return _read_supervisor(text)
    if "default.target" not in text:
        home = "/root"  # of the system's manager, whatever User= says
    settings = [s for s in _settings(_filled(text, home)) if s.section == "Service"]
    before: list[str] = []
    warnings: list[str] = []
    for _, key, value, _line in settings:
        match key:
            case "WorkingDirectory":
                before.append(f"cd {shlex.quote(value.lstrip('-'))}")
            case "Environment":
                before += _exports(_words(value))
            case "EnvironmentFile":
                warnings.append(
                    tr(
                        "{lstrip}, which the unit takes variables from, was not read: a key "
                        "or a setting may be missing here",
                        lstrip=value.lstrip("-"),
                    )
                )
            case "User" if value != "root":
                warnings.append(
                    tr(
                        "the unit runs it as {value}; yibu runs engines as the user it runs as",
                        value=value,
                    )
                )
            case "Restart" if value != "no":
                warnings.append(
                    tr(
                        "systemd starts it again when it ends: systemctl disable --now UNIT, "
                        "before yibu serves in its place"
                    )
                )
    starts = [(s.line, s.value.lstrip(_PREFIXES)) for s in settings if s.key == "ExecStart"]
    return _placed((line, "; ".join((*before, value))) for line, value in starts if value), warnings


def _read_supervisor(text: str) -> tuple[str, list[str]]:
    """The same of supervisord's programs, each with its own folder and variables. It runs no shell: their
    words stay as they are."""
    starts, warnings = [], []
    settings = _settings(text)
    for section in dict.fromkeys(setting.section for setting in settings):
        found = {s.key: s for s in settings if s.section == section}
        if not section.startswith("program:") or (command := found.get("command")) is None:
            continue
        name = section.removeprefix("program:")
        for setting in found.values():
            if setting.key in _SUPERVISED and (gap := _EXPANDED.search(setting.value)):
                raise UnknownScriptError(
                    Gap(setting.line, gap[0]), tr("is filled in by supervisord")
                )
        if (several := found.get("numprocs")) is not None and several.value != "1":
            raise UnknownScriptError(
                Gap(several.line, f"numprocs={several.value}"), tr("starts it several times"),
                tr("Adopt it once, and write replicas: N into its entry."),
            )  # fmt: skip
        value = {key: setting.value.replace("%%", "%") for key, setting in found.items()}
        before = [f"cd {shlex.quote(value['directory'])}"] if "directory" in value else []
        before += _exports(_words(value.get("environment", "").replace(",", " ")))
        words = _words(value["command"], any_word=True)
        starts.append((command.line, "( " + "; ".join((*before, shlex.join(words))) + " )"))
        warnings.append(
            tr(
                "supervisord starts {name} again when it ends: supervisorctl stop {name}, "
                "before yibu serves in its place",
                name=name,
            )
        )
    text = _placed(starts)
    return text, [one for one in warnings if any_start(text)]


def _exports(words: Sequence[str]) -> list[str]:
    pairs = (word.partition("=") for word in words)
    return [f"export {name}={shlex.quote(held)}" for name, _, held in pairs]


def _placed(starts: Iterable[tuple[int, str]]) -> str:
    """A script with each command on its line."""
    lines: list[str] = []
    for number, command in sorted(starts):
        lines += [""] * (number - 1 - len(lines))
        lines.append(command)
    return "\n".join(lines)


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
            Gap(line, found[0]), tr("is filled in by systemd when it starts the unit")
        )

    return _SPECIFIER.sub(fill, text)


class _Setting(NamedTuple):
    section: str
    key: str
    value: str
    line: int


def _settings(text: str) -> list[_Setting]:
    """The settings of an INI file. A value goes on behind a backslash or, of supervisord, on lines that
    are indented."""
    section, found, continued = "", list[_Setting](), False
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if line.startswith(("#", ";")) or (not line and not continued):
            continue
        goes_on, line = line.endswith("\\"), line.removesuffix("\\").rstrip()
        if found and (continued or (raw[:1].isspace() and section.startswith("program:"))):
            last = found.pop()
            found.append(last._replace(value=f"{last.value} {line}"))
        elif line.startswith("["):
            section = line[1:].partition("]")[0].strip()
        elif "=" in line:
            key, _, value = line.partition("=")
            if section.startswith("program:"):
                value = value.partition(" ;")[0]
            found.append(_Setting(section, key.strip(), value.strip(), number))
        continued = goes_on
    return found


def _words(value: str, *, any_word: bool = False) -> list[str]:
    try:
        return [word for word in shlex.split(value) if any_word or "=" in word]
    except ValueError:  # a quote that nothing closes
        return []
