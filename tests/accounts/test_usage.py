"""Usage: counted in memory, written twice a second, and never lost or counted twice."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from yibu.accounts import database, usage
from yibu.accounts.database import AccountsError
from yibu.accounts.live import LiveAccounts
from yibu.accounts.store import AccountStore
from yibu.accounts.types import Account, TokenBudget
from yibu.accounts.usage import Used

DAY = 1_800_000_000 // 86400 * 86400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "accounts.db"


async def test_sums_by_key_model_day_and_hour(path: Path) -> None:
    now = DAY
    accounts = LiveAccounts(path, clock=lambda: now)
    async with accounts.running():
        for hour, key, model in (
            (0, "alice", "a"),
            (0, "bob", "a"),
            (1, "alice", "b"),
            (30, "alice", "a"),
        ):
            now = DAY + hour * 3600
            accounts.used(key, model).add(Used(1, 0, 1, 10, 4, 2, 1.5, 0.25))
        assert [row["requests"] for row in await accounts.usage("key", DAY)] == [3, 1]
        assert [(row["model"], row["total_tokens"]) for row in await accounts.usage("model", DAY)] == [
            ("a", 36), ("b", 12),
        ]  # fmt: skip
        days = await accounts.usage("day", DAY, "alice")
        assert [(row["requests"], row["cached_tokens"]) for row in days] == [(2, 8), (1, 4)]
        [last] = await accounts.usage("hour", DAY + 30 * 3600)
        assert last["hour"].endswith("T06:00Z")
        assert (last["estimated"], last["audio_seconds"], last["compute_seconds"]) == (1, 1.5, 0.25)
    with AccountStore.open(path) as store:  # written when the node ended
        assert usage.spent(store.connection, "alice", DAY, DAY + 365 * 86400) == 36


async def test_what_cannot_be_written_is_written_later_and_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_PATIENCE", 0.05)
    accounts = LiveAccounts(path)
    async with accounts.running():
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            accounts.used("alice", "a").add(Used(1, prompt_tokens=10))
            with pytest.raises(AccountsError, match="locked"):
                await accounts.usage("key", 0)
        other.execute("ROLLBACK")
        other.close()
        for _ in range(2):
            [row] = await accounts.usage("key", 0)
            assert (row["requests"], row["prompt_tokens"]) == (3, 30)


async def test_a_budget_survives_the_node(path: Path) -> None:
    now = DAY + 3600
    with AccountStore.open(path) as store:
        key = store.add(Account("alice", budget=TokenBudget(100, "day"))).encode()
    for _ in range(2):
        accounts = LiveAccounts(path, clock=lambda: now)
        async with accounts.running():
            caller = accounts.find(key)
            assert caller is not None
            assert caller.meter is not None
            caller.meter.begin(0)
            caller.meter.end(0, 60)
            accounts.used("alice", "a").add(Used(1, prompt_tokens=50, completion_tokens=10))
            await accounts.sync()
            refused = caller.meter.refusal(0.0, now)
    assert refused is not None
    assert (refused.kind, refused.used) == ("budget", 120)
    now += 86400
    accounts = LiveAccounts(path, clock=lambda: now)
    async with accounts.running():
        caller = accounts.find(key)
        assert caller is not None
        assert caller.meter is not None
        assert caller.meter.refusal(0.0, now) is None


@pytest.mark.parametrize("jump", [86400.0, -86400.0, 40 * 86400.0], ids=["on", "back", "far on"])
async def test_a_clock_that_jumps_over_a_day_and_back_gives_no_budget_twice(
    path: Path, jump: float
) -> None:
    now = 1_760_000_000.0
    with AccountStore.open(path) as store:
        store.add(Account("team", budget=TokenBudget(100, "day")))
    accounts = LiveAccounts(path, clock=lambda: now)
    async with accounts.running():

        def spend(tokens: int) -> None:
            accounts.used("team", "chat").completion_tokens += tokens
            meter.end(0, tokens)

        (meter,) = accounts.meters()
        meter.in_flight = 10
        spend(100)
        assert meter.refusal(0.0, now) is not None
        now += jump
        assert meter.refusal(0.0, now) is None  # another day
        spend(60)
        await accounts.sync()
        now -= jump
        meter.refusal(0.0, now)
        await accounts.sync()
        refused = meter.refusal(0.0, now)
        assert refused is not None
        assert (refused.kind, refused.used) == ("budget", 100)
        now += jump
        meter.refusal(0.0, now)
        await accounts.sync()
        assert meter.refusal(0.0, now) is None
        assert meter.spending is not None
        assert meter.spending.spent == 60


def test_many_hours_without_a_disk_are_added_up_by_day() -> None:
    """Beyond the bound, and not across days, for which budgets are counted; nothing is lost."""
    hours = range(480_000, 480_000 + 24 * 30)
    counted = {(hour, f"key{key}", "m"): Used(requests=1, prompt_tokens=hour) for hour in hours
               for key in range(3)}  # fmt: skip
    before = dict(counted)
    usage.fold(counted, len(counted))
    assert counted == before
    tokens = sum(used.prompt_tokens for used in counted.values())
    usage.fold(counted, 100)
    assert len(counted) == 3 * (29 + 24)
    assert sum(used.requests for used in counted.values()) == len(before)
    assert sum(used.prompt_tokens for used in counted.values()) == tokens
    for hour, key, model in before:
        assert any(slot in counted for slot in ((hour, key, model), (hour // 24 * 24, key, model)))
