"""Command substitutions that need no running: ``$(pwd)``, ``$(dirname "$0")``."""

from __future__ import annotations

import os.path
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tree_sitter import Node

from yibu.adopt.bash.syntax import named
from yibu.adopt.bash.values import Text, join, resolve

if TYPE_CHECKING:
    from yibu.adopt.bash.interpreter import Interpreter

_MAX_SEQUENCE = 10_000


def output_of(shell: Interpreter, node: Node) -> Text:
    """The output of ``$(…)``; a gap where only running it would tell."""
    unknown = Text("", shell.source.gap(node))
    statements = [c for c in named(node) if c.type != "heredoc_body"]
    before, shell.state = shell.state, shell.state.fork()
    try:
        if len(statements) != 1:
            return unknown
        parts = _and_list(statements[0], shell)
        if parts is None:
            return unknown
        for part in parts[:-1]:
            words = _words(part, shell)
            if words is None or words[0].value != "cd" or len(words) != 2:
                return unknown
            shell.builtins.do_cd(words[1:], shell.source.gap(part))
        words = _words(parts[-1], shell)
        gap = next((word.gap for word in words or () if word.gap), None)
        if words is None or gap or not words:
            return Text("", gap or shell.source.gap(node))
        output = _output(shell, [word.value for word in words])
        return unknown if output is None else Text(output.value.rstrip("\n"), output.gap)
    finally:
        shell.state = before


def _and_list(node: Node, shell: Interpreter) -> list[Node] | None:
    """The commands of ``a && b``, or ``a; b`` with redirections that only silence them."""
    if node.type == "list":
        if node.children[1].type != "&&":
            return None
        left = _and_list(node.children[0], shell)
        right = _and_list(node.children[-1], shell)
        return None if left is None or right is None else [*left, *right]
    if node.type == "redirected_statement":
        text = shell.source.text(node)
        body = node.child_by_field_name("body")
        return [body] if body is not None and "/dev/null" in text and "|" not in text else None
    return [node] if node.type == "command" else None


def _words(node: Node, shell: Interpreter) -> list[Text] | None:
    if any(child.type == "variable_assignment" or child.type.endswith("redirect")
           for child in node.children):  # fmt: skip
        return None
    return shell.words_of(node)[0] or None


def _output(shell: Interpreter, words: list[str]) -> Text | None:
    program, arguments = words[0], words[1:]
    if program == "pwd":
        directory = shell.state.directory
        return directory if directory.value.startswith("/") else shell.state.get("PWD")
    if program == "echo" and not (arguments and arguments[0].startswith("-")):
        return Text(" ".join(arguments))
    if program == "cat" and len(arguments) == 1 and not shell.state.directory.gap:
        found = shell.files.read(resolve(shell.state.directory.value, arguments[0]))
        return None if found is None else Text(found)
    rule = _PURE.get(program)
    return None if rule is None else rule(arguments)


def _dirname(arguments: list[str]) -> Text | None:
    return Text(os.path.dirname(arguments[0]) or ".") if len(arguments) == 1 else None  # noqa: PTH120


def _basename(arguments: list[str]) -> Text | None:
    if not 1 <= len(arguments) <= 2 or arguments[0].startswith("-"):
        return None
    name = os.path.basename(arguments[0].rstrip("/")) or "/"  # noqa: PTH119
    suffix = arguments[1] if len(arguments) > 1 else ""
    return Text(name.removesuffix(suffix) if name != suffix else name)


def _seq(arguments: list[str]) -> Text | None:
    try:
        numbers = [int(word) for word in arguments]
    except ValueError:
        return None
    if not 1 <= len(numbers) <= 3:
        return None
    first = numbers[0] if len(numbers) > 1 else 1
    step = numbers[1] if len(numbers) == 3 else 1
    last = numbers[-1]
    if step == 0 or abs(last - first) // abs(step) > _MAX_SEQUENCE:
        return None
    found = range(first, last + (1 if step > 0 else -1), step)
    return join((Text(str(number)) for number in found), "\n")


_PURE: Mapping[str, Callable[[list[str]], Text | None]] = {
    "dirname": _dirname,
    "basename": _basename,
    "seq": _seq,
}
