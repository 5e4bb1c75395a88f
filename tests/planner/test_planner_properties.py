"""Properties that hold for any model and machine."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st
from models import GIB, MIB, SMOL, facts_of, gpu, machine_with, vllm
from test_architectures import CASES

from yibu.planner.plan import plan
from yibu.planner.request import Request
from yibu.planner.types import Machine

models = st.sampled_from([case.model for case in CASES])
gibs = st.floats(min_value=2, max_value=200)


def request_of(draw: st.DrawFn, position: int) -> Request:
    name = draw(models)
    return Request(
        f"{position}-{name}",
        "paged",
        facts_of(name),
        context=draw(st.none() | st.integers(1, 200_000)),
        parallel=draw(st.none() | st.integers(1, 512)),
        memory=draw(st.none() | gibs.map(lambda gib: int(gib * GIB))),
        tensor_parallel=draw(st.none() | st.integers(1, 9)),
        kv_dtype=draw(st.sampled_from([None, "fp8", "auto"])),
        eager=draw(st.booleans()),
        replicas=draw(st.integers(1, 2)),
    )


@st.composite
def requests(draw: st.DrawFn) -> list[Request]:
    return [request_of(draw, position) for position in range(draw(st.integers(1, 4)))]


@given(requests(), st.lists(gibs, min_size=1, max_size=8), st.floats(0.1, 1))
def test_budgets_never_exceed_a_gpu(wanted: list[Request], sizes: list[float], free: float) -> None:
    machine = machine_with(*(gpu(i, size, free=size * free) for i, size in enumerate(sizes)))
    results = plan(wanted, machine)
    assert [result.model for result in results] == [request.name for request in wanted]
    taken: dict[int, int] = defaultdict(int)
    shares: dict[int, float] = defaultdict(float)
    orders: dict[int, list[int]] = defaultdict(list)
    for request, result in zip(wanted, results, strict=True):
        assert (result.placement is None) == (result.verdict == "does_not_fit")
        assert result.reasons
        for placement in result.replicas:
            facts = request.facts
            assert placement.tensor_parallel == len(placement.gpus) == len(set(placement.gpus))
            assert facts.attention_heads % placement.tensor_parallel == 0
            assert placement.need.total <= placement.budget
            assert placement.memory_share is not None
            assert 0 < placement.memory_share <= 1
            for index in placement.gpus:
                taken[index] += placement.budget
                shares[index] += placement.memory_share
                orders[index].append(placement.start_order)
    for index, budget in taken.items():
        assert budget <= machine.gpus[index].free
        assert shares[index] <= 1
        assert len(set(orders[index])) == len(orders[index])


@given(models, gibs, st.floats(0, 100), st.none() | st.integers(1, 100_000), st.integers(1, 8))
def test_more_gpu_memory_never_makes_it_not_fit(
    name: str, size: float, more: float, context: int | None, count: int
) -> None:
    rank = {"does_not_fit": 0, "fits_reduced": 1, "fits": 2}

    def verdict(gib: float) -> tuple[int, int]:
        machine = machine_with(*(gpu(index, gib) for index in range(count)))
        (result,) = plan([vllm(name, context=context)], machine)
        reached = result.placement.context if result.placement else 0
        return rank[result.verdict], reached or 0

    assert verdict(size + more) >= verdict(size)


@given(st.integers(1, 40_000), st.integers(0, 40_000), st.none() | st.integers(1, 30_000))
def test_more_main_memory_never_makes_it_not_fit(mib: int, more: int, context: int | None) -> None:
    rank = {"does_not_fit": 0, "fits_reduced": 1, "fits": 2}

    def verdict(size: int) -> int:
        machine = Machine("m", 4, 8, 64 * GIB, size * MIB)
        return rank[plan([Request("m", "slots", SMOL, context=context)], machine)[0].verdict]

    assert verdict(mib + more) >= verdict(mib)
