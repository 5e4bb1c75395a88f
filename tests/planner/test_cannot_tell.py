"""What the planner does not know, it says: never a model of no bytes, never a cache of none."""

from __future__ import annotations

from typing import Any

import pytest
from models import CONFIGS
from planner_files import safetensors_header

from yibu.planner.explain import explain, facts_data
from yibu.planner.facts import facts_from_headers
from yibu.planner.machine_file import BUILT_IN
from yibu.planner.plan import place_anyway, plan
from yibu.planner.request import Request
from yibu.planner.types import ModelPlan

LLAMA, DEEPSEEK_V3, QWEN_3_5 = (
    CONFIGS[name] for name in ("Llama-3.1-8B", "DeepSeek-V3", "Qwen3.5-35B")
)


def verdict(config: dict[str, Any], **more: Any) -> ModelPlan:
    facts = facts_from_headers(name="m", config=config, **more)
    return plan([Request("m", "paged", facts)], BUILT_IN["8x141g"])[0]


@pytest.mark.parametrize(
    ("config", "key"),
    [
        *(
            ({name: value for name, value in LLAMA.items() if name != key}, key)
            for key in ("hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size")
        ),
        ({**LLAMA, "model_type": "unheard_of", "architectures": ["UnheardOfForCausalLM"]}, "UnheardOf"),
        ({**LLAMA, "architectures": ["UnheardOfForCausalLM"]}, "UnheardOf"),
        ({**LLAMA, "layer_types": ["unheard_of"] * 32}, "unheard_of"),
        ({**LLAMA, "quantization_config": {"quant_method": "unheard_of"}}, "unheard_of"),
        ({k: v for k, v in DEEPSEEK_V3.items() if k != "kv_lora_rank"}, "kv_lora_rank"),
        ({k: v for k, v in DEEPSEEK_V3.items() if k != "n_routed_experts"}, "n_routed_experts"),
        ({k: v for k, v in CONFIGS["Qwen3-30B-A3B"].items() if k != "num_experts"}, "num_experts"),
        ({**QWEN_3_5, "vision_config": {"model_type": "unheard_of"}}, "unheard_of"),
        ({**LLAMA, "model_type": "minicpmv", "architectures": ["MiniCPMV"]}, "vision_config"),
        ({**LLAMA, "architectures": ["LlamaForCausalLMEagle3"], "draft_vocab_size": 32000}, "Eagle3"),
        ({**LLAMA, "audio": {"n_layer": 32}}, "audio"),
        ({**LLAMA, "quantization": {"group_size": 64, "bits": 4}}, "mlx"),
        ({**QWEN_3_5, "audio_tower": {"model_type": "unheard_of"}}, "unheard_of"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_not_known_is_said(config: dict[str, Any], key: str) -> None:
    result = verdict(config)
    assert result.verdict == "cannot_tell"
    assert result.placement is None
    assert key in result.reasons[0]
    facts = facts_from_headers(name="m", config=config)
    data = facts_data(facts)
    assert data["weights_bytes"] is None
    assert data["kv_bytes_per_token"] is None
    assert data["state_bytes_per_sequence"] is None
    assert any(row.value == "cannot tell" for row in explain(Request("m", "paged", facts), result))


def test_force_starts_it_with_what_is_known() -> None:
    facts = facts_from_headers(
        name="m", config={**LLAMA, "model_type": "unheard_of", "architectures": ["UnheardOf"]}
    )
    for machine in ("8x141g", "workstation-64g"):
        placement = place_anyway(Request("m", "paged", facts), BUILT_IN[machine])
        assert placement.context == 4096
    assert placement.need.kv_cache == 1 << 30


def test_headers_tell_the_weights_of_an_architecture_that_is_not_known() -> None:
    header = safetensors_header({"w": ("BF16", [1000, 10])})
    config = {**LLAMA, "model_type": "unheard_of", "architectures": ["UnheardOfForCausalLM"]}
    facts = facts_from_headers(name="m", config=config, headers={"model.safetensors": header})
    data = facts_data(facts)
    assert (data["weights_bytes"], data["source"]) == (20_000, "headers")
    assert data["kv_bytes_per_token"] is None
    assert verdict(config, headers={"model.safetensors": header}).verdict == "cannot_tell"


def test_a_known_model_beside_one_that_is_not() -> None:
    known = facts_from_headers(name="a", config=LLAMA)
    strange = facts_from_headers(name="b", config={**LLAMA, "layer_types": ["unheard_of"] * 32})
    first, second = plan(
        [Request("a", "paged", known), Request("b", "paged", strange)], BUILT_IN["1x80g"]
    )
    assert (first.verdict, second.verdict) == ("fits", "cannot_tell")


def test_facts_are_there_whether_it_fits_or_not() -> None:
    facts = facts_from_headers(name="m", config=DEEPSEEK_V3)
    data = facts_data(facts)
    assert set(data) == {
        "architecture",
        "parameters",
        "active_parameters",
        "weights_bytes",
        "kv_bytes_per_token",
        "state_bytes_per_sequence",
        "max_context",
        "source",
    }
    assert data["active_parameters"] == pytest.approx(37.6e9, rel=0.01)  # arXiv 2412.19437: 37B
    assert data["kv_bytes_per_token"] == 70_272
    assert data["source"] == "config"
