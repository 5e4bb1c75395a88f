"""``[ … ]``, ``[[ … ]]`` and ``test``: true, false, or not known."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tree_sitter import Node

from yibu.adopt.bash import patterns
from yibu.adopt.bash.expand import Expander
from yibu.adopt.bash.state import State
from yibu.adopt.bash.syntax import ScriptSource
from yibu.adopt.bash.values import EMPTY, Files, Gap, Text, resolve

_NUMBERS: Mapping[str, Callable[[int, int], bool]] = {
    "-eq": lambda a, b: a == b,
    "-ne": lambda a, b: a != b,
    "-lt": lambda a, b: a < b,
    "-le": lambda a, b: a <= b,
    "-gt": lambda a, b: a > b,
    "-ge": lambda a, b: a >= b,
}
_STRINGS = frozenset({"=", "==", "!=", "=~", "<", ">"})
_UNKNOWN: bool | None = None
_UNARY = frozenset(f"-{letter}" for letter in "znvefdrwxsLhSpbctaoGONk")
_TREE = frozenset({"unary_expression", "binary_expression", "parenthesized_expression",
                   "negated_command"})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Token:
    """An operand, or an operator as it stands."""

    operator: str = ""
    text: Text = EMPTY
    pattern: Text = EMPTY


class Condition:
    """Reads one condition; ``verdict`` is None where ``gap`` says why it is not known."""

    def __init__(self, tokens: Sequence[Token], gap: Gap, state: State, files: Files) -> None:
        self._tokens = list(tokens)
        self._at = 0
        self._whole = gap
        self._state = state
        self._files = files
        self.gap: Gap | None = None
        self.verdict = self._any()
        if self._at < len(self._tokens):
            self.verdict = self._unknown(gap)

    def _peek(self) -> str:
        return self._tokens[self._at].operator if self._at < len(self._tokens) else ""

    def _next(self) -> Token:
        if self._at >= len(self._tokens):
            return Token(text=Text("", self._whole))
        self._at += 1
        return self._tokens[self._at - 1]

    def _unknown(self, gap: Gap) -> bool | None:
        self.gap = self.gap or gap
        return _UNKNOWN

    def _any(self) -> bool | None:
        found = self._all()
        while self._peek() in ("||", "-o"):
            self._next()
            other = self._all()
            found = True if found or other else None if None in (found, other) else False
        return found

    def _all(self) -> bool | None:
        found = self._one()
        while self._peek() in ("&&", "-a"):
            self._next()
            other = self._one()
            found = False if False in (found, other) else None if None in (found, other) else True
        return found

    def _one(self) -> bool | None:
        sign = self._peek()
        if sign == "!":
            self._next()
            inner = self._one()
            return None if inner is None else not inner
        if sign == "(":
            self._next()
            inner = self._any()
            self._next()
            return inner
        if sign in _UNARY:
            self._next()
            return self._unary(sign, self._next())
        left = self._next()
        if self._peek() in _STRINGS or self._peek() in _NUMBERS:
            sign = self._next().operator
            return self._binary(left, sign, self._next())
        if left.text.unknown is not None:
            return self._unknown(left.text.unknown)
        return bool(left.text.value)

    def _unary(self, sign: str, operand: Token) -> bool | None:
        text = operand.text
        if text.unknown is not None:
            return self._unknown(text.unknown)
        if sign == "-v":
            return text.value in self._state.variables
        if sign in ("-z", "-n"):
            return (not text.value) == (sign == "-z")
        kind = None
        if not self._state.directory.gap:
            kind = self._files.kind(resolve(self._state.directory.value, text.value))
        if kind is None or sign not in ("-e", "-f", "-d", "-r", "-x", "-s"):
            return self._unknown(self._whole)
        if kind == "":
            return False
        if sign in ("-f", "-d"):
            return kind == ("file" if sign == "-f" else "directory")
        return True if sign == "-e" else self._unknown(self._whole)

    def _binary(self, left: Token, sign: str, right: Token) -> bool | None:
        gap = left.text.unknown or right.text.unknown
        if gap is not None:
            return self._unknown(gap)
        a, b = left.text.value, right.text.value
        if sign in _NUMBERS:
            try:
                return _NUMBERS[sign](int(a), int(b))
            except ValueError:
                return self._unknown(self._whole)
        if sign == "=~":
            try:
                return re.search(b, a) is not None
            except re.error:
                return self._unknown(self._whole)
        if sign in ("<", ">"):
            return a < b if sign == "<" else a > b
        return patterns.matches(a, right.pattern.value) == (sign != "!=")


def tokens_of(node: Node, source: ScriptSource, expander: Expander) -> list[Token]:
    """The tokens of a ``test_command``. The grammar's own nesting is not trusted: it binds ``&&``
    tighter than ``=~``."""
    double = node.children[0].type == "[["
    found: list[Token] = []

    def walk(child: Node) -> None:
        text = source.text(child)
        if child.type in _TREE:
            for inner in child.children:
                walk(inner)
        elif child.type in ("test_operator", "!", "(", ")", "&&", "||", *_STRINGS):
            found.append(Token(operator=text, text=Text(text)))
        elif double:
            found.append(Token("", expander.text_of(child), expander.pattern_of(child)))
        else:
            found.extend(plain_tokens(expander.fields(child)))

    for child in node.children[1:-1]:
        walk(child)
    return found


def plain_tokens(fields: Sequence[Text]) -> list[Token]:
    """The arguments of ``test`` and ``[``: patterns are none there."""
    operators = {"!", "(", ")", "-a", "-o", *_STRINGS, *_NUMBERS, *_UNARY}
    return [
        Token(text.value if text.value in operators and text.gap is None else "", text,
              Text(patterns.escape(text.value)))
        for text in fields
    ]  # fmt: skip
