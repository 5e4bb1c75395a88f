"""The commands of a shell script, read and never run.

Enough of the shell's grammar for start scripts: quotes, escapes, continued lines, comments,
variables with defaults, ``export``, ``cd``, pipes and lists, redirections, ``nohup``, ``env`` and
``sh -c``. What would have to be run to be known (``$(…)``, backticks) is left as it stands.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass

from yibu.adopt.wrappers import ASSIGNMENT, unwrap

_MAX_DEPTH = 8
"""Of ``sh -c`` within ``sh -c``."""
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?-([^}]*))?\})")
_KEYWORDS = frozenset(
    ["if", "then", "else", "elif", "fi", "while", "until", "do", "done", "{", "}", "!", "time"]
)
_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ash"})


@dataclass(frozen=True, slots=True)
class Command:
    """One command as it would be started."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    """What the script exported or set for it."""
    directory: str
    """Where a ``cd`` of the script's left it; ``""``: where the script was started."""
    background: bool = False
    output: str | None = None
    """The file its output goes to."""
    wrappers: tuple[str, ...] = ()
    """``nohup``, ``sudo`` and the like that stood before it."""


@dataclass(frozen=True, slots=True)
class _Word:
    parts: tuple[tuple[str, str], ...]
    """Text and how it was quoted: ``'``, ``"`` or ``""``."""


@dataclass(frozen=True, slots=True)
class _Operator:
    text: str


_Token = _Word | _Operator


def read_commands(text: str, env: Mapping[str, str] | None = None) -> list[Command]:
    """The commands of a script or of one command line, in their order.

    Args:
        env: Variables that are set before it starts.
    """
    return list(_Reader(dict(env or {}), "", 0).run(text))


class _Reader:
    def __init__(self, variables: dict[str, str], directory: str, depth: int) -> None:
        self.variables = variables
        self.exported: dict[str, str] = {}
        self.directory = directory
        self.depth = depth

    def run(self, text: str) -> Iterator[Command]:
        words: list[str] = []
        output: str | None = None
        redirecting: str | None = None
        for token in [*_tokens(text), _Operator("\n")]:
            if isinstance(token, _Word):
                expanded = self.expand(token)
                if redirecting is not None and expanded:
                    if redirecting.startswith((">", "&>")):
                        output = expanded[0]
                    redirecting = None
                else:
                    words += expanded
            elif token.text[0] in "<>" or token.text.startswith("&>"):
                redirecting = token.text
            else:
                yield from self.command(words, output, background=token.text == "&")
                words, output, redirecting = [], None, None

    def expand(self, word: _Word) -> list[str]:
        """A word's text; an unquoted variable may hold several words, or none."""
        text, split = "", False
        for part, quote in word.parts:
            value = part if quote == "'" else _VARIABLE.sub(self.value, part)
            split = split or (quote == "" and value != part)
            text += value
        return text.split() if split else [text]

    def value(self, match: re.Match[str]) -> str:
        name = match[1] or match[2]
        return self.variables.get(name) or (match[3] if match[3] is not None else "")

    def command(
        self, words: list[str], output: str | None, *, background: bool
    ) -> Iterator[Command]:
        while words and words[0] in _KEYWORDS:
            words = words[1:]
        own: dict[str, str] = {}
        while words and ASSIGNMENT.match(words[0]):
            name, _, value = words[0].partition("=")
            own[name] = value
            words = words[1:]
        if not words:
            self.variables.update(own)
            self.exported.update({k: v for k, v in own.items() if k in self.exported})
            return
        words, wrappers = unwrap(words, own)
        if not words:
            return
        program = os.path.basename(words[0])  # noqa: PTH119 - text of another machine's, no path of ours
        if program in ("export", "declare", "typeset"):
            self.export(words[1:])
        elif program == "cd" and len(words) > 1:
            self.directory = os.path.normpath(os.path.join(self.directory, words[1]))  # noqa: PTH118
        elif program in _SHELLS and (script := _dash_c(words)) is not None:
            if self.depth < _MAX_DEPTH:
                inner = _Reader({**self.variables, **own}, self.directory, self.depth + 1)
                inner.exported = {**self.exported, **own}
                for command in inner.run(script):
                    yield Command(
                        command.argv,
                        command.env,
                        command.directory,
                        background or command.background,
                        command.output or output,
                        (*wrappers, *command.wrappers),
                    )
        else:
            env = {**self.exported, **own}
            yield Command(tuple(words), env, self.directory, background, output, tuple(wrappers))

    def export(self, words: list[str]) -> None:
        for word in words:
            name, equals, value = word.partition("=")
            if equals:
                self.variables[name] = value
            if name in self.variables:
                self.exported[name] = self.variables[name]


