"""Configs of published models, and of every class that has a rule: parameters and cache.

published.json has values of published config.json files, what transformers counts for them on torch's
meta device (or the count that was published, where its code lies beside the weights), and the cache
a token by hand: products of layers, heads, widths and bytes. class_counts.json has the count of each
class with the config it makes by itself. scripts/transformers_counts.py makes both anew.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from models import ROWS

from yibu.planner.explain import facts_data
from yibu.planner.facts import facts_from_headers
from yibu.planner.hf.encoders import RULES
from yibu.planner.hf.families import FAMILIES
from yibu.planner.hf.model import describe
from yibu.planner.hf.settings import class_defaults

COUNTS: dict[str, tuple[str, int]] = json.loads(
    (Path(__file__).parent / "class_counts.json").read_text(encoding="utf-8")
)
SET_WHEN_MADE = {
    "flint": "layer types",
    "kimi_linear": "layer types",
    "lfm3": "layer types",
    "mimo_v2_flash": "layer types",
    "minicpm3": "the width of a value head",
    "nemotron_h": "layer types",
    "zamba2": "the width of its feed-forward part",
}
"""Classes that set what matters only when one is made, so that their defaults do not say it."""
LONGCAT = "longcat_flash"
"""Its class makes projections for experts that have no weights."""
DECODER_ALONE = {"blenderbot", "blenderbot-small", "mvp", "plbart", "openai-gpt"}
"""Their class that makes text is the decoder without its encoder."""


def test_the_table_is_wide() -> None:
    assert len(ROWS) >= 80
    assert len({row["config"]["model_type"] for row in ROWS}) >= 60
    assert all(row["source"] for row in ROWS)
    assert len(COUNTS) >= 150


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_a_published_model(row: dict[str, Any]) -> None:
    facts = facts_from_headers(name=row["name"], config=row["config"])
    data = facts_data(facts)
    assert not facts.unknown
    counted = row["counted_by"] == "transformers"
    assert data["parameters"] == pytest.approx(row["parameters"], rel=0.005 if counted else 0.015)
    assert data["kv_bytes_per_token"] == sum(map(math.prod, row["kv"]))
    assert 0 < data["active_parameters"] <= data["parameters"]


@pytest.mark.parametrize(
    "name",
    sorted(
        name
        for name in {*COUNTS} - {*SET_WHEN_MADE} - DECODER_ALONE - {LONGCAT}
        if "nested" not in class_defaults()[name]
    ),
)
def test_the_config_that_a_class_makes_by_itself(name: str) -> None:
    architecture, parameters = COUNTS[name]
    stated = class_defaults()[name]
    config = {"architectures": [architecture], "model_type": name, **stated}
    assert describe(config).weights.total == pytest.approx(parameters, rel=0.015)


def test_every_rule_has_a_source() -> None:
    assert all(family.source for family in FAMILIES.values())
    assert len(FAMILIES) + len(RULES) >= 150


@pytest.mark.parametrize(
    "odd",
    [
        {"sliding_window": -1},
        {"sliding_window": False},
        {"num_key_value_heads": [8] * 32},
        {"intermediate_size": [14336] * 32},
        {"max_position_embeddings": 131072.0},
        {"model_max_length": 10**30},
        {"rope_scaling": None},
        {"moe_layer_freq": [0] * 32},
        {"pad_token_id": -1, "attention_multiplier": 0.0078125},
    ],
)
def test_valid_configs_are_not_damaged(odd: dict[str, Any]) -> None:
    plain = next(row for row in ROWS if row["name"] == "Llama-2-7B")["config"]
    config = {**plain, "intermediate_size": 14336, "num_key_value_heads": 8}
    expected = describe(config).weights.total
    facts = facts_from_headers(name="m", config={**config, **odd})
    assert not facts.unknown
    assert facts.parameters == expected
    assert facts_data(facts)["kv_bytes_per_token"] == 131_072  # type: ignore[index]


@pytest.mark.parametrize(
    ("change", "tokens"),
    [
        # vllm/config/model.py, _get_and_verify_max_len, of vLLM 0.32
        ({"max_position_embeddings": 8192, "model_max_length": 131072}, 131072),
        ({"rope_scaling": {"rope_type": "linear", "factor": 4.0}}, 16384),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, 8192),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 4096),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 4096),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, 8192),
        ({"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0}}}, 32768),
        (
            {
                "max_position_embeddings": 131072,
                "original_max_position_embeddings": 4096,
                "rope_scaling": {"type": "longrope", "short_factor": [1.0]},
            },
            4096,
        ),
        ({"max_position_embeddings": None, "seq_length": 2048}, 2048),
    ],
)
def test_the_context_is_what_vllm_derives(change: dict[str, Any], tokens: int) -> None:
    plain = next(row for row in ROWS if row["name"] == "Llama-2-7B")["config"]
    facts = facts_from_headers(name="m", config={**plain, **change})
    assert facts.max_context == tokens
