"""Lists, branches and loops: which statements bash reaches, and how often."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tree_sitter import Node

from yibu.adopt.bash import patterns
from yibu.adopt.bash.arithmetic import Arithmetic, Unknown
from yibu.adopt.bash.values import Gap, Leave, Text, UnknownScriptError
from yibu.messages import tr

if TYPE_CHECKING:
    from yibu.adopt.bash.interpreter import Interpreter, Status

_MAX_ITERATIONS = 512
"""Iterations of a loop; a start script has as many servers as a machine has cards."""


class Flow:
    """Control flow of an interpreter."""

    def __init__(self, shell: Interpreter) -> None:
        self._shell = shell

    def on_list(self, node: Node) -> Status:
        left, sign, right = node.children[0], node.children[1], node.children[-1]
        status = self._shell.statement(left)
        wanted = sign.type == "&&"
        if isinstance(status, Gap):
            # What is run for its effect (mkdir, sleep, docker pull) is taken to have worked.
            if wanted and left.type in ("command", "list", "redirected_statement"):
                return self._shell.statement(right)
            self._shell.branch(status, [[right], []])
            return status
        return self._shell.statement(right) if status == wanted else status

    def on_if_statement(self, node: Node) -> Status:
        branches = _branches(node)
        for index, (condition, body) in enumerate(branches):
            status = self._shell.sequence(condition) if condition else True
            if isinstance(status, Gap):
                rest = [body, *(b for _, b in branches[index + 1 :])]
                if all(condition for condition, _ in branches):
                    rest.append([])
                self._shell.branch(status, rest)
                return True
            if status:
                return self._shell.sequence(body)
        return True

    def on_while_statement(self, node: Node) -> Status:
        body = node.child_by_field_name("body")
        condition = node.children_by_field_name("condition")
        until = node.children[0].type == "until"
        assert body is not None
        for _ in range(_MAX_ITERATIONS):
            status = self._shell.sequence(condition)
            if isinstance(status, Gap):
                self._shell.branch(status, [[body], []])
                return True
            if status == until:
                return True
            endless = self._shell.source.text(condition[0]).strip() in ("true", ":", "1", "((1))")
            if not self.iterate(body) or endless:  # what restarts a server for ever is yibu's work
                return True
        raise UnknownScriptError(
            self._shell.source.gap(condition[0]), tr("turns too often to be followed")
        )

    def iterate(self, body: Node) -> bool:
        """Run one iteration; whether another may follow."""
        try:
            self._shell.statement(body)
        except Leave as leave:
            if leave.kind not in ("break", "continue"):
                raise
            if leave.levels > 1:
                raise Leave(leave.kind, leave.levels - 1) from None
            return leave.kind == "continue"
        return True

    def on_for_statement(self, node: Node) -> Status:
        variable, body = node.child_by_field_name("variable"), node.child_by_field_name("body")
        assert variable is not None
        assert body is not None
        values = node.children_by_field_name("value")
        words = [field for value in values for field in self._shell.expander.fields(value)]
        if not any(child.type == "in" for child in node.children):
            words = list(self._shell.state.arguments)
        name = self._shell.source.text(variable)
        gap = next((word.gap for word in words if word.gap), None)
        if node.children[0].type == "select" or gap or len(words) > _MAX_ITERATIONS:
            self._shell.state.set(name, Text("", gap or self._shell.source.gap(node)))
            self._shell.branch(gap or self._shell.source.gap(node), [[body], []])
            return True
        for word in words:
            self._shell.state.set(name, word)
            if not self.iterate(body):
                break
        return True

    def on_c_style_for_statement(self, node: Node) -> Status:
        body = node.child_by_field_name("body")
        assert body is not None
        math = Arithmetic(self._shell.source, self._shell.expander)
        initial = node.children_by_field_name("initializer")
        tests, updates = (node.children_by_field_name(n) for n in ("condition", "update"))
        try:
            for part in initial:
                math.value(part)
            for _ in range(_MAX_ITERATIONS):
                if not all(math.value(test) for test in tests) or not self.iterate(body):
                    return True
                for part in updates:
                    math.value(part)
        except Unknown as unknown:
            self._shell.branch(unknown.gap, [[body], []])
            return True
        raise UnknownScriptError(self._shell.source.gap(node), tr("turns too often to be followed"))

    def on_case_statement(self, node: Node) -> Status:
        subject = node.child_by_field_name("value")
        assert subject is not None
        value = self._shell.expander.text_of(subject)
        items = [child for child in node.children if child.type == "case_item"]
        unknown = value.unknown or (value.gap if self._shell.mentions(*items) else None)
        if unknown is not None:
            self._shell.branch(unknown, [*map(_case_body, items), []])
            return True
        for item in items:
            found = map(self._shell.expander.pattern_of, item.children_by_field_name("value"))
            if any(patterns.matches(value.value, pattern.value) for pattern in found):
                return self._shell.sequence(_case_body(item))
        return True


def _branches(node: Node) -> list[tuple[list[Node], list[Node]]]:
    """Condition and body of ``if`` and each ``elif``; ``else`` has no condition."""
    found: list[tuple[list[Node], list[Node]]] = []
    condition: list[Node] = []
    body: list[Node] = []
    at_condition = True
    for child in node.children[1:]:
        if child.type == "then":
            at_condition = False
        elif child.type in ("elif_clause", "else_clause"):
            inner = child.children[1:]
            if child.type == "else_clause":
                found.append(([], inner))
                continue
            middle = next(i for i, c in enumerate(inner) if c.type == "then")
            found.append((inner[:middle], inner[middle + 1 :]))
        elif child.type != "fi":
            (condition if at_condition else body).append(child)
    return [(condition, body), *found]


def _case_body(item: Node) -> list[Node]:
    start = next(i for i, child in enumerate(item.children) if child.type == ")")
    return [c for c in item.children[start + 1 :] if c.type not in (";;", ";&", ";;&")]
