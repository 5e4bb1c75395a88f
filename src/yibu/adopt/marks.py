"""How servers are started, by every engine's own data; and the flags of other commands."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

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
"""Words of which one occurs in every server's command."""


def any_start(text: str) -> bool:
    return any(word in text for word in STARTS)


def plain_flags(words: Sequence[str]) -> dict[str, str]:
    """Flags with underscores and the word behind each; of a program whose flags are not known here."""
    found: dict[str, str] = {}
    name = ""
    for word in words:
        if re.match(r"--?[A-Za-z]", word):
            name, _, value = word.lstrip("-").partition("=")
            name = name.replace("-", "_")
            found[name] = value
        elif name:
            found[name], name = word, ""
    return found
