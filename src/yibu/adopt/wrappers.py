"""Programs that only run another one: nohup, env, sudo, conda run, tmux …"""

from __future__ import annotations

import os.path
import re
from collections.abc import Mapping

ASSIGNMENT = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*=")
_OPTIONS = {
    "nohup setsid chrt taskset command builtin torchrun tini dumb-init unbuffer": "",
    "catchsegv xvfb-run gosu su-exec": "",
    "exec": "-a",
    "sudo": "-u -g -h -p -C -T --user --group",
    "doas": "-u",
    "nice": "-n --adjustment",
    "ionice": "-c -n -p --class --classdata",
    "stdbuf": "-o -e -i",
    "numactl": "-C --physcpubind -N --cpunodebind -m --membind -i --interleave -p --preferred",
    "time": "-f -o",
    "timeout": "-s --signal -k --kill-after",
    "screen": "-S -c -t -dmS -DmS -Logfile",
    "uvx": "--from --with -p --python --index-url --index",
    "srun": "-n -N -c -p -J -t -w -x -G -A -o -e -D",
    "systemd-run": "-u --unit -p --property -E --setenv",
    "proxychains proxychains4": "-f",
    "nsys": "-o --output -t --trace",
    "flock": "-w --timeout -E",
}
"""Programs that run another, with those of their options that take a value of their own."""
_RUN_OPTIONS = {
    "conda mamba micromamba": "-n --name -p --prefix --cwd",
    "uv": "--with -p --python --project --directory --env-file --extra --group --index --index-url "
    "--default-index --find-links -f",
    "poetry pipenv pdm pixi rye hatch": "-e --environment",
}
"""The same of programs whose ``run`` runs another."""


def _by_program(options: Mapping[str, str]) -> dict[str, frozenset[str]]:
    return {
        program: frozenset(valued.split())
        for programs, valued in options.items()
        for program in programs.split()
    }


_WRAPPERS = _by_program(_OPTIONS)
_RUNNERS = _by_program(_RUN_OPTIONS)
_LEADING = {"taskset": 1, "timeout": 1, "chrt": 1, "gosu": 1, "su-exec": 1, "flock": 1, "nsys": 1}
"""Words of a wrapper's own that stand before the command: processors, seconds, a user, a file."""
_TMUX_VALUES = frozenset({"-s", "-n", "-c", "-t", "-x", "-y", "-e", "-F"})
_KEYS = frozenset({"Enter", "C-m", "KPEnter", "C-j"})
"""Keys that ``tmux send-keys`` presses after a command."""
_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ash"})


def unwrap(words: list[str], env: dict[str, str]) -> tuple[list[str], list[str]]:
    """The command that is really run, and the wrappers before it.

    Args:
        env: Takes what ``env NAME=VALUE`` sets.
    """
    wrappers: list[str] = []
    while words:
        program = os.path.basename(words[0])  # noqa: PTH119 - text of another machine's, no path
        if program == "env":
            words = _after_env(words[1:], env)
            continue
        if program in ("sudo", "doas"):
            words = [words[0], *_after_env(_after_options(words[1:], _WRAPPERS[program]), env)]
        inner = _inner(program, words, env)
        if inner is None:
            break
        wrappers.append(program)
        words = inner
    return words, wrappers


def script_in(words: list[str]) -> int | None:
    """Where in a command the script stands that it runs: ``bash -lc SCRIPT``, ``su - me -c SCRIPT``."""
    for position, word in enumerate(words[1:-1], start=1):
        if word == "--":
            return None
        if word in ("-c", "--command") or (re.fullmatch(r"-[a-z]*c", word) is not None):
            return position + 1
        if not word.startswith("-") and os.path.basename(words[0]) in _SHELLS:  # noqa: PTH119
            return None
    return None


def _inner(program: str, words: list[str], env: dict[str, str]) -> list[str] | None:
    """The command that a wrapper runs; None for any other program."""
    if program == "systemd-run":
        _systemd_env(words, env)
    if program in _WRAPPERS:
        inner = _after_options(words[1:], _WRAPPERS[program])
        inner = inner[_LEADING.get(program, 0) :]
        if program == "screen" and "-X" in words:
            return ["sh", "-c", words[-1]] if "stuff" in words else []
        if program == "torchrun":
            return (
                ["python", *inner]
                if not {"-m", "--module"}.intersection(words)
                else ["python", "-m", *inner]
            )
        if program in ("timeout", "taskset", "nsys", "flock"):
            inner = _after_options(inner, _WRAPPERS[program]) if program != "taskset" else inner
        return inner
    if program in _RUNNERS and words[1:2] == ["run"]:
        return _after_options(words[2:], _RUNNERS[program])
    if program == "tmux":
        return _tmux(words[1:])
    return None


def _tmux(words: list[str]) -> list[str] | None:
    if words[:1] in (["new"], ["new-session"], ["new-window"], ["neww"], ["split-window"]):
        inner = _after_options(words[1:], _TMUX_VALUES)
        return ["sh", "-c", *inner] if len(inner) == 1 else inner  # one word is a script
    if words[:1] in (["send-keys"], ["send"]):
        inner = _after_options(words[1:], _TMUX_VALUES)
        return ["sh", "-c", " ".join(word for word in inner if word not in _KEYS)]
    return None


def _systemd_env(words: list[str], env: dict[str, str]) -> None:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        given = following if word in ("-E", "--setenv") else word.removeprefix("--setenv=")
        if word.startswith(("-E", "--setenv")) and "=" in given:
            name, _, value = given.partition("=")
            env[name] = value


def _after_env(words: list[str], env: dict[str, str]) -> list[str]:
    while words and (ASSIGNMENT.match(words[0]) or words[0].startswith("-")):
        name, equals, value = words[0].partition("=")
        if words[0] in ("-u", "--unset", "-C", "--chdir"):
            words = words[1:]
        elif equals and not name.startswith("-"):
            env[name] = value
        words = words[1:]
    return words


def _after_options(words: list[str], valued: frozenset[str]) -> list[str]:
    """What follows a program's own options, and the ``--`` that may end them."""
    while words and words[0].startswith("-") and words[0] != "--":
        words = words[2 if words[0] in valued else 1 :]
    return words[1:] if words[:1] == ["--"] else words
