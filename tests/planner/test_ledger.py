"""What is reserved for engines that start is free for nobody else."""

from __future__ import annotations

import pytest

from yibu.planner.ledger import Reservation, as_if_stopped, less_reserved, reserved_memory
from yibu.planner.plan import plan
from yibu.planner.request import Request
from yibu.planner.types import Gpu, GpuProcess, Machine, MemoryNeed, Placement

GIB = 1024**3


def machine(**values: object) -> Machine:
    gpus = (
        Gpu(0, "A", 24 * GIB, 20 * GIB, processes=(GpuProcess(7, "vllm", 3 * GIB),)),
        Gpu(1, "A", 24 * GIB, 24 * GIB),
    )
    return Machine("m", 8, 16, 64 * GIB, 40 * GIB, gpus=gpus)


def test_main_memory_that_is_not_held_yet_is_taken_off() -> None:
    reservations = [
        Reservation("a-0", (), 10 * GIB),
        Reservation("b-0", (), 6 * GIB, frozenset({5}), resident=4 * GIB),
        Reservation("c-0", (), 1 * GIB, frozenset({6}), resident=2 * GIB),  # more than planned
    ]
    left = less_reserved(machine(), reservations)
    assert left.memory_available == 28 * GIB
    assert [gpu.free for gpu in left.gpus] == [20 * GIB, 24 * GIB]


def test_memory_of_a_gpu_that_is_not_held_yet_is_taken_off() -> None:
    reservations = [
        Reservation("a-0", (0,), 8 * GIB, frozenset({7})),  # holds 3 of them, says the driver
        Reservation("b-0", (0, 1), 2 * GIB),
        Reservation("c-0", (1,), 30 * GIB),
    ]
    left = less_reserved(machine(), reservations)
    assert left.memory_available == 40 * GIB
    assert [gpu.free for gpu in left.gpus] == [13 * GIB, 0]


def test_as_if_stopped_gives_back_what_is_held() -> None:
    reservations = [
        Reservation("a-0", (0,), 8 * GIB, frozenset({7}), resident=1 * GIB),
        Reservation("b-0", (), 6 * GIB, frozenset({5}), resident=4 * GIB),
        Reservation("c-0", (), 9 * GIB),  # no process yet
    ]
    left = as_if_stopped(machine(), reservations)
    assert left.memory_available == 45 * GIB
    assert [gpu.free for gpu in left.gpus] == [23 * GIB, 24 * GIB]
    assert left.gpus[0].processes == ()


@pytest.mark.parametrize(
    ("gpus", "ranks", "budget", "expected"),
    [((), 1, 0, 3), ((), 2, 0, 6), ((0, 1), 2, 0, 3), ((0,), 1, 8, 8)],
)
def test_what_a_placement_sets_aside(
    gpus: tuple[int, ...], ranks: int, budget: int, expected: int
) -> None:
    need = MemoryNeed(1, 1, 1)
    assert reserved_memory(
        Placement(gpus, 1, None, 1, need, tensor_parallel=ranks, budget=budget)
    ) == (expected)


def test_a_command_with_a_budget_needs_it_free() -> None:
    request = Request("a", "unmanaged", memory=30 * GIB)
    first, second = plan([request, Request("b", "unmanaged", memory=30 * GIB)], machine())
    assert (first.verdict, second.verdict) == ("fits", "does_not_fit")
    assert "30.0 GiB" in second.reasons[0] or "32.2 GB" in second.reasons[0]
    assert plan([request], less_reserved(machine(), [Reservation("b-0", (), 30 * GIB)]))[
        0
    ].verdict == ("does_not_fit")
