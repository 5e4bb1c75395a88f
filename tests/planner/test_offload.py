"""llama.cpp on GPUs: how much of a model goes there, against what llama-server itself allocates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from models import GIB, MIB, SMOL

from yibu.planner.explain import explain
from yibu.planner.layers import Layer, Layers
from yibu.planner.ledger import Reservation, less_reserved, reserved_host, reserved_memory
from yibu.planner.plan import place_anyway, plan
from yibu.planner.request import Request
from yibu.planner.types import Accelerator, Gpu, Machine, ModelFacts, ModelPlan, Offload, Placement
from yibu.weights.gguf import ArrayLength

MACHINE = Machine("here", 8, 16, 64 * GIB, 48 * GIB)

SMOLLM2 = replace(
    SMOL,
    weight_bytes=96_575_616,
    by_layer=Layers((Layer(2_216_448, 0, 552_960),) * 30, 30_081_024, 30_083_328, 30_081_024),
)
"""As its file says it."""

LLAMA_8B = replace(
    SMOLLM2,
    weight_bytes=4920 * MIB,
    layers=32,
    attention_heads=32,
    kv_heads=8,
    head_dim=128,
    details={
        "llama.embedding_length": 4096,
        "llama.feed_forward_length": 14336,
        "tokenizer.ggml.tokens": ArrayLength(128256),
    },
    by_layer=Layers((Layer(135 * MIB, 0, 33 * MIB),) * 32, 250 * MIB, 350 * MIB),
)
EXPERTS = replace(
    LLAMA_8B, by_layer=Layers((Layer(135 * MIB, 120 * MIB, 40 * MIB),) * 32, 250 * MIB, 350 * MIB)
)


def card(free: int, index: int = 0, total: int = 24 * GIB) -> Gpu:
    return Gpu(index, "NVIDIA GeForce RTX 4090", total, free)


def vulkan(*free: int) -> Accelerator:
    gpus = tuple(card(one, n) for n, one in enumerate(free))
    return Accelerator("Vulkan", gpus, tuple(f"Vulkan{n}" for n in range(len(free))))


def planned(
    facts: ModelFacts, accelerator: Accelerator | None, machine: Machine = MACHINE, **asked: Any
) -> ModelPlan:
    return plan([request(facts, accelerator, **asked)], machine)[0]


def request(facts: ModelFacts, accelerator: Accelerator | None, **asked: Any) -> Request:
    return Request("m", "slots", facts, accelerator=accelerator, **asked)


def placed(verdict: ModelPlan) -> tuple[Placement, Offload]:
    assert verdict.placement.offload is not None
    return verdict.placement, verdict.placement.offload


# What llama-server 0.7.0 (b11669, Debian) prints at -lv 5 for SmolLM2-135M Q4_1 with its Vulkan
# backend on Mesa's llvmpipe: bytes in MiB of its model, KV and compute buffers, on the device and in
# main memory.
MEASURED = [
    # ngl, context, sequences, ubatch: device model, KV, compute; host model, KV, compute
    (31, 512, 1, None, 92.10, 11.25, 14.01, 28.69, 0.0, 5.02),
    (31, 4096, 1, None, 92.10, 90.00, 17.51, 28.69, 0.0, 8.52),
    (31, 16384, 1, None, 92.10, 360.00, 29.51, 28.69, 0.0, 20.52),
    (31, 32768, 1, None, 92.10, 720.00, 45.51, 28.69, 0.0, 36.52),
    (31, 4096, 4, None, 92.10, 360.00, 17.51, 28.69, 0.0, 8.52),
    (31, 16384, 1, 2048, 92.10, 360.00, 118.05, 28.69, 0.0, 82.07),
    (20, 4096, 1, None, 68.85, 57.00, 19.75, 51.94, 33.00, 8.52),
]


@pytest.mark.parametrize("row", MEASURED, ids=str)
def test_what_is_planned_is_what_llama_server_allocates(row: tuple[float, ...]) -> None:
    layers, context, parallel, ubatch, *sizes = row
    weights, cache, compute, host_weights, host_cache, host_compute = (s * MIB for s in sizes)
    facts = replace(SMOLLM2, max_context=32768)
    asked = {"gpu_layers": layers, "context": context, "parallel": parallel, "batched": ubatch}
    _, found = placed(planned(facts, vulkan(16 * GIB), **asked, prompt_cache=0))
    assert found.gpu_layers == layers
    (need,), host = found.needs, found.host
    assert need.weights == pytest.approx(weights, rel=0.002)
    assert need.kv_cache == pytest.approx(cache, rel=0.002)
    assert host.weights == pytest.approx(host_weights, rel=0.002)
    assert host.kv_cache == pytest.approx(host_cache, rel=0.002)
    borrowed = 552_960 if layers < 31 else 0
    assert need.overhead - 128 * MIB - borrowed == pytest.approx(compute, rel=0.005)
    output = 4 * 49152 * parallel
    assert host.overhead - (64 + 256) * MIB - output == pytest.approx(host_compute, rel=0.005)


def test_a_model_that_fits_is_whole_on_one_card() -> None:
    placement, found = placed(planned(LLAMA_8B, vulkan(6 * GIB, 20 * GIB)))
    assert found.whole
    assert found.names == ("Vulkan1",)
    assert placement.parallel == 4
    assert placement.gpus == ()


@pytest.mark.parametrize("free", range(1, 12))
def test_what_does_not_fit_is_divided_and_nothing_is_lost(free: int) -> None:
    verdict = planned(LLAMA_8B, vulkan(free * GIB), parallel=1)
    _, found = placed(verdict)
    (need,), host = found.needs, found.host
    assert need.total <= free * GIB
    assert need.weights + host.weights == 32 * 135 * MIB + 600 * MIB
    assert need.kv_cache + host.kv_cache == 8192 * 32 * 2 * 8 * 128 * 2
    said = " ".join(verdict.reasons)
    if found.whole:
        assert free >= 6
    else:
        assert f"{found.gpu_layers} of 33 layers are there" in said
        more = planned(LLAMA_8B, vulkan(free * GIB), parallel=1, gpu_layers=found.gpu_layers + 1)
        assert more.verdict != "fits"


def test_layers_that_were_asked_for_and_do_not_fit_are_refused_with_those_that_do() -> None:
    verdict = planned(LLAMA_8B, vulkan(2 * GIB), gpu_layers=33)
    assert verdict.verdict == "does_not_fit"
    (hint,) = (hint for hint in verdict.suggestions if "gpu_layers" in hint)
    fitting = int(hint.split("`")[1].split()[-1])
    assert placed(planned(LLAMA_8B, vulkan(2 * GIB), gpu_layers=fitting))[1].gpu_layers == fitting


def test_more_memory_is_never_fewer_layers() -> None:
    counts = [
        placed(planned(LLAMA_8B, vulkan(n * 256 * MIB), parallel=1))[1].gpu_layers
        for n in range(4, 40)
    ]
    assert counts == sorted(counts)
    assert counts[-1] == 33


def test_each_suggestion_brings_all_of_it_onto_the_card() -> None:
    verdict = planned(LLAMA_8B, vulkan(int(5.8 * GIB)), parallel=1)
    assert not placed(verdict)[1].whole
    kinds = [hint for hint in verdict.suggestions if "cache_type_k" in hint]
    lengths = [hint for hint in verdict.suggestions if hint.startswith("`context")]
    kind = kinds[0].split("`")[1].split()[-1]
    assert placed(planned(LLAMA_8B, vulkan(int(5.8 * GIB)), parallel=1, kv_dtype=kind))[1].whole
    length = int(lengths[0].split("`")[1].split()[-1])
    assert placed(planned(LLAMA_8B, vulkan(int(5.8 * GIB)), parallel=1, context=length))[1].whole


def test_of_a_mixture_the_experts_stay_in_main_memory_first() -> None:
    verdict = planned(EXPERTS, vulkan(4 * GIB), parallel=1)
    _, found = placed(verdict)
    assert found.gpu_layers == 33
    assert 0 < found.cpu_moe < 32
    assert found.host.weights == 250 * MIB + found.cpu_moe * 120 * MIB
    assert f"experts of the first {found.cpu_moe} layers" in " ".join(verdict.reasons)
    fewer = planned(EXPERTS, vulkan(4 * GIB), parallel=1, cpu_moe=found.cpu_moe - 1)
    assert placed(fewer)[1].gpu_layers < 33
    _, all_kept = placed(planned(EXPERTS, vulkan(20 * GIB), parallel=1, cpu_moe=32))
    assert (all_kept.gpu_layers, all_kept.cpu_moe) == (33, 32)


def test_two_cards_share_a_model_that_is_too_large_for_one() -> None:
    machine = replace(MACHINE, gpus=(card(4 * GIB, 0), card(5 * GIB, 1)))
    placement, found = placed(planned(LLAMA_8B, Accelerator("CUDA"), machine, parallel=1))
    assert placement.gpus == (0, 1)
    assert found.whole
    assert sum(found.split) == 33
    assert all(found.split)
    rooms = (4 * GIB - max(256 * MIB, 24 * GIB // 50), 5 * GIB - max(256 * MIB, 24 * GIB // 50))
    assert all(
        need.total <= room + 24 * GIB // 50 for need, room in zip(found.needs, rooms, strict=True)
    )
    assert placement.need == max(found.needs, key=lambda need: need.total)


def test_projector_and_draft_are_counted_on_the_first_card() -> None:
    _, plain = placed(planned(LLAMA_8B, vulkan(20 * GIB), parallel=1))
    seeing = replace(
        LLAMA_8B, weight_bytes=LLAMA_8B.weight_bytes + 800 * MIB, projector_bytes=800 * MIB
    )
    _, with_projector = placed(planned(seeing, vulkan(20 * GIB), parallel=1))
    assert with_projector.needs[0].total - plain.needs[0].total >= 800 * MIB
    _, with_draft = placed(planned(LLAMA_8B, vulkan(20 * GIB), parallel=1, draft=SMOLLM2))
    more = with_draft.needs[0].total - plain.needs[0].total
    assert more >= SMOLLM2.weight_bytes + 8192 * 30 * 2 * 3 * 64 * 2


def test_two_models_do_not_take_the_same_memory_twice() -> None:
    requests = [replace(request(LLAMA_8B, vulkan(11 * GIB), parallel=1), name=n) for n in "ab"]
    first, second = (placed(found)[1] for found in plan(requests, MACHINE))
    assert first.whole
    assert not second.whole
    assert first.needs[0].total + second.needs[0].total <= 11 * GIB
    cards = replace(MACHINE, gpus=(card(11 * GIB),))
    requests = [replace(one, accelerator=Accelerator("CUDA")) for one in requests]
    first, second = (placed(found)[1] for found in plan(requests, cards))
    assert first.needs[0].total + second.needs[0].total <= 11 * GIB


@pytest.mark.parametrize(
    ("accelerator", "asked"),
    [
        (None, {}),
        (vulkan(20 * GIB), {"gpus": ()}),
        (vulkan(20 * GIB), {"gpu_layers": 0}),
        (vulkan(100 * MIB), {}),
        (Accelerator("CUDA"), {}),
    ],
    ids=["cpu build", "gpus: []", "gpu_layers: 0", "no room", "no card"],
)
def test_without_a_gpu_it_is_the_cpus(accelerator: Accelerator | None, asked: Any) -> None:
    verdict = planned(LLAMA_8B, accelerator, **asked)
    assert verdict.verdict == "fits"
    assert verdict.placement.offload is None


def test_a_gpu_that_is_not_there_is_named() -> None:
    verdict = planned(LLAMA_8B, vulkan(20 * GIB), gpus=(3,))
    assert verdict.verdict == "does_not_fit"
    assert "GPU 3 was asked for, and llama.cpp sees 0 (NVIDIA" in verdict.reasons[0]


def test_too_large_for_both_is_refused_and_can_be_forced() -> None:
    small = replace(MACHINE, memory_total=4 * GIB, memory_available=3 * GIB)
    asked = request(LLAMA_8B, vulkan(GIB))
    (verdict,) = plan([asked], small)
    assert verdict.verdict == "does_not_fit"
    forced = place_anyway(asked, small)
    assert forced.offload is not None


def test_layers_of_another_quantization_are_scaled_to_its_weights() -> None:
    half = replace(LLAMA_8B, weight_bytes=LLAMA_8B.weight_bytes // 2)
    _, found = placed(planned(half, vulkan(20 * GIB), parallel=1))
    assert found.needs[0].weights == pytest.approx((32 * 135 + 350) * MIB / 2, rel=0.001)
    unread = replace(LLAMA_8B, by_layer=None)
    _, found = placed(planned(unread, vulkan(20 * GIB), parallel=1))
    assert found.needs[0].weights + found.host.weights >= LLAMA_8B.weight_bytes


def test_the_explanation_has_each_device_and_main_memory() -> None:
    asked = request(LLAMA_8B, vulkan(4 * GIB), parallel=1)
    rows = {row.label: row for row in explain(asked, plan([asked], MACHINE)[0])}
    assert "memory: device Vulkan0" in rows
    assert "memory: main" in rows
    assert rows["layers on GPUs"].value.endswith("of 33")


def test_main_memory_beside_a_card_is_reserved_too() -> None:
    machine = replace(MACHINE, gpus=(card(4 * GIB, total=4 * GIB),))
    placement, found = placed(planned(LLAMA_8B, Accelerator("CUDA"), machine, parallel=1))
    reservation = Reservation(
        "m-0", placement.gpus, reserved_memory(placement), host=reserved_host(placement)
    )
    assert reservation.missing == found.host.total
    left = less_reserved(machine, [reservation])
    assert left.memory_available == machine.memory_available - found.host.total
    assert left.gpus[0].free < GIB
    on_vulkan, there = placed(planned(LLAMA_8B, vulkan(4 * GIB), parallel=1))
    assert reserved_host(on_vulkan) == 0
    assert reserved_memory(on_vulkan) == there.host.total
