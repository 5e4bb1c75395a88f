"""Decisions, without a clock or a process."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from yibu.node.supervisor.failures import RestartPolicy
from yibu.node.supervisor.liveness import Liveness
from yibu.node.timings import Timings

T = Timings()


def test_back_off_doubles_up_to_a_cap_and_ends() -> None:
    policy = RestartPolicy(Timings(backoff_jitter=0, backoff_cap=5, failure_limit=6))
    delays = [policy.failed(now) for now in range(6)]
    assert delays == [1, 2, 4, 5, 5, None]


def test_failures_outside_the_window_do_not_count() -> None:
    policy = RestartPolicy(Timings(failure_limit=2, failure_window=100))
    assert all(policy.failed(now) is not None for now in range(0, 1000, 100))
    assert policy.failed(950) is None


def test_health_forgets_failures_and_a_short_life_does_not() -> None:
    policy = RestartPolicy(Timings(failure_limit=2, healthy_after=10))
    policy.failed(0)
    policy.ready_for(9)
    assert policy.failures == 1
    policy.ready_for(10)
    assert policy.failures == 0
    assert policy.failed(1) is not None


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30), st.integers())
def test_a_delay_stays_within_its_bounds(gaps: list[float], seed: int) -> None:
    policy = RestartPolicy(T, random.Random(seed))
    now = 0.0
    for gap in gaps:
        now += gap
        delay = policy.failed(now)
        assert delay is None or 0 < delay <= T.backoff_cap * (1 + T.backoff_jitter)
        assert policy.failures <= T.failure_limit or delay is None


def test_health_must_fail_several_times_in_a_row() -> None:
    live = Liveness(T, 0)
    assert not live.health(1, answered=False, busy=False)
    assert not live.health(2, answered=False, busy=False)
    assert not live.health(3, answered=True, busy=False)
    assert [live.health(4, answered=False, busy=False) for _ in range(3)] == [False, False, True]


def test_busy_excuses_silence_but_not_for_ever() -> None:
    live = Liveness(T, 0)
    for _ in range(10):
        assert not live.health(T.busy_limit - 1, answered=False, busy=True)
    assert live.health(T.busy_limit + 1, answered=False, busy=True)
    assert not live.canary(T.busy_limit - 1, outcome="silence", sent=1, busy=True)
    assert live.canary(T.busy_limit + 1, outcome="silence", sent=1, busy=True)


def test_progress_forgives_everything() -> None:
    live = Liveness(T, 0)
    live.health(1, answered=False, busy=False)
    live.health(2, answered=False, busy=False)
    live.progressed(3)
    assert not live.health(4, answered=False, busy=False)


def test_when_a_canary_is_wanted() -> None:
    live = Liveness(T, 100)
    assert not live.wants_canary(100 + T.stall - 1, in_flight=1)
    assert live.wants_canary(100 + T.stall, in_flight=1)
    assert not live.wants_canary(100 + T.stall, in_flight=0)
    assert live.wants_canary(100 + T.idle_canary, in_flight=0)


def test_a_canary_that_only_waited_proves_nothing() -> None:
    live = Liveness(T, 0)
    live.progressed(50)  # another request got its tokens while the canary stood in the queue
    assert not live.canary(170, outcome="silence", sent=40, busy=False)
    assert live.canary(170, outcome="silence", sent=60, busy=False)


def test_one_error_is_not_a_hang_but_two_are() -> None:
    live = Liveness(T, 0)
    assert not live.canary(1, outcome="error", sent=0.5, busy=False)
    assert live.canary(2, outcome="error", sent=1.5, busy=True)
