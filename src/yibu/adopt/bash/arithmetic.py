"""``$((…))``: the shell's integer arithmetic over known numbers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Protocol

from tree_sitter import Node

from yibu.adopt.bash.syntax import ScriptSource, named
from yibu.adopt.bash.values import Gap, Text

_BINARY: Mapping[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "**": lambda a, b: a**b if 0 <= b <= 64 else 0,
    "/": lambda a, b: int(a / b),  # towards zero
    "%": lambda a, b: a - b * int(a / b),
    "<<": lambda a, b: a << b if 0 <= b < 64 else 0,
    ">>": lambda a, b: a >> b if 0 <= b < 64 else 0,
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
    "<": lambda a, b: int(a < b),
    "<=": lambda a, b: int(a <= b),
    ">": lambda a, b: int(a > b),
    ">=": lambda a, b: int(a >= b),
    "==": lambda a, b: int(a == b),
    "!=": lambda a, b: int(a != b),
    "&&": lambda a, b: int(bool(a and b)),
    "||": lambda a, b: int(bool(a or b)),
}
_UNARY: Mapping[str, Callable[[int], int]] = {
    "-": operator.neg,
    "+": operator.pos,
    "!": lambda a: int(not a),
    "~": operator.invert,
}


class Unknown(Exception):  # noqa: N818 - no fault: an answer that is not known
    """The value has a gap."""

    def __init__(self, gap: Gap) -> None:
        super().__init__(gap.construct)
        self.gap = gap


class Variables(Protocol):
    """What arithmetic asks of the shell."""

    def lookup(self, name: str) -> Text | None: ...
    def assign(self, name: str, value: Text) -> None: ...
    def text_of(self, node: Node) -> Text:
        """An expansion's value."""
        ...


class Arithmetic:
    """Evaluates the expressions of one source."""

    def __init__(self, source: ScriptSource, variables: Variables) -> None:
        self._source = source
        self._variables = variables

    def value(self, node: Node) -> int:
        """The number.

        Raises:
            Unknown: something in it is not known.
        """
        kind = node.type
        if kind in ("arithmetic_expansion", "parenthesized_expression", "compound_statement"):
            values = [self.value(child) for child in named(node)]
            return values[-1] if values else 0
        if kind in ("number", "word", "variable_name"):
            return self._name_or_number(node)
        if kind in ("simple_expansion", "expansion", "string", "command_substitution"):
            return self._number(self._variables.text_of(node), node)
        if kind == "binary_expression":
            return self._binary(node)
        if kind == "unary_expression":
            sign = self._source.text(node.children[0])
            if sign in _UNARY:
                return _UNARY[sign](self.value(node.children[-1]))
        if kind in ("postfix_expression", "prefix_expression"):
            return self._step(node, before=kind == "prefix_expression")
        if kind == "ternary_expression":
            test, yes, no = named(node)
            return self.value(yes) if self.value(test) else self.value(no)
        if kind == "variable_assignment":
            return self._assigned(node)
        raise Unknown(self._source.gap(node))

    def _name_or_number(self, node: Node) -> int:
        text = self._source.text(node)
        if not text[:1].isalpha() and text[:1] != "_":
            return self._number(Text(text), node)
        return self._number(self._variables.lookup(text) or Text("0"), node)

    def _number(self, text: Text, node: Node) -> int:
        if text.gap is not None:
            raise Unknown(text.gap)
        word = text.value.strip() or "0"
        try:
            octal = len(word) > 1 and word.startswith("0") and word.isdigit()
            return int(word, 8 if octal else 0)
        except ValueError:
            raise Unknown(self._source.gap(node)) from None

    def _binary(self, node: Node) -> int:
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        sign = node.child_by_field_name("operator")
        assert left is not None
        assert right is not None
        assert sign is not None
        name = self._source.text(sign)
        if name in _BINARY:
            a, b = self.value(left), self.value(right)
            if name in ("/", "%") and b == 0:
                raise Unknown(self._source.gap(node))
            return _BINARY[name](a, b)
        if name == "=" or (name.endswith("=") and name[:-1] in _BINARY):
            b = self.value(right)
            value = b if name == "=" else _BINARY[name[:-1]](self.value(left), b)
            self._variables.assign(self._source.text(left), Text(str(value)))
            return value
        raise Unknown(self._source.gap(node))

    def _assigned(self, node: Node) -> int:
        name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        if name is None or value is None:
            raise Unknown(self._source.gap(node))
        number = self.value(value)
        if self._source.text(node.children[1]) == "+=":
            number += self._name_or_number(name)
        self._variables.assign(self._source.text(name), Text(str(number)))
        return number

    def _step(self, node: Node, *, before: bool) -> int:
        inner = named(node)
        name = next((c for c in inner if c.type in ("word", "variable_name")), None)
        if name is None:
            raise Unknown(self._source.gap(node))
        old = self._name_or_number(name)
        new = old + (1 if "++" in self._source.text(node) else -1)
        self._variables.assign(self._source.text(name), Text(str(new)))
        return new if before else old
