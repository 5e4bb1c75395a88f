"""A node whose wall clock is set: by hours, days and over the end of a month, forwards and back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.chaos.clock import Clock
from tests.e2e.home import Home, fake
from tests.e2e.test_keys import ask
from tests.support.polling import until

HOUR, DAY = 3600, 86400
SPENT, FAST = (429, "insufficient_quota"), (429, "rate_limit_exceeded")
BODY = {"model": "fake", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def clock(home: Home) -> Clock:
    clock = Clock(home.root / "clock")
    if clock.why_not:
        pytest.skip(clock.why_not)
    return clock


@pytest.fixture
def node(home: Home, clock: Clock) -> Iterator[Home]:
    """Its programs are started anew: the library is not loaded into forks of the tests' process."""
    with replace(home, settings={**clock.env, "TZ": "America/New_York"}, through=["env"]) as home:
        home.write([fake()])
        yield home


def outcome(home: Home, key: str) -> tuple[int, str | None, int]:
    """The status of a chat, the error's code, and the seconds to wait."""
    status, answer, headers = ask(home, key, "/v1/chat/completions", BODY)
    return status, answer.get("error", {}).get("code"), int(headers.get("retry-after", 0))


def add(home: Home, name: str, *words: str) -> str:
    return home.yibu("key", "add", name, *words).stdout.strip()


def test_limits_when_the_clock_jumps(node: Home, clock: Clock) -> None:
    def at(seconds: int) -> None:
        clock.jump(noon + seconds)

    noon = int(time.time() // DAY * DAY + 12 * HOUR - time.time())  # an hour more is the same day
    at(0)
    node.yibu("up", "-d")
    short = add(node, "short", "--expires", "24h")
    paid = add(node, "paid", "--budget", "1/day")
    fast = add(node, "fast", "--rpm", "1")
    assert [outcome(node, key)[0] for key in (short, paid, fast)] == [200] * 3
    for jump in (HOUR, -HOUR, 0):
        at(jump)
        assert outcome(node, short)[0] == 200
        assert outcome(node, paid)[:2] == SPENT
        assert outcome(node, fast)[:2] == FAST, "an hour of the wall clock is no minute"
    at(23 * HOUR)
    assert outcome(node, short)[0] == 200
    assert outcome(node, paid)[0] == 200, "another day's budget"
    assert outcome(node, paid)[:2] == SPENT
    at(25 * HOUR)
    assert outcome(node, short)[:2] == (401, "expired_api_key")
    at(0)
    assert outcome(node, short)[0] == 200
    # What is in the database of that day is read within half a second.
    until(lambda: outcome(node, paid)[:2] == SPENT, "what was spent on the first day")
    rows = json.loads(node.yibu("usage", "--by", "day", "--since", "2d", "--json").stdout)["usage"]
    today = datetime.fromtimestamp(time.time() + noon, UTC)
    assert [row["day"] for row in rows] == [f"{today + timedelta(n):%Y-%m-%d}" for n in (0, 1)]
    node.yibu("ps")
    node.yibu("top", "--once")


def test_days_and_months_end_at_midnight_utc(node: Home, clock: Clock) -> None:
    """Wherever the machine is, and on the days before its clocks change."""
    node.yibu("up", "-d")
    day, month = (add(node, each, "--budget", f"1/{each}") for each in ("day", "month"))
    months = set()
    for end in ("2026-12-31", "2027-01-31", "2027-03-13", "2027-11-06", "2028-02-29"):
        midnight = datetime.fromisoformat(f"{end}T00:00:00+00:00") + timedelta(1)
        true = int(midnight.timestamp() - time.time())
        clock.jump(true - 60)
        assert outcome(node, month)[0] == (429 if end[:7] in months else 200), end
        months.add(end[:7])
        assert outcome(node, day)[0] == 200, end
        clock.jump(int(midnight.timestamp() - time.time()) - 60)  # however long that took
        *refused, wait = outcome(node, day)
        assert (tuple(refused), 0 < wait <= 61) == (SPENT, True), (end, wait)
        *refused, wait = outcome(node, month)
        assert tuple(refused) == SPENT, end
        assert (wait <= 61) == (midnight.day == 1), (end, wait)
        clock.jump(true + 2)
        assert outcome(node, day)[0] == 200, end
        assert (outcome(node, month)[0] == 200) == (midnight.day == 1), end
        if midnight.day == 1:
            months.add(f"{midnight:%Y-%m}")
