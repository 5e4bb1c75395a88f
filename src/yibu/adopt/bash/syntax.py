"""Parsing a script with tree-sitter, and reading the tree's nodes."""

from __future__ import annotations

from dataclasses import dataclass

import tree_sitter_bash
from tree_sitter import Language, Node, Parser

from yibu.adopt.bash.values import Gap, UnknownScriptError
from yibu.messages import tr

_LANGUAGE = Language(tree_sitter_bash.language())


@dataclass(frozen=True, slots=True)
class ScriptSource:
    """A script's bytes, and its first line in the script that is read."""

    data: bytes
    first_line: int = 1
    inner: bool = False
    """A text within another, whose lines are those of the command that runs it."""

    def text(self, node: Node) -> str:
        return self.data[node.start_byte : node.end_byte].decode("utf-8", "replace")

    def line(self, node: Node) -> int:
        return self.first_line + (0 if self.inner else node.start_point[0])

    def gap(self, node: Node, unset: str = "") -> Gap:
        return Gap(self.line(node), self.text(node), unset)


def parse(text: str, line: int = 1, *, inner: bool = False) -> tuple[ScriptSource, Node]:
    """The tree of a script.

    Raises:
        UnknownScriptError: it is not bash, as far as the grammar knows it.
    """
    source = ScriptSource(text.encode("utf-8", "replace"), line, inner)
    root = Parser(_LANGUAGE).parse(source.data).root_node
    if root.has_error:
        broken = _error(root)
        gap = source.gap(broken)
        if not gap.construct.strip():
            lines = text.split("\n")
            gap = Gap(gap.line, lines[min(broken.start_point[0], len(lines) - 1)] or tr("its end"))
        raise UnknownScriptError(gap, tr("is not understood as bash"))
    return source, root


def _error(node: Node) -> Node:
    """The first node that the grammar could not place."""
    while True:
        inner = next((c for c in node.children if c.has_error or c.is_missing), None)
        if inner is None or node.is_error:
            return node
        node = inner


def named(node: Node) -> list[Node]:
    """The named children, without comments."""
    return [child for child in node.named_children if child.type != "comment"]
