"""What a refused request is told of the time that the queue takes."""

from __future__ import annotations

import pytest

from yibu.node.scheduler.model import Rate


@pytest.mark.parametrize("answers", [1, 5, 63, 64, 65, 500])
@pytest.mark.parametrize("each", [0.05, 1.0, 40.0])
@pytest.mark.parametrize("pause", [0.0, 60.0, 86400.0])
def test_the_time_without_requests_is_not_counted(answers: int, each: float, pause: float) -> None:
    rate, now = Rate(), 1000.0
    for spell in range(2):
        rate.begun(now)
        for _ in range(answers):
            now += each
            rate.answered(now)
            assert rate.seconds(10, now) == pytest.approx(10 * each, rel=0.05)
        assert rate.seconds(10, now) == pytest.approx(10 * each, rel=0.05), spell
        now += pause
    rate.begun(now)
    assert rate.seconds(10, now) == pytest.approx(10 * each, rel=0.05)


def test_a_changed_rate_is_noticed() -> None:
    rate, now = Rate(), 0.0
    rate.begun(now)
    for each in (1.0, 3.0):
        for _ in range(100):
            now += each
            rate.answered(now)
    assert rate.seconds(1, now) == pytest.approx(3.0)
    assert Rate().seconds(7, now) == 7.0