def _dash_c(words: list[str]) -> str | None:
    """The script of ``sh -c SCRIPT`` (or ``bash -lc SCRIPT``)."""
    for position, word in enumerate(words[1:-1], start=1):
        if word.startswith("-") and word.endswith("c"):
            return words[position + 1]
    return None


# ---------------------------------------------------------------------------- tokens

_SPACE = " \t\r"
_OPERATORS = (
    "&&",
    "||",
    ";;",
    "&>>",
    "&>",
    ">>",
    ">&",
    "<<-",
    "<<",
    "<&",
    ">",
    "<",
    "&",
    "|",
    ";",
    "(",
    ")",
    "\n",
)


def _tokens(text: str) -> Iterator[_Token]:
    text = text.replace("\\\r\n", "").replace("\\\n", "")
    parts: list[tuple[str, str]] = []
    heredocs: list[str] = []
    at, expecting = 0, False
    while at < len(text):
        char = text[at]
        operator = next((op for op in _OPERATORS if text.startswith(op, at)), None)
        if char == "#" and not parts:
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
        elif char in _SPACE or operator:
            if operator and operator[0] in "<>" and _is_descriptor(parts):
                parts = []  # the 2 of 2>&1
            if parts:
                if expecting:
                    heredocs.append("".join(part for part, _ in parts))
                    expecting = False
                else:
                    yield _Word(tuple(parts))
                parts = []
            if operator:
                at = yield from _operator(text, at, operator)
                expecting = operator.startswith("<<")
                if operator == "\n" and heredocs:
                    at, heredocs = _skip_heredocs(text, at, heredocs), []
            else:
                at += 1
        else:
            part, quote, at = _part(text, at)
            parts.append((part, quote))
    if parts:
        yield _Word(tuple(parts))


def _is_descriptor(parts: list[tuple[str, str]]) -> bool:
    return len(parts) == 1 and parts[0][1] == "" and parts[0][0].isdigit()


def _operator(text: str, at: int, operator: str) -> Generator[_Token, None, int]:
    """Yield an operator (``>&1`` joins two descriptors and needs no word); return where it ends."""
    at += len(operator)
    if operator in (">&", "<&"):
        while at < len(text) and (text[at].isdigit() or text[at] == "-"):
            at += 1
    elif not operator.startswith("<<"):
        yield _Operator(operator)
    return at


def _part(text: str, at: int) -> tuple[str, str, int]:
    """One stretch of a word: its text, how it is quoted, and where it ends."""
    char = text[at]
    if char == "'":
        end = text.find("'", at + 1)
        end = len(text) if end < 0 else end
        return text[at + 1 : end], "'", end + 1
    if char == '"':
        inside = ""
        at += 1
        while at < len(text) and text[at] != '"':
            if text[at] == "\\" and at + 1 < len(text) and text[at + 1] in '"\\$`':
                at += 1
            inside += text[at]
            at += 1
        return inside, '"', at + 1
    if char == "\\" and at + 1 < len(text):
        return text[at + 1], "'", at + 2
    end = at + 1
    while end < len(text) and text[end] not in "'\"\\ \t\r\n;&|<>()":
        end += 1
    return text[at:end], "", end


def _skip_heredocs(text: str, at: int, delimiters: list[str]) -> int:
    for delimiter in delimiters:
        while at < len(text):
            end = text.find("\n", at)
            line, at = (text[at:], len(text)) if end < 0 else (text[at:end], end + 1)
            if line.strip() == delimiter:
                break
    return at
