"""Every hint of an error, as the source has it: what is given as ``hint=``, and what that comes from."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.support.sources import modules, nodes

SOURCE = Path(__file__).resolve().parents[2] / "src" / "yibu"
TABLES = ("engines/**/log.toml", "*/failures.toml")


@cache
def hints() -> dict[str, str]:
    """Each text with where it stands."""
    functions: dict[str, list[ast.FunctionDef]] = {}
    for path in modules():
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef):
                functions.setdefault(node.name, []).append(node)
    found: dict[str, str] = {}
    for path in modules():
        given = [
            n.value
            for n in nodes(path)
            if isinstance(n, ast.keyword) and n.arg in ("hint", "advice")
        ]
        for value in [*given, *_named(path, given), *_returned(functions, given)]:
            for text in _texts(value):
                found[text] = f"{path.relative_to(SOURCE)}:{value.lineno}"
    for path in (path for pattern in TABLES for path in SOURCE.glob(pattern)):
        for text in _rows(tomllib.loads(path.read_text("utf-8"))):
            found[text] = str(path.relative_to(SOURCE))
    return found


def _named(path: Path, given: list[ast.expr]) -> Iterator[ast.expr]:
    """What is assigned to the names that are given as hints."""
    names = {n.id for value in given for n in _outside(value) if isinstance(n, ast.Name)} | {
        "hint",
        "advice",
    }
    for node in nodes(path):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if names & {t.id for t in targets if isinstance(t, ast.Name)}:
                yield node.value


def _returned(
    functions: dict[str, list[ast.FunctionDef]], given: list[ast.expr]
) -> Iterator[ast.expr]:
    """What the functions return whose answer is given as a hint."""
    called = {_name(n.func) for value in given for n in _outside(value) if isinstance(n, ast.Call)}
    for name in called - {"tr", "joined", "filled", "str"}:
        for function in functions.get(name, ()):
            for node in ast.walk(function):
                if isinstance(node, ast.Return) and node.value is not None:
                    yield node.value


def _texts(value: ast.expr) -> Iterator[str]:
    said = value if isinstance(value, ast.Constant) else None
    for node in _outside(value):
        if isinstance(node, ast.Call) and _name(node.func) == "tr":
            said = node.args[0]
        if isinstance(said, ast.Constant) and isinstance(said.value, str) and " " in said.value:
            yield said.value


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
