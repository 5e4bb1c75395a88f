"""What starts a server, by every engine's own data."""

from __future__ import annotations

from collections.abc import Mapping

from yibu.engines.registry import servers

PROGRAMS: Mapping[str, tuple[str, ...]] = {
    program: words for server in servers() for program, words in server.programs.items()
}
"""Programs → the words that must follow."""
MODULES: frozenset[str] = frozenset(module for server in servers() for module in server.modules)
STARTS: tuple[str, ...] = (
    *PROGRAMS,
    *sorted({module.rpartition(".")[2] for module in MODULES} - {"main"}),
)
"""Words of which one stands in whatever starts a server."""


def any_start(text: str) -> bool:
    return any(word in text for word in STARTS)
