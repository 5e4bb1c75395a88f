"""The flags of one vLLM version, against which a user's are checked before anything is launched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from yibu.engines import vllm_flags


@dataclass(frozen=True, slots=True)
class FlagTable:
    """What vLLM's own parser knows, as ``yibu.launchers.vllm_flags`` reads it."""

    version: str
    flags: Mapping[str, str]
    """Name with underscores → ``switch``, ``value``, ``values`` or ``repeat``."""
    short: Mapping[str, str]
    """Other spellings → name."""

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> FlagTable:
        """From the launcher's JSON.

        Raises:
            KeyError: it lacks a part.
        """
        return cls(plain["version"], dict(plain["flags"]), dict(plain["short"]))

    def plain_name(self, name: str) -> str:
        """A flag's name without ``no_`` and without the key that a dotted JSON flag carries."""
        name = name.partition(".")[0]
        stripped = name.removeprefix("no_")
        return stripped if stripped in self.flags else name


PINNED = FlagTable(vllm_flags.VERSION, vllm_flags.FLAGS, vllm_flags.SHORT)
"""Of the version in ``environments/locks``."""
