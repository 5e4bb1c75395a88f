"""Bytes of quantized weights from config.json alone, against the sizes of the published files.

Gigabytes are the sum of the safetensors files of the repository named, as its index or its page has
them; two in a hundred are scales, norms and rounding.
"""

from __future__ import annotations

from typing import Any

import pytest
from models import CONFIGS

from yibu.errors import YibuError
from yibu.planner.facts import facts_from_headers
from yibu.planner.quantization import with_file

LLAMA_8B, QWEN_7B, DEEPSEEK_V3 = (
    CONFIGS[name] for name in ("Llama-3.1-8B", "Qwen2.5-7B", "DeepSeek-V3")
)
BARE_V3 = {key: value for key, value in DEEPSEEK_V3.items() if key != "quantization_config"}


def compressed(weights: dict[str, Any], stored: str, ignore: list[str]) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": {"symmetric": True, **weights}}
    return {
        "quant_method": "compressed-tensors",
        "format": stored,
        "ignore": ignore,
        "config_groups": {"group_0": group},
    }


INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128}
CASES: list[tuple[str, dict[str, Any], dict[str, Any], float]] = [
    # Qwen/Qwen2.5-7B-Instruct-AWQ, -GPTQ-Int4, -GPTQ-Int8
    ("awq", QWEN_7B, {"quant_method": "awq", "bits": 4, "group_size": 128}, 5.57),
    ("gptq 4", QWEN_7B, {"quant_method": "gptq", "bits": 4, "group_size": 128}, 5.58),
    ("gptq 8", QWEN_7B, {"quant_method": "gptq", "bits": 8, "group_size": 128}, 8.88),
    # RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8, -quantized.w4a16
    (
        "fp8",
        LLAMA_8B,
        compressed({"num_bits": 8, "type": "float"}, "float-quantized", ["lm_head"]),
        9.08,
    ),
    ("w4a16", LLAMA_8B, compressed(INT4, "pack-quantized", ["lm_head"]), 5.74),
    # unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit
    (
        "nf4",
        LLAMA_8B,
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": True},
        5.70,
    ),
    # moonshotai/Kimi-K2-Instruct: blocks of 128 × 128 with a float32 scale
    (
        "fp8 blocks",
        CONFIGS["Kimi-K2"],
        {"quant_method": "fp8", "weight_block_size": [128, 128]},
        1029,
    ),
    # moonshotai/Kimi-K2-Thinking: the experts alone
    (
        "mixed compressed-tensors",
        CONFIGS["Kimi-K2"],
        compressed(
            {**INT4, "group_size": 32},
            "pack-quantized",
            [
                "lm_head",
                "re:.*self_attn.*",
                "re:.*shared_experts.*",
                "re:.*mlp\\.(gate|up|gate_up|down)_proj.*",
            ],
        ),
        594,
    ),
    # openai/gpt-oss-120b, with the list that its config has
    (
        "mxfp4",
        CONFIGS["gpt-oss-120b"],
        {
            "quant_method": "mxfp4",
            "modules_to_not_convert": [
                "model.layers.*.self_attn",
                "model.layers.*.mlp.router",
                "model.embed_tokens",
                "lm_head",
            ],
        },
        65.25,
    ),
    # Qwen/Qwen2-VL-7B-Instruct-AWQ: the tower stays in half precision
    (
        "a tower left as it was",
        CONFIGS["Qwen2-VL-7B"],
        {"quant_method": "awq", "bits": 4, "modules_to_not_convert": ["visual"]},
        6.9,
    ),
    # A scale and a zero point in half precision for 64: 4.5 bits of 6.98 G weights and the rest
    (
        "hqq",
        LLAMA_8B,
        {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}}},
        6.03,
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "section", "gigabytes"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_a_quantized_model(
    config: dict[str, Any], section: dict[str, Any], gigabytes: float
) -> None:
    facts = facts_from_headers(name="m", config={**config, "quantization_config": section})
    assert not facts.unknown
    assert facts.weight_bytes / 1e9 == pytest.approx(gigabytes, rel=0.02)


