"""What a plan advises when a model does not fit, and how one is started all the same."""

from __future__ import annotations

from dataclasses import replace

from models import GIB, gpu, machine_with, vllm

from yibu.messages import render, use
from yibu.planner.plan import place_anyway, plan

# ---------------------------------------------------------------------------- what is advised


def test_an_8_bit_cache_is_advised_only_where_it_works_and_fits() -> None:
    """A 1.5B model's 131,072 tokens: 2.9 + 1.3 of 7.8 GiB leave 3.6, and 3.5 are needed; so the
    card is a little smaller here, and half the cache is what fits."""
    for capability, free, advised in (
        ((8, 9), None, True),
        ((8, 6), None, False),
        ((8, 9), 5.0, False),
    ):
        card = gpu(0, 7.2, free, compute_capability=capability)
        (result,) = plan([vllm("Qwen2.5-1.5B")], machine_with(card))
        assert result.verdict == "fits_reduced"
        assert any("fp8" in hint for hint in result.suggestions) is advised


def test_the_same_is_advised_in_every_language() -> None:
    """Which advice applies is not read from its words."""
    card = gpu(0, 16, compute_capability=(8, 9))
    english = plan([vllm("Qwen2.5-7B", context=100_000)], machine_with(card))[0].suggestions
    use("zh_CN")
    try:
        chinese = plan([vllm("Qwen2.5-7B", context=100_000)], machine_with(card))[0].suggestions
    finally:
        use("en")
    assert [render(one, "zh_CN") for one in english] == list(chinese)
    assert any("GPUs of 16.0 GiB" in one for one in english)


def test_a_budget_beyond_what_is_free_is_named_as_the_reason() -> None:
    models = [vllm("Qwen2.5-1.5B", memory=18 * GIB), vllm("Qwen3-0.6B", memory=8 * GIB)]
    _, refused = plan(models, machine_with(gpu(0, 24)))
    assert refused.verdict == "does_not_fit"
    (reason,) = refused.reasons
    assert "its budget, 8.0 GiB by `memory:`, is more than the 5.5 GiB that is free" in reason
    assert refused.suggestions == ("a smaller `memory:`; it needs 2.5 GiB at least",)


def test_more_gpus_are_reckoned_with_the_users_own_fraction() -> None:
    # 135 GiB: a half of 48 holds an eighth of it (17), and not a quarter (34), as a whole does.
    for share, fewest in ((0.5, 8), (None, 4)):
        cards = machine_with(gpu(0, 48), gpu(1, 48))
        (result,) = plan([vllm("Qwen2.5-72B", memory_share=share)], cards)
        assert any(f"{fewest} GPUs of 48.0 GiB" in hint for hint in result.suggestions)


def test_why_a_small_model_takes_a_whole_card() -> None:
    (result,) = plan([vllm("Qwen3-0.6B")], machine_with(gpu(0, 80)))
    assert any("would do; what is free beyond goes to" in reason for reason in result.reasons)


# ---------------------------------------------------------------------------- by force


def test_by_force_on_the_cpu() -> None:
    request = replace(vllm("Qwen2.5-72B"), gpus=())
    (result,) = plan([request], machine_with(memory=16))
    assert result.verdict == "does_not_fit"
    placement = place_anyway(request, machine_with(memory=16))
    assert (placement.gpus, placement.context, placement.parallel) == ((), 1024, 1)
    asked = place_anyway(replace(request, context=4096, memory=GIB), machine_with(memory=16))
    assert asked.context == 4096


def test_by_force_on_gpus() -> None:
    machine = machine_with(gpu(0, 24), gpu(1, 24))
    placement = place_anyway(vllm("Qwen2.5-72B"), machine)
    assert (set(placement.gpus), placement.tensor_parallel) == ({0, 1}, 2)
    assert (placement.context, placement.memory_share) == (1024, 0.95)
    own = place_anyway(vllm("Qwen2.5-72B", memory_share=0.8, gpus=(1,)), machine)
    assert (own.gpus, own.memory_share) == ((1,), 0.8)
    # No force makes a card that is not there.
    assert place_anyway(vllm("Qwen2.5-72B", gpus=(7,)), machine) is None
