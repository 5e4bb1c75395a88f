"""Which of vLLM's parsers a family of models needs."""

from __future__ import annotations

from yibu.engines.families import Parsers, with_parsers

FAMILIES = with_parsers(
    {
        "DeepSeek-R1 0528 on Qwen3": Parsers(reasoning="deepseek_r1"),
        "a DeepSeek-R1 distill": Parsers(reasoning="deepseek_r1"),
        "DeepSeek-R1": Parsers(reasoning="deepseek_r1", tools="deepseek_v3"),
        "DeepSeek-V3.2": Parsers(reasoning="deepseek_v3", tools="deepseek_v32"),
        "DeepSeek-V3.1": Parsers(
            reasoning="deepseek_v3", tools="deepseek_v31", template="deepseek_v3_1.jinja"
        ),
        "DeepSeek-V3": Parsers(tools="deepseek_v3"),
        "QwQ": Parsers(reasoning="deepseek_r1", tools="hermes"),
        "Qwen3-Coder": Parsers(tools="qwen3_coder"),
        "Qwen3 Instruct 2507": Parsers(tools="hermes"),
        "Qwen3": Parsers(reasoning="qwen3", tools="hermes"),
        "Qwen2.5": Parsers(tools="hermes"),
        "Hermes": Parsers(tools="hermes"),
        "gpt-oss": Parsers(reasoning="openai_gptoss", tools="openai"),
        "GLM-4.7": Parsers(reasoning="glm47", tools="glm47"),
        "GLM-4.5 and 4.6": Parsers(reasoning="glm45", tools="glm45"),
        "Kimi K2 Thinking": Parsers(reasoning="kimi_k2", tools="kimi_k2"),
        "Kimi K2": Parsers(tools="kimi_k2"),
        "MiniMax-M2": Parsers(reasoning="minimax_m2", tools="minimax_m2"),
        "Seed-OSS": Parsers(reasoning="seed_oss", tools="seed_oss"),
        "ERNIE 4.5": Parsers(reasoning="ernie45", tools="ernie45"),
        "Hunyuan A13B": Parsers(reasoning="hunyuan_a13b", tools="hunyuan_a13b"),
        "Llama 4": Parsers(tools="llama4_pythonic"),
        "Llama 3.1 to 3.3": Parsers(tools="llama3_json"),
        "Mistral": Parsers(tools="mistral"),
        "Phi-4 mini": Parsers(tools="phi4_mini_json", template="phi4_mini.jinja"),
        "Granite 4": Parsers(tools="granite4"),
        "InternLM 2.5": Parsers(tools="internlm", template="internlm2_5.jinja"),
    }
)
