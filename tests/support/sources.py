"""The package's own source, parsed once for all tests of a process that walk it."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "yibu"


@cache
def modules() -> tuple[Path, ...]:
    found = tuple(sorted(SOURCE.rglob("*.py")))
    assert len(found) > 300
    return found


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """All nodes of a module, as :func:`ast.walk` gives them."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def dotted(node: ast.expr) -> str:
    """What :func:`ast.unparse` gives, in a tenth of the time for what is a name."""
    names = []
    one = node
    while isinstance(one, ast.Attribute):
        names.append(one.attr)
        one = one.value
    return ".".join((one.id, *reversed(names))) if isinstance(one, ast.Name) else ast.unparse(node)
