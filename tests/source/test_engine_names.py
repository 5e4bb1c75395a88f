"""An engine is one folder: nobody outside it decides by its name."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence

from tests.support.sources import SOURCE, modules, nodes
from yibu.engines.registry import engines
from yibu.environments.specs import SPECS

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


def compared(nodes: Iterable[ast.AST]) -> list[tuple[int, str]]:
    found = []
    for node in nodes:
        sides: Sequence[ast.expr]
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            values = set().union(*map(constants, sides))
        elif isinstance(node, ast.Match):
            sides = [node.subject]
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
        if hits := values & (NAMES | SERVERS | ENVIRONMENTS):
            text = " ".join(map(ast.unparse, sides))
            if hits - _PLAIN_WORDS or "engine" in text:
                found.append((node.lineno, text))
    return found


def test_no_engines_name_is_compared_outside_the_engines() -> None:
    wrong = [
        f"{path.relative_to(SOURCE)}:{line}: {text}"
        for path in modules()
        if path.relative_to(SOURCE).parts[0] not in ("engines", "launchers", "speech")
        for line, text in compared(nodes(path))
    ]
    assert wrong == []


def test_the_test_sees_what_it_looks_for() -> None:
    for text in (
        "if model.engine == 'speech': pass",
        "if name in ('vllm', 'x'): pass",
        "match engine:\n  case 'command': pass",
        "x = 1 if program == 'llama-server' else 2",
    ):
        assert compared(ast.walk(ast.parse(text))), text
    assert not compared(ast.walk(ast.parse("if node.type == 'command': pass")))
