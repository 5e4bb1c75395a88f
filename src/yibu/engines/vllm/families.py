"""Which parsers of vLLM's a model family needs, and why.

Without them a reasoning model's thoughts stand in its answer, and its tool calls are plain text.
Found by the model's own name first (a distill has its student's architecture but its teacher's
manner of thinking), then by its architecture.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """One family of models and its parsers' names in vLLM; None: the family has no such manner."""

    title: str
    name: re.Pattern[str]
    """Held against the source."""
    architectures: frozenset[str] = frozenset()
    """Those that no other family has: found by them alone, whatever the name."""
    students: frozenset[str] = frozenset()
    """Those with which its name counts where only clients call the model so. A served name is free:
    a parser chosen by it for another model would keep that from starting."""
    reasoning: str | None = None
    tools: str | None = None
    template: str | None = None
    """A file in ``templates/``, for models of it whose own template takes no tools."""


def _family(
    title: str,
    name: str,
    *architectures: str,
    students: tuple[str, ...] = (),
    reasoning: str | None = None,
    tools: str | None = None,
    template: str | None = None,
) -> Family:
    return Family(
        title,
        re.compile(name, re.IGNORECASE),
        frozenset(architectures),
        frozenset((*architectures, *students)),
        reasoning,
        tools,
        template,
    )


FAMILIES: tuple[Family, ...] = (
    _family("DeepSeek-R1 0528 on Qwen3", r"R1-0528-Qwen3", reasoning="deepseek_r1"),
    _family(
        "a DeepSeek-R1 distill", r"R1-Distill", students=("Qwen2ForCausalLM", "LlamaForCausalLM"),
        reasoning="deepseek_r1",
    ),
    _family(
        "DeepSeek-R1", r"DeepSeek-R1", students=("DeepseekV3ForCausalLM",),
        reasoning="deepseek_r1", tools="deepseek_v3",
    ),
    _family(
        "DeepSeek-V3.2", r"DeepSeek-V3\.2", "DeepseekV32ForCausalLM",
        reasoning="deepseek_v3", tools="deepseek_v32",
    ),
    _family(
        "DeepSeek-V3.1", r"DeepSeek-V3\.1", students=("DeepseekV3ForCausalLM",),
        reasoning="deepseek_v3", tools="deepseek_v31", template="deepseek_v3_1.jinja",
    ),
    _family(
        "DeepSeek-V3", r"DeepSeek-V3", students=("DeepseekV3ForCausalLM",), tools="deepseek_v3"
    ),
    _family(
        "QwQ", r"\bQwQ", students=("Qwen2ForCausalLM",), reasoning="deepseek_r1", tools="hermes"
    ),
    _family("Qwen3-Coder", r"Qwen3-Coder", tools="qwen3_coder"),
    _family("Qwen3 Instruct 2507", r"Qwen3-.*Instruct", tools="hermes"),
    _family(
        "Qwen3", r"Qwen3(?!.*(?:Embedding|Reranker))", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM",
        reasoning="qwen3", tools="hermes",
    ),
    _family(
        "Qwen2.5", r"Qwen2\.5(?!.*(?:Math|Coder))", students=("Qwen2ForCausalLM",), tools="hermes"
    ),
    _family("Hermes", r"Hermes-[23]", tools="hermes"),
    _family(
        "gpt-oss", r"gpt-oss", "GptOssForCausalLM", reasoning="openai_gptoss", tools="openai"
    ),
    _family("GLM-4.7", r"GLM-4\.7", reasoning="glm47", tools="glm47"),
    _family(
        "GLM-4.5 and 4.6", r"GLM-4\.[56]", "Glm4MoeForCausalLM", reasoning="glm45", tools="glm45"
    ),
    _family("Kimi K2 Thinking", r"Kimi-K2-Thinking", reasoning="kimi_k2", tools="kimi_k2"),
    _family("Kimi K2", r"Kimi-K2", tools="kimi_k2"),
    _family(
        "MiniMax-M2", r"MiniMax-M2", "MiniMaxM2ForCausalLM",
        reasoning="minimax_m2", tools="minimax_m2",
    ),
    _family(
        "Seed-OSS", r"Seed-OSS", "SeedOssForCausalLM", reasoning="seed_oss", tools="seed_oss"
    ),
    _family("ERNIE 4.5", r"ERNIE-4\.5.*Thinking", reasoning="ernie45", tools="ernie45"),
    _family("Hunyuan A13B", r"Hunyuan-A13B", reasoning="hunyuan_a13b", tools="hunyuan_a13b"),
    _family("Llama 4", r"Llama-4", "Llama4ForConditionalGeneration", tools="llama4_pythonic"),
    _family("Llama 3.1 to 3.3", r"Llama-3\.[123].*Instruct", tools="llama3_json"),
    _family("Mistral", r"(?:Mistral|Ministral|Devstral).*(?:Instruct|\d{4})", tools="mistral"),
    _family(
        "Phi-4 mini", r"Phi-4-mini-instruct", tools="phi4_mini_json", template="phi4_mini.jinja"
    ),
    _family("Granite 4", r"granite-4", "GraniteMoeHybridForCausalLM", tools="granite4"),
    _family(
        "InternLM 2.5", r"internlm2_5.*chat", tools="internlm", template="internlm2_5.jinja"
    ),
)  # fmt: skip
"""The particular before the general: the first that fits is taken."""


def family_of(architecture: str, source: str, served: str) -> Family | None:
    """The family of a model: by its source, then by its architecture, then by its served name."""
    if (found := _named(source)) is not None:
        return found
    if found := next((f for f in FAMILIES if architecture in f.architectures), None):
        return found
    called = _named(served)
    return called if called is not None and architecture in called.students else None


def _named(name: str) -> Family | None:
    return next((family for family in FAMILIES if family.name.search(name)), None)
