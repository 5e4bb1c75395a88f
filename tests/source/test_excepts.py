"""A broad `except` says on its line, or on the next, what it protects."""

from __future__ import annotations

import ast
import re

from tests.support.sources import SOURCE, modules, nodes


def test_every_broad_except_says_what_it_protects() -> None:
    silent = []
    for path in modules():
        lines = path.read_text(encoding="utf-8").splitlines()
        for node in nodes(path):
            if isinstance(node, ast.ExceptHandler) and (
                node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            ):
                said = re.sub(r"# noqa: \w+ ?", "# ", lines[node.lineno - 1]).partition("#")[2]
                if not said.strip(" -") and not lines[node.lineno].lstrip().startswith("#"):
                    silent.append(f"{path.relative_to(SOURCE)}:{node.lineno}")
    assert not silent


def test_no_sql_has_a_numbered_placeholder() -> None:
    """``?1`` with a sequence of values is an error from Python 3.14 on, and fine on 3.11."""
    numbered = [
        f"{path.relative_to(SOURCE)}:{node.lineno}"
        for path in modules()
        for node in nodes(path)
        if isinstance(node, ast.Constant)
        and re.search(r"\b(SELECT|UPDATE|WHERE|VALUES)\b.*\?\d", str(node.value), re.DOTALL)
    ]
    assert not numbered
