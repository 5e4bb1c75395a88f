"""Words to the fields that a command gets: quoting, expansions, splitting.

Bash's manual, «Shell Expansions», is the source. Where the order matters (braces before variables,
splitting after them) it is kept; names of files are never looked up, so that a pattern that would is
a gap.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from tree_sitter import Node

from yibu.adopt.bash import patterns
from yibu.adopt.bash.arithmetic import Arithmetic, Unknown
from yibu.adopt.bash.fields import (
    WordPiece,
    ansi,
    has_braces,
    literal,
    split,
    unescaped,
    with_tilde,
)
from yibu.adopt.bash.state import State
from yibu.adopt.bash.syntax import ScriptSource, named
from yibu.adopt.bash.values import Text, join

_DYNAMIC = frozenset({"RANDOM", "SECONDS", "EPOCHSECONDS", "BASHPID", "PPID", "UID", "EUID",
                      "HOSTNAME", "LINENO", "OSTYPE", "HOSTTYPE", "MACHTYPE"})  # fmt: skip
_MAX_RANGE = 10_000


_READERS: Mapping[str, str] = {
    **dict.fromkeys(
        ["word", "number", "extglob_pattern", "regex", "variable_name", "test_operator",
         "special_variable_name"],
        "word",
    ),
    "raw_string": "raw",
    "ansi_c_string": "ansi",
    "string": "string",
    "translated_string": "string",
    "concatenation": "concatenation",
    "command_name": "concatenation",
    "simple_expansion": "unquoted",
    "expansion": "unquoted",
    "arithmetic_expansion": "arithmetic",
    "command_substitution": "command",
    "brace_expression": "range",
    "$": "dollar",
    "comment": "dollar",
}  # fmt: skip
"""The method of ``Expander`` for each type of node."""


class Expander:
    """Expands the words of one source against a state."""

    def __init__(
        self, source: ScriptSource, state: State, substitute: Callable[[ScriptSource, Node], Text]
    ) -> None:
        """``substitute`` returns the output of a command substitution, as far as it is known."""
        self._source = source
        self._state = state
        self._substitute = substitute

    # What others ask for ------------------------------------------------------------------

    def fields(self, node: Node) -> list[Text]:
        """The fields that a word becomes; none for an empty expansion."""
        pieces = list(self._pieces(node))
        if has_braces(pieces):
            return [Text(join(p.text for p in pieces).value, self._source.gap(node))]
        pieces = with_tilde(pieces, self._state)
        return list(split(pieces, self._source.gap(node)))

    def text_of(self, node: Node) -> Text:
        """A word as one string: nothing is split, as in an assignment or a quoted word."""
        pieces = with_tilde(list(self._pieces(node)), self._state, assigned=True)
        return join(
            Text(" ") if piece.kind == "break" else piece.text
            for piece in pieces
            if piece.kind != "nothing"
        )

    def pattern_of(self, node: Node) -> Text:
        """A word as a pattern: what is quoted in it matches itself."""
        return join(
            Text(patterns.escape(piece.text.value), piece.text.gap)
            if piece.kind == "quoted"
            else piece.text
            for piece in self._pieces(node)
        )

    def array_of(self, node: Node) -> dict[str, Text]:
        """``(a b)`` or ``([x]=1 [y]=2)``."""
        found: dict[str, Text] = {}
        for child in named(node):
            for field in self.fields(child):
                match = re.match(r"\[([^]]*)\]=(.*)", field.value, re.DOTALL)
                if match and self._source.text(child).startswith("["):
                    found[match[1]] = Text(match[2], field.gap)
                else:
                    found[str(len(found))] = field
        return found

    def lookup(self, name: str) -> Text | None:
        return self._state.get(name)

    def assign(self, name: str, value: Text) -> None:
        self._state.set(name, value)

    def number(self, node: Node) -> Text:
        """An arithmetic expression's value."""
        try:
            return Text(str(Arithmetic(self._source, self).value(node)))
        except Unknown as unknown:
            return Text("", unknown.gap)

    # Nodes --------------------------------------------------------------------------------

    def _pieces(self, node: Node) -> Iterator[WordPiece]:
        reader = _READERS.get(node.type)
        if reader is None:
            yield WordPiece(Text(self._source.text(node), self._source.gap(node)), "quoted")
        else:
            yield from getattr(self, "read_" + reader)(node)

    def read_word(self, node: Node) -> Iterator[WordPiece]:
        yield from literal(self._source.text(node))

    def read_raw(self, node: Node) -> Iterator[WordPiece]:
        yield WordPiece(Text(self._source.text(node)[1:-1]), "quoted")

    def read_ansi(self, node: Node) -> Iterator[WordPiece]:
        yield WordPiece(Text(ansi(self._source.text(node)[2:-1])), "quoted")

    def read_dollar(self, node: Node) -> Iterator[WordPiece]:
        yield WordPiece(Text(self._source.text(node)), "quoted")

    def read_concatenation(self, node: Node) -> Iterator[WordPiece]:
        end = node.start_byte
        for child in node.children:
            if child.start_byte > end:  # the grammar leaves out a ``$`` that names nothing
                yield from literal(self._source.data[end : child.start_byte].decode())
            yield from self._pieces(child)
            end = child.end_byte

    def read_unquoted(self, node: Node) -> Iterator[WordPiece]:
        yield from self._expansion(node, quoted=False)

    def read_arithmetic(self, node: Node) -> Iterator[WordPiece]:
        yield WordPiece(self.number(node), "expanded")

    def read_command(self, node: Node) -> Iterator[WordPiece]:
        yield WordPiece(self._substitute(self._source, node), "expanded")

    def read_string(self, node: Node) -> Iterator[WordPiece]:
        """``"…"``: one field even when it is empty, unless nothing but an empty ``"$@"`` is in it."""
        pieces = list(self._in_string(node))
        if any(piece.kind == "nothing" for piece in pieces):
            pieces = [piece for piece in pieces if piece.text.value or piece.text.gap] or [
                WordPiece(Text(""), "nothing")
            ]
        yield from pieces

    def _in_string(self, node: Node) -> Iterator[WordPiece]:
        end = node.start_byte + (1 if node.type == "string" else 2)
        yield WordPiece(Text(""), "quoted")
        for child in node.children[1:-1]:
            yield self._between(end, child.start_byte)
            end = child.end_byte
            if child.type == "string_content":
                yield WordPiece(Text(unescaped(self._source.text(child))), "quoted")
            elif child.type in ("simple_expansion", "expansion"):
                yield from self._expansion(child, quoted=True)
            else:
                for piece in self._pieces(child):
                    yield WordPiece(piece.text, "quoted")
        yield self._between(end, node.end_byte - 1)

    def _between(self, start: int, end: int) -> WordPiece:
        text = self._source.data[start:end].decode("utf-8", "replace") if end > start else ""
        return WordPiece(Text(unescaped(text)), "quoted")

    def read_range(self, node: Node) -> Iterator[WordPiece]:
        numbers = [self._source.text(child) for child in named(node)]
        try:
            first, last = int(numbers[0]), int(numbers[1])
        except (ValueError, IndexError):
            first, last = 0, _MAX_RANGE
        if len(numbers) != 2 or abs(last - first) >= _MAX_RANGE:
            yield WordPiece(Text("", self._source.gap(node)), "quoted")
            return
        width = max(map(len, numbers)) if any(_padded(n) for n in numbers) else 0
        step = 1 if last >= first else -1
        for count, number in enumerate(range(first, last + step, step)):
            if count:
                yield WordPiece(Text(""), "break")
            yield WordPiece(Text(f"{number:0{width}d}"), "quoted")

    # Expansions ---------------------------------------------------------------------------

    def _expansion(self, node: Node, *, quoted: bool) -> Iterator[WordPiece]:
        kind: Literal["quoted", "expanded"] = "quoted" if quoted else "expanded"
        children = [c for c in node.children if c.type not in ("${", "}", "$")]
        if children and children[0].type == "subscript" and len(children) == 1:
            subscript = children[0]
            index = self._source.text(subscript.children[2])
            if index in ("@", "*"):
                name = self._source.text(subscript.children[0])
                yield from self._list(self._state.items(name), index, kind, name, node)
                return
        if len(children) == 1 and self._source.text(children[0]) in ("@", "*"):
            index = self._source.text(children[0])
            yield from self._list(self._state.arguments, index, kind, "@", node)
            return
        for text in self._expanded(node, children):
            yield WordPiece(text, kind)

    def _list(
        self, items: list[Text], index: str, kind: Literal["quoted", "expanded"], name: str,
        node: Node,
    ) -> Iterator[WordPiece]:  # fmt: skip
        if name not in ("@", "*") and name not in self._state.variables:
            yield WordPiece(Text("", self._source.gap(node, unset=name)), kind)
        elif not items:
            yield WordPiece(Text(""), "nothing")
        elif index == "*" and kind == "quoted":
            yield WordPiece(join(items, " "), kind)
        else:
            for number, item in enumerate(items):
                if number:
                    yield WordPiece(Text(""), "break")
                yield WordPiece(item, kind)

    def _expanded(self, node: Node, children: list[Node]) -> Iterator[Text]:
        texts = [self._source.text(child) for child in children]
        if not children:
            yield Text("", self._source.gap(node))
        elif texts[0] == "#" and len(children) > 1:
            yield self._length(children[1], node)
        elif texts[0] == "!" and len(children) == 2:
            pointed = self._value(children[1])
            unknown = pointed is None or pointed.gap
            value = None if unknown or pointed is None else self._state.get(pointed.value)
            yield value if value is not None else Text("", self._source.gap(node))
        else:
            value = self._value(children[0])
            if len(children) == 1:
                yield value if value is not None else self._unset(children[0], node)
            else:
                yield self._operated(node, children, value)

    def _unset(self, name: Node, node: Node) -> Text:
        text = self._source.text(name)
        dynamic = text in _DYNAMIC or not re.fullmatch(r"\w+", text)
        return Text("", self._source.gap(node, unset="" if dynamic else text))

    def _value(self, name: Node) -> Text | None:
        if name.type != "subscript":
            text = self._source.text(name)
            return Text(str(len(self._state.arguments))) if text == "#" else self._state.get(text)
        index = self._index(name.children[2])
        if index.gap:
            return Text("", index.gap)
        value = self._state.variables.get(self._source.text(name.children[0]))
        if isinstance(value, dict):
            if index.value.startswith("-") and index.value[1:].isdigit():
                items = list(value.values())
                return items[int(index.value)] if int(index.value[1:]) <= len(items) else None
            return value.get(index.value)
        return value if index.value == "0" else None

    def _index(self, node: Node) -> Text:
        text = self.text_of(node)
        if node.type == "word" and text.value.isidentifier():
            known = self._state.get(text.value)
            return known if known is not None and known.value.isdigit() else text
        return self.number(node) if node.type.endswith("_expression") else text

    def _length(self, name: Node, node: Node) -> Text:
        if name.type == "subscript" and self._source.text(name.children[2]) in ("@", "*"):
            items = self._state.items(self._source.text(name.children[0]))
            gap = next((item.unknown for item in items if item.unknown), None)
            return Text(str(len(items)), gap)
        value = self._value(name)
        return self._unset(name, node) if value is None else Text(str(len(value.value)), value.gap)

    def _operated(self, node: Node, children: list[Node], value: Text | None) -> Text:
        sign, rest = self._source.text(children[1]), children[2:]
        empty = value is None or (not value.value and value.unknown is None)
        if sign in (":-", "-", ":=", "=", ":+", "+", ":?", "?"):
            missing = empty if sign[0] == ":" else value is None
            if sign[-1] == "+":
                return Text("") if missing else self._rest(rest)
            if not missing:
                assert value is not None
                return value
            if sign[-1] == "?":
                return self._unset(children[0], node)
            default = self._rest(rest)
            if sign[-1] == "=":
                self._state.set(self._source.text(children[0]), default)
            return default
        if value is None:
            return self._unset(children[0], node)
        if value.unknown is not None:
            return value
        return self._altered(node, value, sign, rest)

    def _altered(self, node: Node, value: Text, sign: str, rest: list[Node]) -> Text:
        if sign in ("#", "##", "%", "%%"):
            pattern = join(map(self.pattern_of, rest))
            return Text(patterns.without(value.value, pattern.value, sign), pattern.gap)
        if sign in ("/", "//", "/#", "/%"):
            middle = next((i for i, c in enumerate(rest) if self._source.text(c) == "/"), len(rest))
            pattern = join(map(self.pattern_of, rest[:middle]))
            new = join(map(self.text_of, rest[middle + 1 :]))
            changed = patterns.replaced(value.value, pattern.value, new.value, sign)
            return Text(changed, pattern.gap or new.gap)
        if sign in ("^^", ",,", "^", ",") and not rest:
            return Text(_cased(value.value, sign))
        if sign == ":":
            return self._slice(value.value, rest, node)
        return Text("", self._source.gap(node))

    def _slice(self, text: str, rest: list[Node], node: Node) -> Text:
        bounds = [self.number(child) for child in rest if self._source.text(child) != ":"]
        gap = next((bound.gap for bound in bounds if bound.gap), None)
        if gap or not 1 <= len(bounds) <= 2:
            return Text("", gap or self._source.gap(node))
        start = int(bounds[0].value)
        start = max(0, len(text) + start) if start < 0 else start
        if len(bounds) == 1:
            return Text(text[start:])
        length = int(bounds[1].value)
        return Text(text[start : start + length] if length >= 0 else text[start:length])

    def _rest(self, nodes: list[Node]) -> Text:
        return join(map(self.text_of, nodes))


def _cased(text: str, sign: str) -> str:
    if sign == "^^":
        return text.upper()
    if sign == ",,":
        return text.lower()
    first = text[:1].upper() if sign == "^" else text[:1].lower()
    return first + text[1:]


def _padded(number: str) -> bool:
    digits = number.lstrip("-")
    return len(digits) > 1 and digits.startswith("0")
