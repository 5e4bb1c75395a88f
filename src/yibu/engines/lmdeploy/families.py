"""Which of LMDeploy's parsers a family of models needs (0.18: ``serve/parsers/``).

``default`` reads thoughts between ``<think>`` and ``</think>``; gpt-oss has a parser that is chosen by
its architecture.
"""

from __future__ import annotations

from yibu.engines.families import Parsers, with_parsers

FAMILIES = with_parsers(
    {
        "DeepSeek-R1 0528 on Qwen3": Parsers(reasoning="default"),
        "a DeepSeek-R1 distill": Parsers(reasoning="default"),
        "DeepSeek-R1": Parsers(reasoning="default"),
        "DeepSeek-V3.2": Parsers(reasoning="deepseek-v32", tools="deepseek-v32"),
        "DeepSeek-V3.1": Parsers(reasoning="deepseek-v3"),
        "QwQ": Parsers(reasoning="default", tools="qwen2d5"),
        "Qwen3-Coder": Parsers(tools="qwen3coder"),
        "Qwen3 Instruct 2507": Parsers(tools="qwen3"),
        "Qwen3": Parsers(reasoning="default", tools="qwen3"),
        "Qwen2.5": Parsers(tools="qwen2d5"),
        "GLM-4.7": Parsers(reasoning="default", tools="glm47"),
        "GLM-4.5 and 4.6": Parsers(reasoning="default"),
        "Kimi K2 Thinking": Parsers(reasoning="default", tools="kimi_k2"),
        "Kimi K2": Parsers(tools="kimi_k2"),
        "Llama 3.1 to 3.3": Parsers(tools="llama3"),
        "InternLM 2.5": Parsers(tools="internlm"),
    }
)
