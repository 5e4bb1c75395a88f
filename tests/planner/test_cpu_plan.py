"""Main memory and processors: llama.cpp's context and prompts, and the CPUs of vLLM's ranks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from models import GIB, MIB, SMOL, machine_with, placed

from yibu.config import ModelConfig
from yibu.engines.registry import by_name
from yibu.planner.cpu import rank_cpus
from yibu.planner.plan import plan
from yibu.planner.request import Request
from yibu.planner.types import Machine

# ---------------------------------------------------------------------------- llama.cpp's memory


def llama(*flags: str, **options: object) -> Request:
    config = ModelConfig("m", "ORG/NAME", options=options, flags=flags)
    return by_name("llama.cpp").request(config, SMOL)


@pytest.mark.parametrize(
    "request_",
    [llama(context=10_000_000), llama(n_ctx=10_000_000), llama("-c", "10000000")],
    ids=["context", "n_ctx", "-c"],
)
def test_a_context_beyond_the_machine_is_cut_with_its_reason(request_: Request) -> None:
    (result,) = plan([request_], machine_with(memory=16))
    placement = result.placement
    assert result.verdict == "fits_reduced"
    assert placement.context is not None
    assert placement.parallel == 1
    assert any("reduced from 10,000,000 to" in reason for reason in result.reasons)
    # A token takes 23,040 bytes of cache and 1,024 of mask. Of 16 GiB 0.8 are the system's and
    # about 0.2 go to weights and buffers: 15 GiB / 24,064 = 669,000 tokens, not ten million.
    assert 600_000 < placement.context < 700_000
    assert placement.need.total <= 16 * GIB - 16 * GIB // 20


def test_a_context_beyond_the_machine_that_leaves_none_is_refused() -> None:
    (result,) = plan([llama(n_ctx=10_000_000, parallel=64)], machine_with(memory=1))
    assert result.verdict == "does_not_fit"
    assert "`parallel: 1`" in " ".join(result.suggestions)


def test_the_engines_context_field_is_of_all_sequences_together() -> None:
    result = placed(llama(n_ctx=8192, parallel=4), machine_with())
    assert (result.context, result.parallel) == (2048, 4)
    alone = placed(llama(n_ctx=8192), machine_with())
    assert (alone.context, alone.parallel) == (8192, 1)


def test_past_prompts_are_counted_where_they_fit() -> None:
    (roomy,) = plan([llama()], machine_with(memory=16))
    without = placed(llama(prompt_cache=0), machine_with(memory=16))
    assert (roomy.placement.prompt_cache, without.prompt_cache) == (GIB, 0)
    assert roomy.placement.need.total - without.need.total == GIB
    assert any("1.0 GiB are kept for the prompts" in reason for reason in roomy.reasons)
    # 1.75 GiB, less the reserve of a half: the model's 0.9 leave five steps of 64 MiB.
    tight = Machine("m", 4, 4, 1792 * MIB, 1792 * MIB)
    (result,) = plan([llama()], tight)
    assert result.verdict == "fits"
    assert result.placement.prompt_cache is not None
    assert 0 < result.placement.prompt_cache < GIB
    assert result.placement.need.total <= (1792 - 512) * MIB


def test_a_prompt_cache_that_was_asked_for_takes_from_the_context() -> None:
    machine = Machine("m", 4, 4, 2 * GIB, 2 * GIB)
    (result,) = plan([llama(prompt_cache=1200)], machine)
    assert result.verdict == "fits_reduced"
    (result,) = plan([llama(prompt_cache=9000)], machine)
    assert result.verdict == "does_not_fit"
    assert "`prompt_cache: 0`" in " ".join(result.suggestions)


def test_a_4_bit_variant_is_advised_where_it_would_fit() -> None:
    half = replace(SMOL, weight_bytes=269_030_016, dtype="F16", quantization=None)
    for facts, memory, advised in (
        (half, 220 * MIB, True),  # 256.6 MiB of weights become 77.8, beside about 102 of others
        (half, 150 * MIB, False),
        (SMOL, 150 * MIB, False),  # it is one
    ):
        request = Request("m", "slots", facts, memory=memory)
        (result,) = plan([request], machine_with())
        assert result.verdict == "does_not_fit"
        assert any("4-bit" in hint for hint in result.suggestions) is advised


def test_keys_and_values_of_two_types_count_as_the_larger() -> None:
    assert llama().kv_dtype is None
    assert llama(cache_type_k="q8_0").kv_dtype == "f16"
    assert llama(cache_type_k="q4_0", cache_type_v="q8_0").kv_dtype == "q8_0"
    assert llama("-ctk", "q8_0", "-ctv", "f32").kv_dtype == "f32"


def test_a_larger_step_of_llama_cpp_is_counted() -> None:
    usual = placed(llama(prompt_cache=0), machine_with())
    large = placed(llama(prompt_cache=0, ubatch=2048), machine_with())
    # Four times the compute buffer: 512 × (2 × 8,192 + 4 × (3 × 1,536 + 5 × 576)) is 22.6 MiB.
    grown = large.need.overhead - usual.need.overhead
    assert grown == pytest.approx(3 * 22.6 * MIB, rel=0.01)


@pytest.mark.parametrize(
    ("context", "parallel", "compute"), [(1024, 4, 211.3), (4096, 1, 845.2), (4096, 4, 941.2)]
)
def test_a_model_that_embeds_takes_a_whole_input_in_one_step(
    context: int, parallel: int, compute: float
) -> None:
    asked = {"context": context, "parallel": parallel, "prompt_cache": 0}
    for request in (llama(**asked, embeddings=True), llama("--pooling", "mean", **asked)):
        result = placed(request, machine_with())
        # Beside llama.cpp's measured compute buffer: logits and a vector of each of its tokens.
        outputs = context * 4 * (49152 + 576) / MIB
        assert result.need.overhead / MIB == pytest.approx(64 + compute + outputs, rel=0.01)
    capped = placed(llama(**asked, embeddings=True, ubatch=512), machine_with())
    assert capped.need.overhead < result.need.overhead
    assert capped.context == context


def test_an_encoder_computes_no_logits() -> None:
    details = {f"bert.{name.split('.')[1]}": value for name, value in SMOL.details.items()}
    facts = replace(SMOL, architecture="bert", pooling=True, max_context=8192, details=details)
    request = by_name("llama.cpp").request(ModelConfig("m", "ORG/NAME"), facts)
    result = placed(request, machine_with())
    assert result.context == 8192
    assert result.need.overhead < 2 * GIB


# ---------------------------------------------------------------------------- CPUs of each rank


@pytest.mark.parametrize(
    ("nodes", "ranks", "each", "expected"),
    [
        (((4, 5, 6, 7), (12, 13, 14, 15)), 2, 4, ((4, 5, 6, 7), (12, 13, 14, 15))),
        (((4, 5, 6, 7), (12, 13, 14, 15)), 2, 3, ((4, 5, 6), (12, 13, 14))),
        (((0, 1), (8, 9), (16, 17), (24, 25)), 2, 8, ((0, 1, 8, 9), (16, 17, 24, 25))),
        (((2, 3, 9),), 2, 8, ((2,), (3,))),
        (((7,),), 2, 1, ((7,), (7,))),
        (((0, 1, 2, 3),), 1, 4, ()),
        ((), 2, 4, ()),
    ],
)
def test_each_rank_gets_cpus_of_its_own(
    nodes: tuple[tuple[int, ...], ...], ranks: int, each: int, expected: object
) -> None:
    machine = replace(machine_with(), numa_cpus=nodes)
    assert rank_cpus(machine, ranks, each) == expected
