"""A broad `except` says on its line, or on the next, what it protects."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1] / "src" / "yibu"


def test_every_broad_except_says_what_it_protects() -> None:
    silent = []
    for path in sorted(ROOT.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ExceptHandler) and (
                node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            ):
                said = re.sub(r"# noqa: \w+ ?", "# ", lines[node.lineno - 1]).partition("#")[2]
                if not said.strip(" -") and not lines[node.lineno].lstrip().startswith("#"):
                    silent.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not silent


def test_no_sql_has_a_numbered_placeholder() -> None:
    """``?1`` with a sequence of values is an error from Python 3.14 on, and fine on 3.11."""
    numbered = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted(ROOT.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
        and re.search(r"\b(SELECT|UPDATE|WHERE|VALUES)\b.*\?\d", str(node.value), re.DOTALL)
    ]
    assert not numbered
