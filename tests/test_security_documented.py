"""SECURITY.md: each line of the threat model names the test that proves it, and that test exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_ROW = re.compile(r"^\|(?P<cells>.+)\|$")
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows() -> list[tuple[str, str]]:
    """(what is tried, the cell that names the tests) of every line of the tables."""
    found = []
    for line in (ROOT / "SECURITY.md").read_text(encoding="utf-8").splitlines():
        match = _ROW.match(line)
        cells = [cell.strip() for cell in match["cells"].split("|")] if match else []
        if len(cells) == 3 and cells[2] != "test" and set(cells[0]) != {"-"}:
            found.append((cells[0], cells[2]))
    return found


@cache
def functions_of(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_the_tables_are_read() -> None:
    assert len(rows()) > 40


@pytest.mark.parametrize(("threat", "named"), rows())
def test_each_line_has_a_test_that_exists(threat: str, named: str) -> None:
    tests = _TEST.findall(named)
    assert tests, f"no test is named for: {threat}"
    assert _TEST.sub("", named).strip(" ,") == ""
    for file, name in tests:
        assert (ROOT / file).is_file(), file
        assert name.startswith("test_")
        assert name in functions_of(ROOT / file), f"{file} has no {name}"
