"""An engine is one folder: nobody outside it decides by its name."""

from __future__ import annotations

import ast
from pathlib import Path

from yibu.engines.registry import engines
from yibu.environments.specs import SPECS

SOURCE = Path(__file__).parents[2] / "src" / "yibu"
NAMES = frozenset(engine.name for engine in engines())
SERVERS = frozenset(
    program for engine in engines() if engine.server for program in engine.server.programs
)
ENVIRONMENTS = frozenset(name for name, spec in SPECS.items() if spec.engine in NAMES)
_PLAIN_WORDS = frozenset({"command", "speech"})
"""Names of engines that are words of their own too: only beside something that is called an engine do
they mean one."""


def constants(node: ast.expr) -> set[str]:
    if isinstance(node, ast.Constant):
        return {node.value} if isinstance(node.value, str) else set()
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return set().union(*map(constants, node.elts)) if node.elts else set()
    return set()


def compared(tree: ast.AST) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            text = " ".join(map(ast.unparse, sides))
            values = set().union(*map(constants, sides))
        elif isinstance(node, ast.Match):
            text = ast.unparse(node.subject)
            patterns = (case.pattern for case in node.cases)
            values = {
                part.value.value
                for pattern in patterns
                for part in ast.walk(pattern)
                if isinstance(part, ast.MatchValue)
                and isinstance(part.value, ast.Constant)
                and isinstance(part.value.value, str)
            }
        else:
            continue
        hits = values & (NAMES | SERVERS | ENVIRONMENTS)
        if hits - _PLAIN_WORDS or (hits and "engine" in text):
            found.append((node.lineno, text))
    return found


def test_no_engines_name_is_compared_outside_the_engines() -> None:
    wrong = [
        f"{path.relative_to(SOURCE)}:{line}: {text}"
        for path in sorted(SOURCE.rglob("*.py"))
        if path.relative_to(SOURCE).parts[0] not in ("engines", "launchers", "speech")
        for line, text in compared(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert wrong == []


def test_the_test_sees_what_it_looks_for() -> None:
    for text in (
        "if model.engine == 'speech': pass",
        "if name in ('vllm', 'x'): pass",
        "match engine:\n  case 'command': pass",
        "x = 1 if program == 'llama-server' else 2",
    ):
        assert compared(ast.parse(text)), text
    assert not compared(ast.parse("if node.type == 'command': pass"))
