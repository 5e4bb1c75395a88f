"""The flags of one vLLM version, against which a user's are checked before anything is launched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from yibu.engines.vllm import flags


@dataclass(frozen=True, slots=True)
class FlagTable:
    """What vLLM's own parser knows, as ``yibu.launchers.vllm_flags`` reads it."""

    version: str
    flags: Mapping[str, str]
    """Name with underscores → ``switch``, ``value``, ``values`` or ``repeat``."""
    short: Mapping[str, str]
    """Other spellings → name."""
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Name → the values that it may have; a flag that may have any is not in it."""
    serve: bool = False
    """Whether it has ``vllm serve``; before that there was a module, which is to go."""

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> FlagTable:
        """From the launcher's JSON.

        Raises:
            KeyError: it lacks a part.
        """
        # Tables that were kept before lists of values were read have none; vLLM has the last word.
        choices = {
            **plain.get("choices", {}),
            "reasoning_parser": plain.get("reasoning_parsers", ()),
            "tool_call_parser": plain.get("tool_parsers", ()),
        }
        flags, short = dict(plain["flags"]), dict(plain["short"])
        return cls(plain["version"], flags, short, choices, plain.get("serve", False))

    def plain_name(self, name: str) -> str:
        """A flag's name without ``no_`` and without the key that a dotted JSON flag carries."""
        name = name.partition(".")[0]
        stripped = name.removeprefix("no_")
        return stripped if stripped in self.flags else name


PINNED = FlagTable(
    flags.VERSION,
    flags.FLAGS,
    flags.SHORT,
    {
        **{name: values.split() for name, values in flags.CHOICES.items()},
        "reasoning_parser": sorted(flags.REASONING_PARSERS),
        "tool_call_parser": sorted(flags.TOOL_PARSERS),
    },
    flags.SERVE,
)
"""Of the version in ``environments/locks``."""