@pytest.mark.parametrize(
    ("config", "quantization", "gigabytes"),
    [
        # nvidia/Llama-3.1-8B-Instruct-FP4 and -FP8
        (LLAMA_8B, {"quant_algo": "NVFP4", "group_size": 16, "exclude_modules": ["lm_head"]}, 6.03),
        (LLAMA_8B, {"quant_algo": "FP8", "exclude_modules": ["lm_head"]}, 9.08),
        # nvidia/DeepSeek-R1-FP4 (the attention stays in half precision), without its MTP layer
        (
            BARE_V3,
            {
                "quant_algo": "NVFP4",
                "exclude_modules": [f"model.layers.{i}.self_attn*" for i in range(61)],
            },
            396.7,
        ),
        # Mixed: experts in 4 bits, the rest of the layers in 8
        (
            BARE_V3,
            {
                "quant_algo": "MIXED_PRECISION",
                "quantized_layers": {
                    "model.layers.3.mlp.experts.0.down_proj": {"quant_algo": "NVFP4"},
                    "model.layers.3.self_attn.o_proj": {"quant_algo": "FP8"},
                    "model.layers.0.mlp.down_proj": {"quant_algo": "FP8"},
                },
            },
            385.4,
        ),
        # nvidia/Qwen3.6-35B-A3B-NVFP4: all experts of a layer under one name
        (
            BARE_V3,
            {
                "quant_algo": "MIXED_PRECISION",
                "quantized_layers": {
                    "model.layers.3.mlp.experts": {"quant_algo": "W4A16_NVFP4"},
                    "model.layers.3.self_attn.o_proj": {"quant_algo": "FP8"},
                    "model.layers.0.mlp.down_proj": {"quant_algo": "FP8"},
                },
            },
            385.4,
        ),
    ],
)
def test_what_modelopt_writes_beside_config_json(
    config: dict[str, Any], quantization: dict[str, Any], gigabytes: float
) -> None:
    both = with_file(config, {"producer": {"name": "modelopt"}, "quantization": quantization})
    facts = facts_from_headers(name="m", config=both)
    assert facts.quantization == "modelopt"
    assert facts.weight_bytes / 1e9 == pytest.approx(gigabytes, rel=0.02)


def test_experts_of_another_type() -> None:
    # FP8 beside experts in MXFP4, as DeepSeek-V4 has them: of 671 G weights 656 are experts'.
    section = {**DEEPSEEK_V3["quantization_config"], "expert_dtype": "fp4"}
    facts = facts_from_headers(name="m", config={**DEEPSEEK_V3, "quantization_config": section})
    assert facts.weight_bytes / 1e9 == pytest.approx(656e9 * 4.25 / 8 / 1e9 + 15 + 2, rel=0.02)


def test_a_mixed_scheme_goes_by_its_targets() -> None:
    groups = {
        "attention": {"targets": ["re:.*self_attn.*"], "weights": {"num_bits": 8, "type": "float"}},
        "rest": {"targets": ["Linear"], "weights": {**INT4, "symmetric": True}},
    }
    section = {"quant_method": "compressed-tensors", "ignore": ["lm_head"], "config_groups": groups}
    facts = facts_from_headers(name="m", config={**LLAMA_8B, "quantization_config": section})
    # 1.34 G of attention × 1, 5.64 G of feed-forward × 4.125 bits, 1.05 G of tables × 2
    assert facts.weight_bytes / 1e9 == pytest.approx(1.34 + 5.64 * 4.125 / 8 + 1.05 * 2, rel=0.01)


@pytest.mark.parametrize(
    "section",
    [
        {"quant_method": "unheard_of"},
        {"quant_method": "torchao", "quant_type": "unheard_of"},
        {"quant_method": "modelopt", "quant_algo": "UNHEARD_OF"},
    ],
)
def test_a_method_that_is_not_known(section: dict[str, Any]) -> None:
    facts = facts_from_headers(name="m", config={**LLAMA_8B, "quantization_config": section})
    assert "unheard_of" in facts.unknown.lower()


@pytest.mark.parametrize("odd", [[], "int4", {"quant_method": 4}, {"config_groups": []}])
def test_odd_sections_are_no_traceback(odd: Any) -> None:
    try:
        facts_from_headers(name="m", config={**LLAMA_8B, "quantization_config": odd})
    except YibuError:
        return
