"""What LoRA adapters take of the memory, and where the plan shows it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from models import facts_of

from yibu.config import ModelConfig
from yibu.engines.registry import by_name
from yibu.planner.explain import explain
from yibu.planner.lora import Slots, kept_bytes, slot_bytes
from yibu.planner.machine_file import BUILT_IN
from yibu.planner.plan import plan
from yibu.planner.request import Request
from yibu.planner.types import Machine

GIB, MIB = 1 << 30, 1 << 20
CPU = Machine("m", 8, 16, 64 * GIB, 64 * GIB)


# A layer of Llama-3.1-8B from n to m elements, n + m: q and o 4096 + 4096, k and v 4096 + 1024,
# gate, up and down 4096 + 14336: 81,920 in all, × 32 layers × rank 16 = 41,943,040, which is what
# peft prints for r=16 on all linear layers. Vocabulary: 2 × (128,256 + 4,096) × 16 = 4,235,264.
@pytest.mark.parametrize(
    ("name", "slots", "tp", "elements"),
    [
        ("Llama-3.1-8B", Slots(), 1, 41_943_040 + 4_235_264),
        ("Llama-3.1-8B", Slots(count=4, rank=64), 1, 16 * (41_943_040 + 4_235_264)),
        # Of q, k, v alone: 8,192 + 2 × 5,120 = 18,432 × 32 × 16.
        ("Llama-3.1-8B", Slots(modules=frozenset({"q_proj", "k_proj", "v_proj"})), 1, 9_437_184),
        # Two GPUs: q 4096 + 2048, k and v 4096 + 512, gate and up 4096 + 7168, o 2048 + 4096,
        # down 7168 + 4096 = 55,296 × 32 × 16; the vocabulary whole.
        ("Llama-3.1-8B", Slots(), 2, 28_311_552 + 4_235_264),
        # Sharded whole: half of everything but the vocabulary.
        ("Llama-3.1-8B", Slots(sharded=True), 2, 20_971_520 + 4_235_264),
        # vLLM adapts no vocabulary of Qwen2's: 28 × 16 × (2 × 3072 + 2 × 1792 + 3 × 10496).
        ("Qwen2.5-1.5B", Slots(), 1, 28 * 16 * 41_216),
        # 48 layers: q and o 2 × (2048 + 4096), k and v 2 × (2048 + 512), router 2048 + 128, 128
        # experts of 3 × (2048 + 768) = 8,448 each; and the vocabulary, 2 × (151,936 + 2048).
        (
            "Qwen3-30B-A3B",
            Slots(),
            1,
            16 * (48 * (12_288 + 5_120 + 2_176 + 128 * 8_448) + 307_968),
        ),
        # Latents: q_a 7168 + 1536, q_b 1536 + 24576, kv_a 7168 + 576, kv_b 512 + 32768, o 16384 +
        # 7168 = 99,392 in 61 layers; three dense feed-forwards of 3 × (7168 + 18432), 58 of 256
        # experts and one shared of 3 × (7168 + 2048) and a router 7168 + 256.
        (
            "DeepSeek-V3",
            Slots(),
            1,
            16 * (61 * 99_392 + 3 * 76_800 + 58 * (257 * 27_648 + 7_424)),
        ),
    ],
)
def test_slots_are_as_large_as_the_layers_they_change(
    name: str, slots: Slots, tp: int, elements: int
) -> None:
    assert slot_bytes(facts_of(name), slots, tp) == 2 * elements


def test_adapters_that_are_kept_are_whole_and_without_the_vocabulary() -> None:
    assert kept_bytes(facts_of("Llama-3.1-8B"), Slots()) == 80 * MIB
    assert kept_bytes(facts_of("Llama-3.1-8B"), Slots(count=2, kept=5)) == 400 * MIB


def request(engine: str = "vllm", **options: object) -> Request:
    config = ModelConfig(name="m", options=options)
    return by_name(engine).request(config, facts_of("Llama-3.1-8B"))


def test_options_and_flags_ask_for_slots() -> None:
    assert request().lora is None
    assert request("llama.cpp", lora={"a": "/a"}).lora is None
    assert request(lora={"a": "/a"}).lora == Slots()
    asked = request(
        enable_lora=True, max_loras=3, max_lora_rank=64, max_cpu_loras=9, dtype="float32",
        fully_sharded_loras=True, lora_target_modules=["q_proj"],
    )  # fmt: skip
    assert asked.lora == Slots(3, 64, 9, 4, True, frozenset({"q_proj"}))
    flags = ("--enable-lora", "--max-lora-rank", "32", "--max-loras=2")
    config = ModelConfig(name="m", flags=flags)
    assert by_name("vllm").request(config, None).lora == Slots(count=2, rank=32)


def test_the_plan_counts_adapters_and_says_so() -> None:
    with_lora = request(lora={"a": "/a"}, max_loras=2, context=8192)
    without = replace(with_lora, lora=None)
    for machine in (CPU, BUILT_IN["1x80g"]):
        (adapted,), (plain,) = plan([with_lora], machine), plan([without], machine)
        # Slots: 2 × 46,178,304 × 2 bytes; in main memory the two adapters besides.
        expected = 184_713_216 + (0 if adapted.placement.gpus else 160 * MIB)
        assert adapted.placement.need.adapters == expected
        assert plain.placement.need.adapters == 0
        rows = {row.label: row for row in explain(with_lora, adapted)}
        assert "2 slots of rank 16" in rows["memory: LoRA adapters"].note
        assert "memory: LoRA adapters" not in {row.label for row in explain(without, plain)}
        need = adapted.placement.need
        assert need.total == need.weights + need.kv_cache + need.overhead + need.adapters
        if adapted.placement.gpus:  # what slots take is not there for cache
            assert plain.placement.need.kv_cache - need.kv_cache == expected
            assert adapted.placement.budget == plain.placement.budget
        assert "+ LoRA " in " ".join(adapted.reasons)


def test_adapters_can_be_what_does_not_fit() -> None:
    machine = replace(CPU, memory_total=24 * GIB, memory_available=24 * GIB)
    assert plan([request(context=1024)], machine)[0].verdict == "fits"
    (verdict,) = plan([request(context=1024, lora={"a": "/a"}, max_loras=64)], machine)
    assert verdict.verdict == "does_not_fit"
    assert "+ LoRA " in verdict.reasons[0]
    assert any("max_loras" in hint for hint in verdict.suggestions)
