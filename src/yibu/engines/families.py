"""Families of models with their own formats of reasoning and tool calls.

A family is found by the model's own name first (a distill has its student's architecture but its
teacher's manner of thinking), then by its architecture. Which parsers it needs stands in each
engine's folder (``parsers.toml``): without them a reasoning model's thoughts stand in its answer, and
its tool calls are plain text.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

from yibu.config.engines import engine_table
from yibu.messages import tr


@dataclass(frozen=True, slots=True)
class Parsers:
    """An engine's parsers for one family; None: the family has no such format, or the engine no parser."""

    reasoning: str | None = None
    tools: str | None = None
    template: str | None = None
    """A file in the engine's ``templates/``, for models whose own template takes no tools."""


@dataclass(frozen=True, slots=True)
class ModelFamily:
    """One family of models, with an engine's parsers for it."""

    title: str
    name: re.Pattern[str]
    """Matched against the source."""
    architectures: frozenset[str]
    """Architectures of this family alone: they decide, whatever the name."""
    students: frozenset[str]
    """Further ones with which its name counts where only clients call the model so. A served name is
    free: a parser chosen by it for another model would keep that from starting."""
    parsers: Parsers


@cache
def families(engine: str) -> tuple[ModelFamily, ...]:
    """All families with an engine's parsers: ``families.toml``, and ``parsers.toml`` of its folder."""
    parsers = engine_table(engine, "parsers.toml")
    known = engine_table("", "families.toml")
    return tuple(
        ModelFamily(
            title,
            re.compile(row["name"], re.IGNORECASE),
            frozenset(row.get("architectures", ())),
            frozenset(row.get("students", ())),
            Parsers(**parsers.get(title, {})),
        )
        for title, row in known.items()
    )


def family_of(engine: str, architecture: str, source: str, served: str) -> ModelFamily | None:
    """The family of a model: by its source, then by its architecture, then by its served name."""
    known = families(engine)

    def named(name: str) -> ModelFamily | None:
        return next((family for family in known if family.name.search(name)), None)

    if found := named(source) or next((f for f in known if architecture in f.architectures), None):
        return found
    called = named(served)
    return called if called and architecture in called.architectures | called.students else None


def parser_words(
    family: ModelFamily | None,
    reasoning: str | None,
    tools: str | None,
    users: Collection[str],
    notes: list[str],
) -> tuple[list[str], bool]:
    """The flags for reasoning and tool parsers, and whether tool calls are parsed; the reasons go into
    ``notes``.

    Args:
        reasoning: The user's option; ``""``: the family's, null: none.
        tools: The same.
        users: The names of the user's flags, which win.
    """
    parsers = family.parsers if family is not None else Parsers()
    title = family.title if family is not None else ""
    if reasoning == "" and "reasoning_parser" not in users:
        reasoning = parsers.reasoning
        if reasoning is not None:
            notes.append(
                tr(
                    "--reasoning-parser {reasoning}: {title} writes its thoughts first "
                    "(options.reasoning_parser: null turns it off)",
                    reasoning=reasoning,
                    title=title,
                )
            )
    if tools == "" and "tool_call_parser" not in users:
        tools = parsers.tools
        if tools is not None:
            notes.append(
                tr(
                    "--tool-call-parser {tools}: so {title} writes its tool calls "
                    "(options.tool_call_parser: null turns it off)",
                    tools=tools,
                    title=title,
                )
            )
    words = ["--reasoning-parser", reasoning] if reasoning else []
    words += ["--tool-call-parser", tools] if tools else []
    return words, bool(tools) or "tool_call_parser" in users
