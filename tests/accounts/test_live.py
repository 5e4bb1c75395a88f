"""Keys as a running node checks them."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from yibu.accounts import database
from yibu.accounts.database import AccountsError
from yibu.accounts.live import LiveAccounts
from yibu.accounts.store import AccountStore, holds_keys
from yibu.accounts.types import Account, TokenBudget
from yibu.accounts.usage import Used
from yibu.errors import NotReadyError, UnauthorizedError
from yibu.gateway.keys import KeyRing


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "accounts.db"


def add(path: Path, account: Account) -> str:
    with AccountStore.open(path) as store:
        return store.add(account)


async def test_keys_are_known_from_when_they_are_added_until_they_are_removed(path: Path) -> None:
    accounts = LiveAccounts(path)
    ring = KeyRing([], accounts)
    async with accounts.running():
        assert ring.check(None).name == "-"
        key = add(path, Account("alice", admin=True))
        await accounts.sync()
        with pytest.raises(UnauthorizedError, match="No API key was given"):
            ring.check(None)
        caller = ring.check(b"Bearer " + key.encode())
        assert (caller.name, caller.admin) == ("alice", True)
        assert ring.check(None, key.encode()) is caller
        for wrong in (key[:-1], key + "x", key[:13], key[:13] + "x" * 43, "yibu-", ""):
            with pytest.raises(UnauthorizedError):
                ring.check(b"Bearer " + wrong.encode())
        with AccountStore.open(path) as store:
            store.remove("alice")
        await accounts.sync()
        # The last key is gone, and still nobody gets in without one.
        for given in (None, b"Bearer " + key.encode()):
            with pytest.raises(UnauthorizedError):
                ring.check(given)


async def test_an_expired_key_is_told_so(path: Path) -> None:
    now = 1000.0
    accounts = LiveAccounts(path, clock=lambda: now)
    key = add(path, Account("alice", expires=2000.0)).encode()
    async with accounts.running():
        found = accounts.find(key)
        assert found is not None
        assert found.name == "alice"
        now = 2000.0
        with pytest.raises(
            UnauthorizedError, match=r"'alice' expired at 1970-01-01T00:33:20Z"
        ) as error:
            accounts.find(key)
        assert error.value.code == "expired_api_key"


async def test_a_replaced_key_works_for_its_grace(path: Path) -> None:
    now = 1000.0
    accounts = LiveAccounts(path, clock=lambda: now)
    old = add(path, Account("alice"))
    async with accounts.running():
        with AccountStore.open(path) as store:
            new = store.rotate("alice", 60, now=now)
        await accounts.sync()
        assert accounts.find(old.encode()) is accounts.find(new.encode())
        now = 1060.0
        with pytest.raises(UnauthorizedError, match="was replaced") as error:
            accounts.find(old.encode())
        assert error.value.code == "replaced_api_key"
        assert accounts.find(new.encode()) is not None


async def test_known_keys_go_on_when_the_database_is_damaged(path: Path) -> None:
    accounts = LiveAccounts(path)
    key = add(path, Account("alice")).encode()
    async with accounts.running():
        good = path.read_bytes()
        path.unlink()
        path.write_bytes(b"no database, " * 1000)
        with pytest.raises(AccountsError, match="damaged"):
            await accounts.sync()
        assert accounts.find(key) is not None
        path.unlink()
        path.write_bytes(good)  # a copy was put back
        await accounts.sync()
        assert accounts.find(key) is not None


async def test_a_database_that_cannot_be_read_leaves_the_gateway_closed(path: Path) -> None:
    add(path, Account("alice"))
    good = path.read_bytes()
    path.write_bytes(b"no database, " * 1000)
    accounts = LiveAccounts(path)
    ring = KeyRing(["a-configured-key"], accounts)
    async with accounts.running():
        assert ring.check(b"Bearer a-configured-key").configured
        with pytest.raises(NotReadyError) as error:
            ring.check(b"Bearer yibu-something")
        assert error.value.code == "keys_unavailable"
        for given in (None, b"Bearer yibu-something"):
            with pytest.raises(NotReadyError):
                KeyRing([], accounts).check(given)
        with pytest.raises(UnauthorizedError):
            ring.check(None)  # whatever the database has, a key is needed
        path.unlink()
        path.write_bytes(good)
        await accounts.sync()
        with pytest.raises(UnauthorizedError):
            ring.check(b"Bearer yibu-something")


async def test_what_was_read_goes_on_also_that_there_are_no_keys(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk or a lock closes no gateway that is open; another file in its place may have keys."""
    monkeypatch.setattr(database, "_PATIENCE", 0.2)
    accounts = LiveAccounts(path)
    ring = KeyRing([], accounts)
    async with accounts.running():
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        accounts.used("-", "m").requests += 1
        with pytest.raises(AccountsError, match="locked"):
            await accounts.usage("key", 0)
        assert ring.check(None).name == "-"
        trying = asyncio.create_task(accounts.sync())
        while not trying.done():  # what is on its way to the disk is not there yet
            told = accounts.unwritten()
            assert told is not None
            assert told["requests"] == 1
            await asyncio.sleep(0.01)
        other.close()
        await accounts.sync()
        assert accounts.unwritten() is None
        aside = path.rename(path.with_name("aside"))
        path.write_bytes(b"no database, " * 1000)
        with pytest.raises(AccountsError, match="damaged"):
            await accounts.sync()
        with pytest.raises(NotReadyError):
            ring.check(None)
        aside.replace(path)
        await accounts.sync()
        assert ring.check(None).name == "-"
        ring.configure([], exposed=True)
        with pytest.raises(UnauthorizedError):
            ring.check(None)


