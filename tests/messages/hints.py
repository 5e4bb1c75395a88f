"""Every hint of an error, as the source has it: what is given as ``hint=``, and what that comes from."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src" / "yibu"
TABLES = ("engines/**/log.toml", "*/failures.toml")


@cache
def hints() -> dict[str, str]:
    """Each text with where it stands."""
    trees = {path: ast.parse(path.read_text("utf-8")) for path in SOURCE.rglob("*.py")}
    functions = [
        n for tree in trees.values() for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)
    ]
    found: dict[str, str] = {}
    for path, tree in trees.items():
        given = [
            n.value
            for n in ast.walk(tree)
            if isinstance(n, ast.keyword) and n.arg in ("hint", "advice")
        ]
        for value in [*given, *_named(tree, given), *_returned(functions, given)]:
            for text in _texts(value):
                found[text] = f"{path.relative_to(SOURCE)}:{value.lineno}"
    for path in (path for pattern in TABLES for path in SOURCE.glob(pattern)):
        for text in _rows(tomllib.loads(path.read_text("utf-8"))):
            found[text] = str(path.relative_to(SOURCE))
    return found


def _named(tree: ast.AST, given: list[ast.expr]) -> Iterator[ast.expr]:
    """What is assigned to the names that are given as hints."""
    names = {n.id for value in given for n in _outside(value) if isinstance(n, ast.Name)} | {
        "hint",
        "advice",
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if names & {t.id for t in targets if isinstance(t, ast.Name)}:
                yield node.value


def _returned(functions: list[ast.FunctionDef], given: list[ast.expr]) -> Iterator[ast.expr]:
    """What the functions return whose answer is given as a hint."""
    called = {_name(n.func) for value in given for n in _outside(value) if isinstance(n, ast.Call)}
    for function in functions:
        if function.name in called - {"tr", "joined", "filled", "str"}:
            for node in ast.walk(function):
                if isinstance(node, ast.Return) and node.value is not None:
                    yield node.value


def _texts(value: ast.expr) -> Iterator[str]:
    for node in _outside(value):
        if (
            isinstance(node, ast.Call)
            and _name(node.func) == "tr"
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.args[0].value


def _outside(value: ast.expr) -> Iterator[ast.AST]:
    """The parts of an expression without what stands within ``tr()``: values of a text are no hints."""
    yield value
    if not (isinstance(value, ast.Call) and _name(value.func) == "tr"):
        for child in ast.iter_child_nodes(value):
            yield from _outside(child) if isinstance(child, ast.expr) else ()


def _name(function: ast.expr) -> str:
    return getattr(function, "id", getattr(function, "attr", ""))


def _rows(table: object) -> Iterator[str]:
    for key, value in table.items() if isinstance(table, dict) else enumerate(table):  # type: ignore[arg-type]
        if key == "hint":
            yield value
        elif isinstance(value, dict | list):
            yield from _rows(value)
