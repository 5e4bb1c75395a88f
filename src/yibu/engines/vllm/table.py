"""The flags of one vLLM version, to check a user's flags before a launch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from yibu.engines.flags import Flag, FlagTable, pinned_flags

_LEVEL = re.compile(r"-O=?([^.=]+)")
"""``-O3``, which vLLM handles before it parses and no table lists."""


def _levels(words: Sequence[str]) -> list[str]:
    """The words with ``-O3``, ``-O=3`` and ``-O 3`` written out."""
    found: list[str] = []
    for word in words:
        if word == "-O":
            found.append("--optimization-level")
        elif match := _LEVEL.fullmatch(word):
            found += ["--optimization-level", match[1]]
        else:
            found.append(word)
    return found


@dataclass(frozen=True, slots=True)
class VllmFlags(FlagTable):
    """The flags of vLLM's own parser, as ``yibu.launchers.flags`` reads them."""

    serve: bool = False
    """Whether it has ``vllm serve``; before that there was a module, which is to go."""

    def read(self, words: Sequence[str]) -> list[Flag]:
        return FlagTable.read(self, _levels(words))

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The table that ``yibu.launchers.flags`` printed.

        Raises:
            TypeError: it lacks a part.
        """
        # Every switch has a negation, and one that its parser does not list is vLLM's to refuse.
        return cls(**{**plain, "negations": {}}, variables={"VLLM_API_KEY": "api_key"})


PINNED = VllmFlags.from_plain(pinned_flags(__package__))
"""Of the version in ``environments/locks``; written by scripts/server_flags.py."""