async def test_another_processes_lock_does_not_hold_requests_up(path: Path) -> None:
    accounts = LiveAccounts(path)
    key = add(path, Account("alice")).encode()
    async with accounts.running():
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        await accounts.sync()
        assert accounts.find(key) is not None
        other.execute("ROLLBACK")
        other.close()


async def test_the_command_lines_own_key_closes_nothing(path: Path) -> None:
    accounts = LiveAccounts(path)
    ring = KeyRing([], accounts, "own-key-of-the-node")
    async with accounts.running():
        assert ring.check(None).name == "-"
        add(path, Account("alice"))
        await accounts.sync()
        owner = ring.check(b"Bearer own-key-of-the-node")
        assert (owner.name, owner.admin) == ("yibu", True)


async def test_who_asks_for_the_usage_and_leaves_takes_nothing_along(path: Path) -> None:
    """What was counted, and a change to the keys, are on their way when the request is cancelled."""
    accounts = LiveAccounts(path)
    async with accounts.running():
        key = add(path, Account("alice"))
        accounts.used("alice", "m").requests += 1
        with sqlite3.connect(path, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")  # the writing of usage waits for this
            asked = asyncio.create_task(accounts.usage("key", 0.0))
            for _ in range(10):
                await asyncio.sleep(0.01)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            other.execute("ROLLBACK")
        other.close()
        await accounts.sync()
        assert accounts.find(key.encode()) is not None
        assert [row["requests"] for row in await accounts.usage("key", 0.0)] == [1]


async def test_leaving_before_the_database_is_asked_loses_nothing(path: Path) -> None:
    accounts = LiveAccounts(path)
    go_on = threading.Event()
    async with accounts.running():
        accounts.used("alice", "m").requests += 1
        busy = accounts._thread.submit(go_on.wait)
        asked = asyncio.create_task(accounts.usage("key", 0.0))
        for _ in range(10):
            await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        go_on.set()
        assert busy.result()
        assert [row["requests"] for row in await accounts.usage("key", 0.0)] == [1]


async def test_keys_are_followed_after_whatever_went_wrong(path: Path) -> None:
    accounts = LiveAccounts(path)
    async with accounts.running():
        used = accounts.used("alice", "m")
        used.prompt_tokens = 2**64  # more than the database can hold
        await accounts._tick()
        used = accounts.used("alice", "m")
        used.prompt_tokens, used.requests = 5, 1
        key = add(path, Account("alice"))
        await accounts._tick()
        assert accounts.find(key.encode()) is not None
        assert [row["prompt_tokens"] for row in await accounts.usage("key", 0.0)] == [5]


def _used(path: Path) -> int:
    """Requests in the database, as another process reads it."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom yibu.accounts import usage\n"
        "from yibu.accounts.store import AccountStore\n"
        "with AccountStore.open(Path(sys.argv[1])) as store:\n"
        "    print(sum(row['requests'] for row in usage.read(store.connection, 'key', 0)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, path], stdout=subprocess.PIPE, check=True)
    return int(done.stdout)


async def test_a_second_connection_of_the_node_loses_no_usage(path: Path) -> None:
    """As the console opens one: what closes with it must not release the first one's locks."""
    accounts = LiveAccounts(path)
    async with accounts.running():
        accounts.used("alice", "chat").requests += 1
        await accounts.sync()
        await asyncio.to_thread(holds_keys, path)
        assert await asyncio.to_thread(_used, path) == 1  # it closes the database too
        accounts.used("alice", "chat").requests += 1
        key = await asyncio.to_thread(add, path, Account("alice"))
        await accounts.sync()
        assert accounts.find(key.encode()) is not None
        assert await asyncio.to_thread(_used, path) == 2


@pytest.mark.parametrize("lost", ["-wal", "-shm -wal", "database"])
async def test_keys_are_followed_when_a_file_of_the_database_is_lost(
    lost: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As where a backup is put back and the files beside it are removed. What is written to a removed file
    is seen by no other process, and theirs not here."""
    accounts = LiveAccounts(path)
    alice = add(path, Account("alice"))
    async with accounts.running():
        accounts.used("alice", "chat").requests += 1
        await accounts.sync()
        for end in lost.split():
            path.with_name(f"accounts.db{end}" if end.startswith("-") else path.name).unlink()
        await accounts.sync()
        kept = lost != "database"
        assert (accounts.find(alice.encode()) is not None) == kept
        assert ("1 keys are no longer in" in caplog.text) != kept
        bob = add(path, Account("bob"))
        accounts.used("bob", "chat").requests += 1
        await accounts.sync()
        assert accounts.find(bob.encode()) is not None
        assert await asyncio.to_thread(_used, path) == 1 + kept


async def test_a_newer_yibu_may_take_the_database_while_a_node_runs(path: Path) -> None:
    """What the older one wrote there might mean something else by then."""
    accounts = LiveAccounts(path)
    key = add(path, Account("alice")).encode()
    async with accounts.running():
        other = sqlite3.connect(path, isolation_level=None)
        known = other.execute("PRAGMA user_version").fetchone()[0]
        other.execute(f"PRAGMA user_version = {known + 1}")
        accounts.used("alice", "chat").requests += 1
        for _ in range(2):
            with pytest.raises(AccountsError, match="newer yibu"):
                await accounts.sync()
        told = accounts.unwritten()
        assert told is not None
        assert (told["requests"], "pip install -U" in told["hint"]) == (1, True)
        assert accounts.find(key) is not None
        other.execute(f"PRAGMA user_version = {known}")
        other.close()
        assert [row["requests"] for row in await accounts.usage("key", 0.0)] == [1]


async def test_a_copy_that_is_put_in_place_is_what_holds(path: Path) -> None:
    """The log of changes beside the file is newer than the copy, and is not to be applied to it."""
    accounts = LiveAccounts(path)
    async with accounts.running():
        alice, copy = add(path, Account("alice")), path.with_name("copy.db")
        with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
            source.backup(target)
        source.close()
        target.close()
        bob = add(path, Account("bob"))
        await accounts.sync()
        assert accounts.find(bob.encode()) is not None
        copy.replace(path)
        await accounts.sync()
        assert accounts.find(alice.encode()) is not None
        assert accounts.find(bob.encode()) is None


async def test_keys_are_checked_where_usage_cannot_be_read(path: Path) -> None:
    """Each page that begins something of the usage table is bad by itself, from the node's start on."""
    with AccountStore.open(path) as store:
        key = store.add(Account("alice", budget=TokenBudget(100, "day")))
        store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [size] = store.connection.execute("PRAGMA page_size").fetchone()
        named = "SELECT rootpage FROM sqlite_master WHERE tbl_name = 'usage'"
        pages = [page for (page,) in store.connection.execute(named)]
    whole = path.read_bytes()
    for page in pages:
        path.write_bytes(whole[: (page - 1) * size] + b"\xff" * size + whole[page * size :])
        accounts = LiveAccounts(path)
        async with accounts.running():
            caller = accounts.find(key.encode())
            assert caller is not None
            assert caller.meter is not None
            for _ in range(2):  # what is in memory counts, also when the accounts are read again
                caller.meter.begin(0)
                caller.meter.end(0, 60)
                accounts.used("alice", "m").add(Used(1, completion_tokens=60))
                await accounts.sync()
            refused = caller.meter.refusal(0, time.time())
            assert refused is not None
            assert refused.used == 120
            told = accounts.unwritten()
            assert told is not None
            assert (told["requests"], told["unreadable"]) == (2, False)
            with pytest.raises(AccountsError, match="damaged"):
                await accounts.usage("key", 0)
            copy = path.with_name("copy.db")
            copy.write_bytes(whole)
            with sqlite3.connect(copy) as good, sqlite3.connect(path) as damaged:
                good.backup(damaged)  # what `.restore` of the sqlite3 program does
            [row] = await accounts.usage("key", 0)
            assert (row["requests"], accounts.unwritten()) == (2, None)
        path.with_name(path.name + "-wal").unlink(missing_ok=True)
        path.with_name(path.name + "-shm").unlink(missing_ok=True)
