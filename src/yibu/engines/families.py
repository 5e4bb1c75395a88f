"""Families of models that think and call tools each in their own manner.

A family is found by the model's own name first (a distill has its student's architecture but its
teacher's manner of thinking), then by its architecture. Which parsers it needs stands in each
engine's folder: without them a reasoning model's thoughts stand in its answer, and its tool calls are
plain text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from yibu.messages import tr


@dataclass(frozen=True, slots=True)
class Parsers:
    """An engine's parsers for one family; None: the family has no such manner, or the engine no
    parser."""

    reasoning: str | None = None
    tools: str | None = None
    template: str | None = None
    """A file in the engine's ``templates/``, for models whose own template takes no tools."""


NO_PARSERS = Parsers()


@dataclass(frozen=True, slots=True)
class Family:
    """One family of models, with an engine's parsers for it."""

    title: str
    name: re.Pattern[str]
    """Held against the source."""
    architectures: frozenset[str] = frozenset()
    """Those that no other family has: found by them alone, whatever the name."""
    students: frozenset[str] = frozenset()
    """Those with which its name counts where only clients call the model so. A served name is free:
    a parser chosen by it for another model would keep that from starting."""
    parsers: Parsers = NO_PARSERS


def _family(title: str, name: str, *architectures: str, students: tuple[str, ...] = ()) -> Family:
    return Family(
        title,
        re.compile(name, re.IGNORECASE),
        frozenset(architectures),
        frozenset((*architectures, *students)),
    )


_FAMILIES: tuple[Family, ...] = (
    _family("DeepSeek-R1 0528 on Qwen3", r"R1-0528-Qwen3"),
    _family(
        "a DeepSeek-R1 distill", r"R1-Distill", students=("Qwen2ForCausalLM", "LlamaForCausalLM")
    ),
    _family("DeepSeek-R1", r"DeepSeek-R1", students=("DeepseekV3ForCausalLM",)),
    _family("DeepSeek-V3.2", r"DeepSeek-V3\.2", "DeepseekV32ForCausalLM"),
    _family("DeepSeek-V3.1", r"DeepSeek-V3\.1", students=("DeepseekV3ForCausalLM",)),
    _family("DeepSeek-V3", r"DeepSeek-V3", students=("DeepseekV3ForCausalLM",)),
    _family("QwQ", r"\bQwQ", students=("Qwen2ForCausalLM",)),
    _family("Qwen3-Coder", r"Qwen3-Coder"),
    _family("Qwen3 Instruct 2507", r"Qwen3-.*Instruct"),
    _family(
        "Qwen3", r"Qwen3(?!.*(?:Embedding|Reranker))", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM"
    ),
    _family("Qwen2.5", r"Qwen2\.5(?!.*(?:Math|Coder))", students=("Qwen2ForCausalLM",)),
    _family("Hermes", r"Hermes-[23]"),
    _family("gpt-oss", r"gpt-oss", "GptOssForCausalLM"),
    _family("GLM-4.7", r"GLM-4\.7"),
    _family("GLM-4.5 and 4.6", r"GLM-4\.[56]", "Glm4MoeForCausalLM"),
    _family("Kimi K2 Thinking", r"Kimi-K2-Thinking"),
    _family("Kimi K2", r"Kimi-K2"),
    _family("MiniMax-M2", r"MiniMax-M2", "MiniMaxM2ForCausalLM"),
    _family("Seed-OSS", r"Seed-OSS", "SeedOssForCausalLM"),
    _family("ERNIE 4.5", r"ERNIE-4\.5.*Thinking"),
    _family("Hunyuan A13B", r"Hunyuan-A13B"),
    _family("Llama 4", r"Llama-4", "Llama4ForConditionalGeneration"),
    _family("Llama 3.1 to 3.3", r"Llama-3\.[123].*Instruct"),
    _family("Mistral", r"(?:Mistral|Ministral|Devstral).*(?:Instruct|\d{4})"),
    _family("Phi-4 mini", r"Phi-4-mini-instruct"),
    _family("Granite 4", r"granite-4", "GraniteMoeHybridForCausalLM"),
    _family("InternLM 2.5", r"internlm2_5.*chat"),
)
"""The particular before the general: the first that fits is taken."""


def with_parsers(parsers: Mapping[str, Parsers]) -> tuple[Family, ...]:
    """All families with an engine's parsers, which it names by the families' titles."""
    return tuple(replace(one, parsers=parsers.get(one.title, NO_PARSERS)) for one in _FAMILIES)


def family_of(
    families: tuple[Family, ...], architecture: str, source: str, served: str
) -> Family | None:
    """The family of a model: by its source, then by its architecture, then by its served name."""
    if (found := _named(families, source)) is not None:
        return found
    if found := next((f for f in families if architecture in f.architectures), None):
        return found
    called = _named(families, served)
    return called if called is not None and architecture in called.students else None


def _named(families: tuple[Family, ...], name: str) -> Family | None:
    return next((family for family in families if family.name.search(name)), None)


def parser_words(
    family: Family | None,
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
    parsers = family.parsers if family is not None else NO_PARSERS
    title = family.title if family is not None else ""
    if reasoning == "" and "reasoning_parser" not in users:
        reasoning = parsers.reasoning
        if reasoning is not None:
            notes.append(tr(
"--reasoning-parser {reasoning}: {title} writes its thoughts first "
"(options.reasoning_parser: null turns it off)",
reasoning=reasoning,
title=title
))  # fmt: skip
    if tools == "" and "tool_call_parser" not in users:
        tools = parsers.tools
        if tools is not None:
            notes.append(tr(
"--tool-call-parser {tools}: so {title} writes its tool calls "
"(options.tool_call_parser: null turns it off)",
tools=tools,
title=title
))  # fmt: skip
    words = ["--reasoning-parser", reasoning] if reasoning else []
    words += ["--tool-call-parser", tools] if tools else []
    return words, bool(tools) or "tool_call_parser" in users
