"""Which of SGLang's parsers a family of models needs (0.5.23: ``function_call/``, ``parser/``)."""

from __future__ import annotations

from yibu.engines.families import Parsers, with_parsers

FAMILIES = with_parsers(
    {
        "DeepSeek-R1 0528 on Qwen3": Parsers(reasoning="deepseek-r1"),
        "a DeepSeek-R1 distill": Parsers(reasoning="deepseek-r1"),
        "DeepSeek-R1": Parsers(reasoning="deepseek-r1", tools="deepseekv3"),
        "DeepSeek-V3.2": Parsers(reasoning="deepseek-v3", tools="deepseekv32"),
        "DeepSeek-V3.1": Parsers(reasoning="deepseek-v3", tools="deepseekv31"),
        "DeepSeek-V3": Parsers(tools="deepseekv3"),
        "QwQ": Parsers(reasoning="deepseek-r1", tools="qwen"),
        "Qwen3-Coder": Parsers(tools="qwen3_coder"),
        "Qwen3 Instruct 2507": Parsers(tools="qwen"),
        "Qwen3": Parsers(reasoning="qwen3", tools="qwen"),
        "Qwen2.5": Parsers(tools="qwen"),
        "Hermes": Parsers(tools="hermes"),
        "gpt-oss": Parsers(reasoning="gpt-oss", tools="gpt-oss"),
        "GLM-4.7": Parsers(reasoning="glm45", tools="glm47"),
        "GLM-4.5 and 4.6": Parsers(reasoning="glm45", tools="glm45"),
        "Kimi K2 Thinking": Parsers(reasoning="kimi_k2", tools="kimi_k2"),
        "Kimi K2": Parsers(tools="kimi_k2"),
        "MiniMax-M2": Parsers(reasoning="minimax", tools="minimax-m2"),
        "Hunyuan A13B": Parsers(reasoning="hunyuan", tools="hunyuan"),
        "Llama 4": Parsers(tools="pythonic"),
        "Llama 3.1 to 3.3": Parsers(tools="llama3"),
        "Mistral": Parsers(tools="mistral"),
        "InternLM 2.5": Parsers(tools="interns1"),
    }
)
