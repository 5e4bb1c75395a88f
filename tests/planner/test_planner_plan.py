"""Placement: budgets, orders, the CPU, and properties that hold for any model and machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from models import GIB, MIB, SMOL, facts_of, gpu, machine_with, placed, vllm

from yibu.config import ModelConfig
from yibu.engines.registry import by_name
from yibu.errors import ConfigError
from yibu.planner import cpu
from yibu.planner.explain import explain, explain_machine
from yibu.planner.gpu_need import margin
from yibu.planner.ledger import Reservation, less_reserved, reserved_memory
from yibu.planner.machine_file import BUILT_IN
from yibu.planner.plan import place_beside, plan
from yibu.planner.request import Request
from yibu.planner.types import GpuProcess, Machine, ModelFacts, ModelPlan

# ---------------------------------------------------------------------------- GPUs


def test_budgets_become_fractions_and_an_order() -> None:
    models = [
        vllm("Qwen3-0.6B", memory=6 * GIB),
        vllm("Qwen2.5-1.5B", memory=12 * GIB, context=8192),
    ]
    small, large = plan(models, machine_with(gpu(0, 24)))
    for result, budget in ((small, 6), (large, 12)):
        placement = result.placement
        assert placement.budget == budget * GIB
        assert placement.memory_share is not None
        # Below budget ÷ total, since the graphs come after the share: 10 MiB a layer.
        graphs = 280 * MIB
        assert placement.memory_share == int((budget * GIB - graphs) / (24 * GIB) * 1000) / 1000
        assert placement.need.total == placement.budget
    # On one GPU they start one after the other, the larger first.
    assert (large.placement.start_order, small.placement.start_order) == (0, 1)


def test_without_budgets_what_is_left_is_shared() -> None:
    first, second = plan(
        [vllm("Qwen2.5-1.5B", context=4096), vllm("Qwen3-0.6B", context=4096)],
        machine_with(gpu(0, 24)),
    )
    total = first.placement.budget + second.placement.budget
    assert 23 * GIB < total <= 24 * GIB - margin(gpu(0, 24))
    # Weights + overhead + 4,096 tokens: 2.88 + 1.30 + 0.11 and 1.11 + 1.25 + 0.44; what is left
    # of 23.52 is halved.
    least_first, least_second = 4.29 * GIB, 2.80 * GIB
    extra = (23.52 * GIB - least_first - least_second) / 2
    assert first.placement.budget == pytest.approx(least_first + extra, rel=0.01)
    assert second.placement.budget == pytest.approx(least_second + extra, rel=0.01)


def test_models_spread_over_gpus_start_together() -> None:
    machine = machine_with(gpu(0, 24), gpu(1, 24))
    results = plan([vllm("Qwen2.5-7B"), vllm("Qwen3-8B")], machine)
    placements = [result.placement for result in results]
    assert [p.start_order for p in placements if p] == [0, 0]
    assert {p.gpus for p in placements if p} == {(0,), (1,)}


def test_a_long_default_context_gives_way_to_a_neighbour() -> None:
    # Alone each takes 131,072 tokens and most of the card; together they get 32,768.
    results = plan([vllm("Qwen2.5-1.5B"), vllm("Llama-3.1-8B")], machine_with(gpu(0, 32)))
    assert [result.verdict for result in results] == ["fits_reduced", "fits_reduced"]
    assert [r.placement.context for r in results if r.placement] == [32_768, 32_768]
    # One that was asked for does not give way.
    asked = [vllm("Qwen2.5-1.5B", context=131_072), vllm("Llama-3.1-8B", context=8192)]
    assert [r.verdict for r in plan(asked, machine_with(gpu(0, 32)))] == ["fits", "fits"]


def test_named_gpus_are_all_used() -> None:
    machine = machine_with(*(gpu(index, 24) for index in range(4)))
    result = placed(vllm("Qwen2.5-7B", gpus=(1, 2)), machine)
    assert result.gpus == (1, 2)
    assert result.tensor_parallel == 2


def test_a_gpu_that_is_not_there() -> None:
    (result,) = plan([vllm("Qwen2.5-7B", gpus=(0, 5))], machine_with(gpu(0, 24)))
    assert result.verdict == "does_not_fit"
    assert "GPU 5 was asked for, and this machine has 0" in result.reasons[0]


def test_heads_that_do_not_divide() -> None:
    machine = machine_with(*(gpu(index, 24) for index in range(4)))
    (result,) = plan([vllm("Qwen2.5-7B", tensor_parallel=3)], machine)
    assert result.verdict == "does_not_fit"
    assert "28 attention heads cannot be divided by 3" in result.reasons[0]
    assert result.suggestions == ("`tensor_parallel: 4`",)


def test_more_gpus_than_there_are() -> None:
    (result,) = plan([vllm("Qwen2.5-7B", tensor_parallel=4)], machine_with(gpu(0, 24)))
    assert "tensor parallel 4 was asked for, and 1 GPUs are usable" in result.reasons[0]


def test_what_others_hold_counts_and_is_named() -> None:
    holder = GpuProcess(4242, "python", 14 * GIB)
    machine = machine_with(gpu(0, 24, free=9.5, processes=(holder,)))
    (result,) = plan([vllm("Qwen2.5-7B")], machine)
    assert result.verdict == "does_not_fit"
    assert "stop python (pid 4242): it holds 14.0 GiB" in result.suggestions
    # Half the weights in four bits fit in what is free.
    assert any("4-bit variant" in suggestion for suggestion in result.suggestions)


def test_suggestions_were_tried() -> None:
    (result,) = plan([vllm("Llama-3.1-70B")], BUILT_IN["2x24g"])
    assert result.verdict == "does_not_fit"
    # 131.42 ÷ 8 × 1.01 = 16.6, + overhead 2.3 leaves 4.6 of 23.5: ÷ 40,960 = 121,000 tokens.
    (more,) = (s for s in result.suggestions if "GPUs of" in s)
    assert more.startswith("8 GPUs of 24.0 GiB hold it with 12")
    # Four bits: 68.5 G × 4.16 bits + 2.1 G × 2 = 37.1, half of it 18.7 and overhead 2.3.
    assert any("4-bit variant" in suggestion for suggestion in result.suggestions)


def test_old_cards() -> None:
    result = placed(vllm("Qwen2.5-1.5B"), BUILT_IN["t4-16g"])
    assert result.dtype == "float16"
    assert any("does not compute in bfloat16" in reason for reason in result.reasons)
    (result,) = plan([vllm("Qwen2.5-1.5B")], machine_with(gpu(0, 8, compute_capability=(6, 1))))
    assert result.verdict == "does_not_fit"
    assert "compute capability 7.0" in result.reasons[0]


def test_replicas_take_gpus_of_their_own() -> None:
    machine = machine_with(gpu(0, 24), gpu(1, 24))
    (result,) = plan([vllm("Qwen2.5-7B", replicas=2)], machine)
    assert [placement.gpus for placement in result.replicas] == [(0,), (1,)]
    (result,) = plan([vllm("Qwen2.5-7B", replicas=3, context=131_072)], machine)
    assert result.verdict == "does_not_fit"
    assert result.reasons[0].startswith("2 of 3 replicas fit")
    assert result.suggestions[0] == "`replicas: 2`"


def test_a_share_of_the_users_own_is_kept() -> None:
    (result,) = plan(
        [vllm("Qwen2.5-1.5B", memory_share=0.5, context=4096)], machine_with(gpu(0, 24))
    )
    assert result.placement.memory_share == 0.5
    assert result.placement.budget == 12 * GIB


def test_a_budget_too_small_says_what_would_do() -> None:
    (result,) = plan([vllm("Qwen2.5-7B", memory=8 * GIB)], machine_with(gpu(0, 24)))
    assert result.verdict == "does_not_fit"
    assert "its budget is 8.0 GiB" in result.reasons[0]
    assert result.suggestions[0].startswith("raise `memory:` to 15.")


# ---------------------------------------------------------------------------- CPU


def test_llama_on_a_cpu() -> None:
    request = Request("smol", "slots", SMOL, context=4096, parallel=8)
    (result,) = plan([request], machine_with(memory=24, cores=2))
    placement = result.placement
    assert result.verdict == "fits"
    assert (placement.context, placement.parallel, placement.threads) == (4096, 8, 2)
    assert placement.need.weights == 96_576_768
    assert placement.need.kv_cache == 2 * 30 * 3 * 64 * 2 * 4096 * 8
    assert placement.gpus == ()


def test_a_cpu_with_little_memory_gets_fewer_slots_then_fewer_tokens() -> None:
    def with_left(mib: int) -> ModelPlan:
        machine = Machine("m", 4, 4, 0, mib * MIB + 512 * MIB)
        return plan([Request("smol", "slots", SMOL)], machine)[0]

    # Weights 92.1, cache 180 MiB a slot of 8,192 tokens, overhead 64 + 22.6 + 0.2 a slot.
    full = with_left(92 + 4 * 180 + 90).placement
    assert (full.context, full.parallel) == (8192, 4)
    fewer = with_left(92 + 2 * 180 + 90).placement
    assert (fewer.context, fewer.parallel) == (8192, 2)
    result = with_left(92 + 120 + 90)
    assert result.verdict == "fits_reduced"
    assert result.placement.parallel == 1
    assert 4096 < result.placement.context < 8192
    assert result.placement.context % cpu.CONTEXT_STEP == 0
    assert with_left(150).verdict == "does_not_fit"


def test_threads_are_shared_and_a_core_is_kept_for_the_gateway() -> None:
    def threads(cores: int, sharing: int) -> int:
        return cpu.engine_threads(machine_with(cores=cores), sharing)

    assert [threads(cores, 1) for cores in (1, 2, 4, 8, 16, 64)] == [1, 2, 3, 7, 14, 62]
    assert threads(8, 2) == 3
    assert threads(2, 5) == 1


def test_speech_and_commands() -> None:
    sense = ModelFacts("sensevoice", "SenseVoiceSmall", 936_000_000)
    models = [
        Request("asr", "fixed", sense),
        Request("mine", "unmanaged"),
    ]
    asr, mine = plan(models, machine_with(memory=16))
    assert asr.verdict == "fits"
    assert asr.placement.context is None
    assert asr.placement.need.total == 936_000_000 + 512 * MIB
    assert mine.verdict == "fits"
    assert "not known to the planner" in mine.reasons[0]
    (refused, _) = plan(models, machine_with(memory=1))
    assert refused.verdict == "does_not_fit"


@pytest.mark.parametrize(
    ("options", "measured"),
    [  # at work, of a model of 936 MB in fp32 (benchmarks/engine_memory.py)
        ({"precision": "fp32"}, 1079),
        ({"precision": "bf16"}, 649),
        ({"precision": "int8"}, 450),
        ({}, 1079),  # by the processor: the most
        # FunASR's own way: 3.3 GB at the peak of loading.
        ({"path": "reference"}, 3.3e9 / MIB),
    ],
)
def test_speech_takes_what_was_measured_and_a_margin(
    options: dict[str, object], measured: float
) -> None:
    sense = ModelFacts("sensevoice", "SenseVoiceSmall", 936_000_000)
    request = by_name("speech").request(ModelConfig(name="asr", options=options), sense)
    verdict = placed(request, machine_with(memory=16))
    planned = verdict.need.total / MIB
    assert measured * 1.03 < planned < measured + 400


def test_models_beside_a_speech_model_are_counted(tmp_path: Path) -> None:
    paraformer = ModelFacts("paraformer", "Paraformer", 880_000_000)

    def weights(**options: str) -> int:
        config = ModelConfig(name="asr", options={"precision": "fp32", **options})
        verdict = placed(by_name("speech").request(config, paraformer), machine_with(memory=16))
        return verdict.need.weights

    assert weights() == 880_000_000
    assert weights(precision="int8") == 220_000_000
    assert (
        weights(punctuation="modelscope:iic/punc_ct-transformer_cn-en-common-vocab471067-large")
        == 2_040_000_000
    )
    assert weights(speakers="modelscope:other/campplus") == 908_800_000
    assert weights(online="paraformer-zh-streaming") > 880_000_000
    (tmp_path / "model.pt").write_bytes(b"x" * 5_000)
    assert weights(speakers=str(tmp_path)) == 880_005_000


@pytest.mark.parametrize(
    ("options", "cores", "measured"),
    [  # all its processes at work, less weights (benchmarks/engine_memory.py)
        ({}, 2, 1494),
        ({"distributed_executor_backend": "mp"}, 2, 1967),
        ({}, 8, 1967),  # bound to cores by a worker
        ({"threads": 6}, 8, 1494),
        ({"tensor_parallel": 3}, 2, 1967 + 2 * 310),
    ],
)
def test_vllm_on_a_cpu_takes_what_was_measured_and_a_fifth(
    options: dict[str, object], cores: int, measured: int
) -> None:
    options = {**options, "context": 1024, "parallel": 8}
    request = by_name("vllm").request(
        ModelConfig(name="m", options=options), facts_of("SmolLM2-135M")
    )
    verdict = placed(request, machine_with(memory=32, cores=cores))
    need, ranks = verdict.need, verdict.tensor_parallel
    assert 1.15 < need.overhead * ranks / MIB / measured < 1.35


def test_activations_grow_with_the_model() -> None:
    small, large = plan([vllm("Qwen2.5-1.5B"), vllm("Qwen2.5-7B")], machine_with(memory=99))
    # 2,048 tokens of four hidden and two feed-forward vectors in half precision, 32 rows of logits
    # three times in fp32, and a second copy of embeddings and output matrix, which are one of the
    # smaller model: 2 × 152,064 × 3584 × 2 − 151,936 × 1536 × 2.
    assert large.placement.need.overhead - small.placement.need.overhead == (
        (4 * 2048 + 2 * 9984) * 4096 + 32 * 128 * 12 + 2_179_989_504 - 466_747_392
    )


def test_vllm_on_a_cpu_shares_a_cache_of_four_sequences() -> None:
    request = vllm("SmolLM2-135M", context=8192, parallel=64)
    (result,) = plan([request], machine_with(memory=24, cores=2))
    assert (result.placement.parallel, result.placement.kv_tokens) == (64, 4 * 8192)
    # 30 layers × 3 heads × 64 × (key and value) × 2 bytes = 23,040 bytes a token; in steps of 64 MiB.
    assert result.placement.need.kv_cache == 768 * MIB
    assert any("shared by up to 64 sequences" in reason for reason in result.reasons)
    result = placed(request, machine_with(memory=2.8, cores=2))
    assert (result.parallel, result.kv_tokens) == (64, 8192)


def test_vllm_on_a_cpu_takes_a_cache_a_rank() -> None:
    request = vllm("SmolLM2-135M", context=2048, parallel=1)
    two = replace(request, tensor_parallel=3)
    result = placed(two, machine_with(memory=24, cores=2))
    assert result.tensor_parallel == 3
    assert result.need.kv_cache == 64 * MIB  # each of three
    (result,) = plan([replace(request, tensor_parallel=2)], machine_with(memory=24))
    assert result.verdict == "does_not_fit"
    assert "9 attention heads cannot be divided by 2" in result.reasons[0]


def test_a_grown_context_beyond_training_is_said() -> None:
    (result,) = plan([Request("m", "slots", SMOL, context=16_384)], machine_with())
    assert "beyond the 8,192 it was trained for" in result.reasons[0]


# ---------------------------------------------------------------------------- requests


def test_options_and_flags_are_read_alike() -> None:
    by_option = by_name("vllm").request(
        ModelConfig(
            "m",
            options={
                "context": 4096,
                "parallel": 8,
                "tensor_parallel": 2,
                "gpu-memory-utilization": 0.8,
                "kv_cache_dtype": "fp8",
                "enforce-eager": True,
            },
        ),
        None,
    )
    by_flag = by_name("vllm").request(
        ModelConfig(
            "m",
            options={"context": 9},
            flags=(
                "--max-model-len=4096",
                "--max-num-seqs",
                "8",
                "-tp",
                "2",
                "--gpu-memory-utilization",
                "0.8",
                "--kv-cache-dtype=fp8",
                "--enforce-eager",
                "--trust-remote-code",
            ),
        ),
        None,
    )
    assert replace(by_flag, context=4096) == by_option
    assert by_option.memory_share == 0.8
    assert by_option.eager


def test_stages_and_copies_take_gpus_of_their_own() -> None:
    machine = machine_with(*(gpu(i, 24) for i in range(8)))
    one = vllm("Qwen2.5-7B", context=4096, tensor_parallel=2)
    (alone,) = plan([one], machine)
    (staged,) = plan([replace(one, pipeline_parallel=2)], machine)
    (copied,) = plan([replace(one, pipeline_parallel=2, data_parallel=2)], machine)
    assert [len(p.placement.gpus) for p in (alone, staged, copied)] == [2, 4, 8]
    assert staged.placement.tensor_parallel == 2
    assert staged.placement.need.weights == pytest.approx(
        alone.placement.need.weights / 2, rel=0.01
    )
    assert copied.placement.need == staged.placement.need
    (refused,) = plan([replace(one, pipeline_parallel=8)], machine)
    assert "take 16 GPUs, and 8 are usable" in refused.reasons[0]


@pytest.mark.parametrize("flags", [("-pp", "2"), ("--pipeline-parallel-size=2",)])
def test_the_planner_reads_every_spelling_that_the_engine_does(flags: tuple[str, ...]) -> None:
    asked = by_name("vllm").request(ModelConfig("m", flags=flags), None)
    assert asked.pipeline_parallel == 2
    share = ModelConfig("m", flags=("--device-memory-utilization", "0.5"))
    assert by_name("vllm").request(share, None).memory_share == 0.5


def test_flags_win_over_options() -> None:
    model = ModelConfig("m", options={"context": 4096}, flags=("--max-model-len", "2k"))
    assert by_name("vllm").request(model, None).context == 2000


@pytest.mark.parametrize(
    "options",
    [
        {"context": "many"},
        {"parallel": -3},
        {"context": 1.5},
        {"gpu_memory_utilization": 1.5},
        {"gpu_memory_utilization": "half"},
        {"context": True},
    ],
)
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="was expected"):
        by_name("vllm").request(ModelConfig("m", options=options), None)


def test_auto_leaves_the_choice_to_the_planner() -> None:
    model = ModelConfig("m", flags=("--max-model-len", "auto", "--dtype", "auto"))
    request = by_name("vllm").request(model, None)
    assert request.context is None
    assert request.dtype is None


# ---------------------------------------------------------------------------- words


def test_an_explanation_shows_arithmetic_and_verdict() -> None:
    request = vllm("Llama-3.1-8B")
    (result,) = plan([request], BUILT_IN["rtx4090-24g"])
    rows = explain(request, result)
    by_label = {row.label: row for row in rows}
    assert by_label["verdict"].value.startswith("fits with max-model-len 58")
    assert by_label["memory: weights"].value == "15.0 GiB"
    assert by_label["cache"].value == "32 layers × 8 heads × 256 (key and value) × 2 bytes"
    assert by_label["cache a token"].value == "128 KiB"
    (result,) = plan([request], BUILT_IN["rtx3070-8g"])
    rows = explain(request, result)
    assert any(row.value == "does not fit" for row in rows)
    assert any(row.label == "try" for row in rows)


def test_a_machine_is_explained() -> None:
    holder = GpuProcess(7, "python", 2 * GIB)
    rows = explain_machine(machine_with(gpu(0, 24, free=22, processes=(holder,))))
    assert rows[-1].label == "GPU 0"
    assert "python (7) holds 2.0 GiB" in rows[-1].note


# ---------------------------------------------------------------------------- one after the other


def test_models_placed_one_after_the_other_share_a_gpu_as_in_one_plan() -> None:
    machine = machine_with(gpu(0, 24))
    first, second = vllm("Qwen3-0.6B", context=8192), vllm("Qwen2.5-1.5B", context=8192)
    _, alone = place_beside(first, [], machine)
    _, placed = place_beside(first, [second], machine)
    assert placed.budget < alone.budget
    left = less_reserved(machine, [Reservation("a-0", placed.gpus, reserved_memory(placed))])
    _, then = place_beside(second, [], left)
    together = plan([first, second], machine)
    assert [p.placement.budget for p in together if p.placement] == pytest.approx(
        [placed.budget, then.budget], rel=0.01
    )


def test_engines_that_come_up_together_divide_the_cores() -> None:
    machine = machine_with(cores=9)
    request = Request("a", "slots", SMOL)
    _, alone = place_beside(request, [], machine)
    _, placed = place_beside(request, [replace(request, name="b")], machine)
    assert (alone.threads, placed.threads) == (8, 4)


def test_who_does_not_fit_beside_what_comes_is_placed_alone() -> None:
    machine = machine_with(gpu(0, 24))
    greedy = vllm("Qwen2.5-1.5B", memory=23 * GIB)
    verdict, placed = place_beside(vllm("Qwen3-0.6B"), [greedy], machine)
    assert placed is not None
    assert verdict.placement == placed
    assert place_beside(vllm("Qwen3-0.6B", memory=30 * GIB), [], machine)[1] is None


def test_what_is_on_a_cpu_is_not_said_of_gpus() -> None:
    request = vllm("SmolLM2-135M", context=2048, tensor_parallel=3)
    (two,) = plan([request], machine_with(memory=24))
    text = " ".join(f"{row.value} {row.note}" for row in explain(request, two))
    assert "for each rank" in text
    assert "3 heads / 3 ranks" in text
    assert "GPU" not in text
    sense = ModelFacts("sensevoice", "SenseVoiceSmall", 936_000_000)
    asr = Request("asr", "fixed", sense)
    (verdict,) = plan([asr], machine_with())
    rows = explain(asr, verdict)
    assert "memory: KV cache" not in [row.label for row in rows]
    assert "counted in fp32" in verdict.reasons[1]
    assert len(plan([replace(asr, precision="int8")], machine_with())[0].reasons) == 1
