"""The database of keys: what it keeps, and what it says when it cannot be used."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

import yibu.accounts
from yibu.accounts import database
from yibu.accounts.database import AccountsError
from yibu.accounts.secret import digest_of
from yibu.accounts.store import AccountStore, holds_keys
from yibu.accounts.types import (
    Account,
    Limits,
    TokenBudget,
    changed,
    check_name,
    parse_budget,
    parse_duration,
    parse_models,
    parse_priority,
)
from yibu.errors import UsageError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "accounts.db"


def test_an_account_comes_back_as_it_was_stored(path: Path) -> None:
    account = Account(
        "alice", 10.0, 99.5, True, "batch", ("a", "b"), Limits(1, 2, 3), TokenBudget(1000, "day"),
        weight=3,
    )  # fmt: skip
    with AccountStore.open(path) as store:
        key = store.add(account)
        store.add(Account("bob"))
    with AccountStore.open(path) as store:
        alice, bob = store.accounts()
        assert [secret.prefix for secret in alice.secrets] == [key[:13]]
        assert alice == Account(
            "alice", 10.0, 99.5, True, "batch", ("a", "b"), Limits(1, 2, 3), TokenBudget(1000, "day"),
            alice.secrets, weight=3,
        )  # fmt: skip
        assert bob.models is None
        assert bob.weight == 1
        assert not bob.limits
        assert store.get("bob") == bob


def test_the_file_is_the_owners_alone_and_has_no_key_in_it(path: Path) -> None:
    with AccountStore.open(path) as store:
        keys = [store.add(Account("alice")), store.add(Account("bob"))]
        files = list(path.parent.iterdir())
        assert {file.name for file in files} >= {"accounts.db", "accounts.db-wal"}
        held = b"".join(file.read_bytes() for file in files)
        for key in keys:
            assert key[:13].encode() in held
            assert key[13:].encode() not in held
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_digests_are_salted(path: Path) -> None:
    with AccountStore.open(path) as store:
        key = store.add(Account("alice")).encode()
        [found] = store.digests()["alice"]
    assert digest_of(key, found.salt) == found.digest
    assert digest_of(key, bytes(16)) != found.digest


def test_a_rotated_key_ends_after_its_grace_and_not_later(path: Path) -> None:
    with AccountStore.open(path) as store:
        store.add(Account("alice", 100.0))
        store.rotate("alice", 60, now=1000.0)
        store.rotate("alice", 3600, now=1010.0)
        ends = {found.expires for found in store.digests()["alice"]}
        # The first was told to end at 1060: another rotation does not lengthen that.
        assert ends == {1060.0, 4610.0, None}
        assert [s.expires for s in store.get("alice").secrets] == [1060.0, 4610.0, None]


def test_an_expired_account_gets_more_time_and_no_new_secret(path: Path) -> None:
    with AccountStore.open(path) as store:
        key = store.add(Account("alice", expires=50.0, models=("a",)))
        with pytest.raises(UsageError, match="has expired"):
            store.rotate("alice", 0, now=50.0)
        other = Account("alice", expires=99.0, limits=Limits(rpm=7), budget=TokenBudget(5, "day"))
        store.change("alice", lambda _: other)
        alice = store.get("alice")
        assert (alice.expires, alice.models, alice.limits, alice.budget) == (
            99.0, None, Limits(rpm=7), TokenBudget(5, "day"),
        )  # fmt: skip
        assert [secret.prefix for secret in alice.secrets] == [key[:13]]
        store.rotate("alice", 0, now=50.0)
        with pytest.raises(UsageError, match="There is no key"):
            store.change("bob", lambda account: account)


def test_changes_at_once_keep_each_other(path: Path) -> None:
    """Whoever has read the account for its own change keeps others waiting until it is written."""
    with AccountStore.open(path) as store:
        store.add(Account("alice"))
    names = ("rpm", "tpm", "concurrency")
    met = Barrier(len(names))

    def change(name: str) -> None:
        with AccountStore.open(path) as store:
            met.wait(30)
            for number in range(1, 51):
                given = {name: number}
                store.change("alice", lambda account, given=given: changed(account, given))

    with ThreadPoolExecutor(len(names)) as threads:
        list(threads.map(change, names))
    with AccountStore.open(path) as store:
        assert store.get("alice").limits == Limits(50, 50, 50)


def test_a_removed_account_leaves_no_key(path: Path) -> None:
    with AccountStore.open(path) as store:
        store.add(Account("alice"))
        assert store.remove("alice").name == "alice"
        assert store.digests() == {}
        assert store.accounts() == []
        for verb in (store.remove, store.get, lambda name: store.rotate(name, 0)):
            with pytest.raises(UsageError, match="There is no key"):
                verb("alice")


def test_names_are_unique_and_fit_for_labels(path: Path) -> None:
    with AccountStore.open(path) as store:
        store.add(Account("alice"))
        with pytest.raises(UsageError, match="already"):
            store.add(Account("alice"))
        for bad in ("", "a b", "deadbeef", "-x", "yibu", 'a"b', "x" * 65, "ä", "a\n"):
            with pytest.raises(UsageError):
                store.add(Account(bad))
    assert check_name("team-a.prod@x") == "team-a.prod@x"


def test_many_processes_may_open_a_new_file_at_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_PATIENCE", 60.0)  # on a busy machine a commit takes its time

    def add(number: int) -> str:
        with AccountStore.open(path) as store:
            return store.add(Account(f"key-{number}"))

    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(add, range(24)))
    assert len(set(keys)) == 24
    with AccountStore.open(path) as store:
        assert len(store.accounts()) == 24


def test_keys_of_the_first_schema_are_kept(path: Path) -> None:
    first = (Path(yibu.accounts.__file__).parent / "migrations" / "0001.sql").read_text()
    with AccountStore.open(path) as store:
        key = store.add(Account("alice", 10.0, priority="batch", limits=Limits(1, 2, 3)))
        secret = store.connection.execute("SELECT * FROM secret").fetchall()
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as old, old:
        old.executescript(f"{first}; PRAGMA user_version = 1")
        old.execute(
            "INSERT INTO account (name, created, admin, priority, rpm, tpm, concurrency)"
            " VALUES ('alice', 10, 0, 'batch', 1, 2, 3)"
        )
        old.executemany("INSERT INTO secret VALUES (?, ?, ?, ?, ?, ?)", secret)
    with AccountStore.open(path) as store:
        [alice] = store.accounts()
        assert (alice.name, alice.weight, alice.priority) == ("alice", 1, "batch")
        assert alice.limits == Limits(1, 2, 3)
        assert [one.prefix for one in alice.secrets] == [key[:13]]


def test_a_newer_schema_is_left_alone(path: Path) -> None:
    with AccountStore.open(path) as store:
        store.connection.execute("PRAGMA user_version = 99")
    with pytest.raises(AccountsError, match="newer yibu"), AccountStore.open(path):
        pass


def test_a_full_disk_loses_no_key(path: Path) -> None:
    with AccountStore.open(path) as store:
        store.add(Account("alice"))
        pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
        store.connection.execute(f"PRAGMA max_page_count = {pages}")
        large = Account("large", models=("m" * 100_000,))
        with pytest.raises(AccountsError, match="the disk is full") as refused:
            store.add(large)
        assert "Make room" in refused.value.hint
    with AccountStore.open(path) as store:
        [alice] = store.accounts()  # nothing of the other
        assert len(alice.secrets) == 1


def test_a_damaged_file_is_named_and_left_as_it_is(path: Path) -> None:
    with AccountStore.open(path) as store:
        store.add(Account("alice"))
    path.write_bytes(b"this is no database at all, " * 500)
    before = path.read_bytes()
    with pytest.raises(AccountsError, match="is damaged") as error, AccountStore.open(path):
        pass
    assert str(path) in error.value.message
    assert path.read_bytes() == before
    assert holds_keys(path)  # it may: the gateway stays closed


def test_a_locked_file_is_waited_for_and_then_named(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_PATIENCE", 0.05)
    with AccountStore.open(path) as store:
        store.add(Account("alice"))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with AccountStore.open(path) as second:
            with pytest.raises(AccountsError, match="is locked"):
                second.add(Account("bob"))
            assert [account.name for account in second.accounts()] == ["alice"]
        other.execute("ROLLBACK")
        store.add(Account("bob"))
        other.close()


def test_a_file_that_was_never_finished_holds_no_keys(path: Path) -> None:
    assert not holds_keys(path)
    path.parent.mkdir()
    path.touch()
    assert not database.may_hold_keys(path)
    with AccountStore.open(path):
        pass
    assert not holds_keys(path)
    with AccountStore.open(path) as store:
        store.add(Account("alice"))
    assert holds_keys(path)
    assert database.may_hold_keys(path)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("1h", 3600), ("30d", 2592000), ("2w", 1209600), ("1.5h", 5400)],
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "0d", "-1h", "1,5h", "0.5s", "9999999d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="not a duration"):
        parse_duration(text)


def test_budgets_models_and_priorities() -> None:
    assert parse_budget("200000/day") == TokenBudget(200_000, "day")
    assert parse_budget("5M/month") == TokenBudget(5_000_000, "month")
    assert str(parse_budget("10k/day")) == "10000/day"
    for bad in ("5", "0/day", "5/week", "-5/day", "5M", "/day"):
        with pytest.raises(UsageError, match="not a budget"):
            parse_budget(bad)
    assert parse_models("a, b,a") == ("a", "b")
    with pytest.raises(UsageError, match="names no model"):
        parse_models(" , ")
    assert parse_priority("batch") == "batch"
    with pytest.raises(UsageError, match="expected interactive or batch"):
        parse_priority("high")


def test_a_number_that_the_database_cannot_hold_is_told_of(path: Path) -> None:
    with AccountStore.open(path) as store:
        for account in (
            Account("a", limits=Limits(rpm=2**63)),
            Account("a", budget=parse_budget("999999999999999M/month")),
        ):
            with pytest.raises(AccountsError, match="too large"):
                store.add(account)
        assert store.accounts() == []
        store.add(Account("a", limits=Limits(rpm=2**63 - 1)))
