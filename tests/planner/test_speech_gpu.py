"""Speech on a GPU: only where it is asked for, and counted before a language model takes the rest."""

from __future__ import annotations

import pytest
from models import GIB, facts_of

from yibu.config import ModelConfig
from yibu.engines.registry import by_name
from yibu.planner.plan import plan
from yibu.planner.request import Request
from yibu.planner.types import Gpu, Machine, ModelFacts

SENSEVOICE = ModelFacts("sensevoice", "SenseVoiceSmall", 936_000_000, dtype="float32")


def speech(gpus: tuple[int, ...] | None = None, replicas: int = 1, **options: object) -> Request:
    config = ModelConfig("ears", "iic/X", options=options, gpus=gpus, replicas=replicas)
    return by_name("speech").request(config, SENSEVOICE)


def machine(*free: float) -> Machine:
    gpus = tuple(Gpu(n, "G", 24 * GIB, int(gib * GIB)) for n, gib in enumerate(free))
    return Machine("m", 8, 16, 64 * GIB, 60 * GIB, gpus)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (speech(), ()),
        (speech(device="cpu", gpus=(0,)), ()),
        (speech(device="cuda"), (1,)),  # the one with the most free
        (speech(device="cuda:0"), (0,)),
        (speech(gpus=(0,)), (0,)),
    ],
    ids=["unasked", "cpu", "cuda", "cuda:0", "gpus"],
)
def test_it_goes_where_it_is_asked_to(request_: Request, expected: tuple[int, ...]) -> None:
    (result,) = plan([request_], machine(10, 20))
    assert result.verdict == "fits"
    assert result.placement.gpus == expected


def test_what_it_takes_is_not_given_to_a_language_model() -> None:
    facts = facts_of("Qwen3-0.6B")
    alone, _ = plan([Request("q", "paged", facts), speech()], machine(24))
    beside, ears = plan([Request("q", "paged", facts), speech(gpus=(0,), replicas=2)], machine(24))
    assert len(ears.replicas) == 2
    # 23.52 GiB are planned with; two engines take 2 × (0.87 + 1.5) of 24 that are free.
    assert alone.placement.budget == pytest.approx(23.52 * GIB, rel=0.001)
    assert beside.placement.budget == pytest.approx((24 - 2 * 2.37) * GIB, rel=0.001)


def test_a_gpu_that_is_not_there_or_full_is_refused() -> None:
    (missing,) = plan([speech(gpus=(3,))], machine(24, 24))
    assert missing.verdict == "does_not_fit"
    assert "this machine has 0, 1" in missing.reasons[0]
    (none,) = plan([speech(device="cuda")], machine())
    assert "this machine has none" in none.reasons[0]
    (full,) = plan([speech(gpus=(0,))], machine(2))
    assert "and 2.0 GiB is free on GPU 0" in full.reasons[0]
