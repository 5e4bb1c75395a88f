"""Limits as arithmetic, over invented times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yibu.accounts.limits import Bucket, Meter, Spending, admit, bounds
from yibu.accounts.types import TokenBudget
from yibu.config.types import Limits

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp()
PAUSES = st.lists(st.floats(0, 30), min_size=1, max_size=80)


def meter(limits: Limits, budget: TokenBudget | None = None) -> Meter:
    made = Meter("The key")
    made.configure(limits, budget and Spending.at(budget, NOON), 0.0)
    return made


@given(st.integers(1, 50), PAUSES)
def test_no_stretch_of_time_has_more_requests_than_its_rate_and_one_burst(
    rpm: int, pauses: list[float]
) -> None:
    limited, now, begun = meter(Limits(rpm=rpm)), 0.0, []
    for pause in pauses:
        now += pause
        if admit([limited], 0, now, NOON).refusal is None:
            begun.append(now)
            limited.end(0, 0)
    for first, at in enumerate(begun):
        for last in range(first, len(begun)):
            assert last - first + 1 <= rpm + (begun[last] - at) * rpm / 60 + 1e-6


@given(st.integers(1, 50), PAUSES)
def test_who_waits_as_long_as_told_gets_in_and_who_comes_earlier_does_not(
    rpm: int, pauses: list[float]
) -> None:
    limited, now = meter(Limits(rpm=rpm)), 0.0
    for pause in pauses:
        now += pause
        refusal = admit([limited], 0, now, NOON).refusal
        if refusal is not None:
            assert 0 < refusal.wait <= 60 / rpm + 1e-6
            assert admit([limited], 0, now + refusal.wait * 0.99 - 1e-6, NOON).refusal is not None
            now += refusal.wait
            assert admit([limited], 0, now + 1e-6, NOON).refusal is None


@given(
    st.integers(1, 500),
    st.lists(st.tuples(st.floats(0, 30), st.integers(0, 400), st.integers(0, 400)), max_size=60),
)
def test_tokens_are_the_rate_and_one_burst_and_one_request(
    tpm: int, requests: list[tuple[float, int, int]]
) -> None:
    limited, now, taken = meter(Limits(tpm=tpm)), 0.0, []
    for pause, set_aside, tokens in requests:
        now += pause
        if admit([limited], set_aside, now, NOON).refusal is None:
            limited.end(set_aside, tokens)
            taken.append((now, tokens))
    for first, (start, _) in enumerate(taken):
        for last in range(first, len(taken)):
            used = sum(tokens for _, tokens in taken[first:last])  # the last may overdraw
            assert used <= tpm + (taken[last][0] - start) * tpm / 60 + 1e-6


@given(st.integers(1, 5), st.lists(st.booleans(), max_size=60))
def test_never_more_at_once(limit: int, steps: list[bool]) -> None:
    limited = meter(Limits(concurrency=limit))
    running = 0
    for begin in steps:
        if begin:
            refused = admit([limited], 0, 0.0, NOON).refusal is not None
            assert refused == (running == limit)
            running += not refused
        elif running:
            limited.end(0, 0)
            running -= 1
        assert limited.in_flight == running


@given(st.lists(st.integers(0, 100), max_size=40))
def test_a_budget_is_overdrawn_by_one_request_at_most(used: list[int]) -> None:
    limited = meter(Limits(), TokenBudget(500, "day"))
    spent = 0
    for tokens in used:
        refusal = admit([limited], 0, 0.0, NOON).refusal
        assert (refusal is not None) == (spent >= 500)
        if refusal is None:
            limited.end(0, tokens)
            spent += tokens
        else:
            assert refusal.wait == 12 * 3600
    tomorrow = NOON + 12 * 3600
    assert admit([limited], 0, 0.0, tomorrow).refusal is None


def test_of_two_limits_both_are_taken_or_none() -> None:
    key, model = meter(Limits(rpm=10, concurrency=5)), meter(Limits(rpm=1))
    assert admit([key, model], 0, 0.0, NOON).refusal is None
    refusal = admit([key, model], 0, 0.0, NOON).refusal
    assert refusal is not None
    assert refusal.kind == "requests"
    assert refusal.limit == 1
    assert key.in_flight == 1
    assert key.requests is not None
    assert key.requests.level == 9


def test_the_headers_have_the_tightest_limit() -> None:
    key, model = meter(Limits(rpm=60, tpm=100)), meter(Limits(rpm=6))
    verdict = admit([key, model], 40, 0.0, NOON)
    assert verdict.refusal is None
    requests, tokens = verdict.windows
    assert requests is not None
    assert tokens is not None
    assert (requests.limit, requests.remaining, requests.reset) == (6, 5, 10.0)
    assert (tokens.limit, tokens.remaining, tokens.reset) == (100, 60, 24.0)
    for one in (key, model):
        one.end(40, 10)  # of the 40 that were set aside
    assert key.state(0.0)[1] == 90


def test_changed_limits_keep_what_is_in_use() -> None:
    limited = meter(Limits(rpm=10, concurrency=2))
    for _ in range(2):
        assert admit([limited], 0, 0.0, NOON).refusal is None
    limited.configure(Limits(rpm=3, concurrency=3), None, 0.0)
    assert admit([limited], 0, 0.0, NOON).refusal is None
    assert admit([limited], 0, 0.0, NOON).refusal.kind == "concurrency"  # type: ignore[union-attr]
    limited.configure(Limits(rpm=3), None, 0.0)
    assert admit([limited], 0, 0.0, NOON).refusal.kind == "requests"  # type: ignore[union-attr]


def test_a_clock_that_goes_back_gives_and_takes_nothing() -> None:
    bucket = Bucket(60, 60, 100.0)
    bucket.level = 10
    bucket.refill(50.0)
    assert bucket.level == 10
    bucket.refill(101.0)
    assert bucket.level == 11


@pytest.mark.parametrize("month", range(1, 13))
def test_days_and_months_are_those_of_the_calendar(month: int) -> None:
    now = datetime(2027, month, 15, 23, 59, 59, tzinfo=UTC)
    start, end = bounds("month", now.timestamp())
    first = datetime.fromtimestamp(start, UTC)
    assert (first.month, first.day, first.hour) == (month, 1, 0)
    after = datetime.fromtimestamp(end, UTC)
    assert (after.day, after.month) == (1, month % 12 + 1)
    start, end = bounds("day", now.timestamp())
    assert (start, end) == (
        datetime(2027, month, 15, tzinfo=UTC).timestamp(),
        (datetime(2027, month, 15, tzinfo=UTC) + timedelta(days=1)).timestamp(),
    )
