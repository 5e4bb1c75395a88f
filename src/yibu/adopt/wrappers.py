"""Programs of a command line that only run another one: nohup, env, sudo, conda run, tmux …"""

from __future__ import annotations

import os.path
import re
from collections.abc import Mapping

ASSIGNMENT = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*=")
# Programs that run another, with those of their options that take a value of their own.
_WRAPPERS: Mapping[str, frozenset[str]] = {
    "nohup": frozenset(),
    "exec": frozenset({"-a"}),
    "setsid": frozenset(),
    "sudo": frozenset({"-u", "-g"}),
    "nice": frozenset({"-n"}),
    "ionice": frozenset({"-c", "-n"}),
    "stdbuf": frozenset({"-o", "-e", "-i"}),
    "taskset": frozenset(),
    "numactl": frozenset(),
    "command": frozenset(),
    "timeout": frozenset({"-s", "--signal", "-k", "--kill-after"}),
    "screen": frozenset({"-S", "-c", "-t", "-dmS", "-DmS"}),
}
# Programs whose ``run`` runs another, with those of their options that take a value.
_RUNNERS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(
        ("conda", "mamba", "micromamba"), frozenset({"-n", "--name", "-p", "--prefix", "--cwd"})
    ),
    "uv": frozenset(
        ["--with", "-p", "--python", "--project", "--directory", "--env-file", "--extra", "--group",
         "--index", "--index-url", "--default-index", "--find-links", "-f"]
    ),
    **dict.fromkeys(("poetry", "pipenv", "pdm", "pixi", "rye"), frozenset({"-e", "--environment"})),
}  # fmt: skip
_TMUX_VALUES = frozenset({"-s", "-n", "-c", "-t", "-x", "-y", "-e"})


def unwrap(words: list[str], env: dict[str, str]) -> tuple[list[str], list[str]]:
    """What is really run, and the programs that stood before it.

    Args:
        env: Takes what ``env NAME=VALUE`` sets.
    """
    wrappers: list[str] = []
    while words:
        program = os.path.basename(words[0])  # noqa: PTH119 - text of another machine's, no path
        if program == "env":
            words = _after_env(words[1:], env)
            continue
        inner = _inner(program, words)
        if inner is None:
            break
        wrappers.append(program)
        words = inner
    return words, wrappers


def _inner(program: str, words: list[str]) -> list[str] | None:
    """The command that a wrapper runs; None for any other program."""
    if program in _WRAPPERS:
        inner = _after_options(words[1:], _WRAPPERS[program])
        # taskset's processors, timeout's seconds
        return inner[1:] if program in ("taskset", "timeout") else inner
    if program in _RUNNERS and words[1:2] == ["run"]:
        return _after_options(words[2:], _RUNNERS[program])
    if program == "tmux" and words[1:2] in (["new"], ["new-session"], ["new-window"]):
        inner = _after_options(words[2:], _TMUX_VALUES)
        return ["sh", "-c", *inner] if len(inner) == 1 else inner  # one word is a script
    return None


def _after_env(words: list[str], env: dict[str, str]) -> list[str]:
    while words and (ASSIGNMENT.match(words[0]) or words[0].startswith("-")):
        name, equals, value = words[0].partition("=")
        if equals and not name.startswith("-"):
            env[name] = value
        words = words[1:]
    return words


def _after_options(words: list[str], valued: frozenset[str]) -> list[str]:
    """What follows a program's own options, and the ``--`` that may end them."""
    while words and words[0].startswith("-") and words[0] != "--":
        words = words[2 if words[0] in valued else 1 :]
    return words[1:] if words[:1] == ["--"] else words
