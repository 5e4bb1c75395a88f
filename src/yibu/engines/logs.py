"""An engine's log: the phases of its start, and the causes of failures.

Each engine's folder has a ``log.toml``: its ``phases``, in the order in which they come, and its ``cause``
tables, the particular before the general: the first whose pattern is found wins. ``use`` takes one from
the ``shared`` tables of ``engines/log.toml``, or all of the causes there (``generic``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from yibu.config.engines import engine_table
from yibu.messages import tr


@dataclass(frozen=True, slots=True)
class Cause:
    """One known way an engine fails, found by a pattern in its log."""

    key: str
    """A short name for metrics and exit paths: ``out_of_memory``, ``port_in_use`` …"""
    pattern: re.Pattern[str]
    explanation: str
    """A sentence for a person; may use the pattern's named groups as ``{name}``."""
    hint: str
    """What to type or change next; ``{model}`` is the model's name, which the node fills in."""


@dataclass(frozen=True, slots=True)
class PhaseMark:
    """A line of an engine's log with which a phase of its start begins."""

    phase: str
    """What the engine does from this line on: ``load``, ``compile``, ``warm-up`` …"""
    pattern: re.Pattern[str]


@cache
def causes_of(engine: str) -> tuple[Cause, ...]:
    """The causes in an engine's folder; those common to all programs for ``""``."""
    return tuple(_causes(_read(engine).get("cause", ())))


@cache
def phases_of(engine: str) -> tuple[PhaseMark, ...]:
    """The log lines that mark an engine's phases; empty where they are not known."""
    phases = _read(engine).get("phases", {})
    return tuple(PhaseMark(phase, _pattern(pattern)) for phase, pattern in phases.items())


@cache
def _read(engine: str) -> Mapping[str, Any]:
    return engine_table(engine, "log.toml")


def _causes(rows: list[dict[str, Any]]) -> Iterator[Cause]:
    for row in rows:
        match row.get("use"):
            case None:
                flags = re.IGNORECASE if row.get("ignore_case") else 0
                pattern = _pattern(row["pattern"], flags)
                yield Cause(row["key"], pattern, tr(row["explanation"]), tr(row["hint"]))
            case "generic":
                yield from causes_of("")
            case name:
                yield from _causes([_read("")["shared"][name]])


def _pattern(alternatives: str | list[str], flags: int = 0) -> re.Pattern[str]:
    text = alternatives if isinstance(alternatives, str) else "|".join(alternatives)
    return re.compile(text, flags)
