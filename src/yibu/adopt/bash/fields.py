"""Pieces of a word, and splitting them into fields."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from yibu.adopt.bash.state import State
from yibu.adopt.bash.values import EMPTY, Gap, Text

_ANSI = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "e": "\x1b", "f": "\f", "v": "\v",
         "\\": "\\", "'": "'", '"': '"', "?": "?"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class WordPiece:
    """A stretch of a word. ``literal`` and ``expanded`` text stands outside of quotes: patterns mean
    something there, and what was expanded is split. A ``break`` parts two fields; ``nothing`` is
    an empty list."""

    text: Text
    kind: Literal["literal", "quoted", "expanded", "break", "nothing"]


def literal(source: str) -> Iterator[WordPiece]:
    """Unquoted text, without its backslashes."""
    for part in re.split(r"(\\(?:.|\n))", source, flags=re.DOTALL):
        if part.startswith("\\") and len(part) == 2:
            if part[1] != "\n":
                yield WordPiece(Text(part[1]), "quoted")
        elif part:
            yield WordPiece(Text(part), "literal")


def unescaped(text: str) -> str:
    """Text between double quotes."""
    return re.sub(r'\\([$`"\\\n])', lambda m: "" if m[1] == "\n" else m[1], text)


def ansi(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        code = match[1]
        if code[0] in "xuU":
            return chr(int(code[1:], 16))
        return chr(int(code, 8)) if code[0].isdigit() else _ANSI.get(code, "\\" + code)

    return re.sub(r"\\(x[0-9a-fA-F]{1,2}|u[0-9a-fA-F]{1,4}|[0-7]{1,3}|.)", one, text,
                  flags=re.DOTALL)  # fmt: skip


def has_braces(pieces: list[WordPiece]) -> bool:
    """Whether the word is one that bash would multiply: ``{a,b}``, and unquoted JSON too."""
    bare = "".join(p.text.value if p.kind == "literal" else "\0" for p in pieces)
    return re.search(r"\{[^{}]*(,|\w\.\.\w)[^{}]*\}", bare) is not None


def with_tilde(pieces: list[WordPiece], state: State, *, assigned: bool = False) -> list[WordPiece]:
    if not pieces or pieces[0].kind != "literal":
        return pieces
    word = pieces[0].text.value
    match = re.match(r"(\w+=)?~(?=/|$)", word)
    if match is None or (match[1] and not assigned and not word[0].isalpha()):
        return pieces
    home = state.get("HOME")
    if home is None or (len(pieces) > 1 and match.end() == len(word)):
        return pieces
    opening = WordPiece(Text(match[1] or ""), "literal")
    rest = WordPiece(Text(word[match.end() :]), "literal")
    return [opening, WordPiece(home, "quoted"), rest, *pieces[1:]]


def split(pieces: list[WordPiece], gap: Gap) -> list[Text]:
    """The fields. A pattern in one that only the files here could answer is a gap."""
    fields = _Fields(gap)
    for piece in pieces:
        value = piece.text.value
        if piece.kind in ("literal", "expanded"):
            fields.globbed = fields.globbed or re.search(r"[*?]|\[[^]]+\]", value) is not None
        if piece.kind == "break":
            fields.end()
        elif piece.kind == "expanded" and piece.text.gap is None:
            fields.add_split(value)
        elif piece.kind != "nothing" and (value or piece.kind != "literal"):
            fields.add(piece.text)
    fields.end()
    return fields.found


class _Fields:
    """Collects fields; the current one is None until something belongs to it."""

    def __init__(self, gap: Gap) -> None:
        self.found: list[Text] = []
        self.globbed = False
        self._gap = gap
        self._current: Text | None = None

    def add(self, text: Text) -> None:
        self._current = (self._current or EMPTY) + text

    def add_split(self, value: str) -> None:
        """Add the result of an unquoted expansion: spaces split fields."""
        if value[:1].isspace():
            self.end(keep=True)
        for number, word in enumerate(value.split()):
            if number:
                self.end(keep=True)
            self.add(Text(word))
        if value.strip() and value[-1:].isspace():
            self.end(keep=True)

    def end(self, *, keep: bool = False) -> None:
        """``keep`` what is known of patterns: the piece goes on."""
        if self._current is not None:
            gap = self._current.gap or (self._gap if self.globbed else None)
            self.found.append(Text(self._current.value, gap))
        self._current = None
        self.globbed = self.globbed and keep
