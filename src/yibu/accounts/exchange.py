"""The running node's access to the database, on one thread: usage goes in, accounts come out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yibu.accounts import usage
from yibu.accounts.database import AccountsError, check_version, shares, translated
from yibu.accounts.limits import bounds
from yibu.accounts.store import AccountStore, KeyDigest
from yibu.accounts.types import Account
from yibu.accounts.usage import By, Slot, Used


@dataclass(frozen=True, slots=True)
class StoredAccounts:
    """The accounts in the database."""

    accounts: list[Account]
    digests: dict[str, list[KeyDigest]]
    spent: dict[str, int]
    """Tokens used in the current day or month, of accounts with a budget, where they could be read."""


class Database:
    """An open connection; opened anew when one of the files was replaced."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._open = contextlib.ExitStack()
        self._store: AccountStore | None = None
        self._seen: object = None
        self._files: _Files = (None, None)
        self._read_from: _Files = (None, None)

    def was_read(self) -> bool:
        """Whether the present file was read before."""
        return (found := _identity(self._path)) is not None and found == self._read_from[0]

    def exchange(
        self, counted: dict[Slot, Used], stale: bool
    ) -> tuple[StoredAccounts | None, AccountsError | None]:
        """Write what was counted; the accounts, where another process has changed them since or what is
        known of a budget is ``stale``; and what keeps usage, but not keys, from being read or written.

        Raises:
            AccountsError: keys cannot be read. Then too, ``counted`` has what was not written.
        """
        fault: AccountsError | None = None
        try:
            with translated(self._path):
                store = self._opened()
                version = store.connection.execute("PRAGMA data_version").fetchone()[0]
                if version != self._seen:
                    check_version(store.connection, self._path)
                same = version == self._seen and not stale
                found = None if same else StoredAccounts(store.accounts(), store.digests(), {})
                shared = shares(store.connection)
                self._read_from = self._files
            try:
                self._exchange_usage(store, counted, found)
            except AccountsError as error:
                fault = error
        except BaseException:  # whatever it is, the next look begins with a connection of its own
            self.close()
            raise
        self._seen = version
        if fault or not shared:  # others are not to be kept out for longer than it takes
            self.close()
        return found, fault

    def usage(self, by: By, since: float, key: str | None) -> list[dict[str, Any]]:
        """Raises AccountsError."""
        with translated(self._path):
            return usage.read(self._opened().connection, by, since, key)

    def close(self) -> None:
        self._open.close()
        self._store = self._seen = None

    def _exchange_usage(
        self, store: AccountStore, counted: dict[Slot, Used], found: StoredAccounts | None
    ) -> None:
        with translated(self._path):
            if counted:
                usage.write(store.connection, counted)
                counted.clear()  # whatever fails now, it is not to be written twice
            if found is None:
                return
            for account in found.accounts:
                if account.budget is not None:
                    period = bounds(account.budget.period, self._clock())
                    spent = usage.spent(store.connection, account.name, *period)
                    found.spent[account.name] = spent

    def _opened(self) -> AccountStore:
        """The store; opened anew where another file has taken its place, a backup say, or its log of what
        was written is gone: what others write would not be seen, nor what this one does be kept."""
        if self._store is not None:
            found = _files(self._path)
            if found == self._files:
                return self._store
            self.close()
            if found[0] != self._files[0] and found[1] == self._files[1]:
                # SQLite would apply the log of the file that was here to the one that took its place.
                for end in _ENDS:
                    self._path.with_name(self._path.name + end).unlink(missing_ok=True)
        self._store = self._open.enter_context(AccountStore.open(self._path))
        self._files = _files(self._path)
        return self._store


_ENDS = ("-wal", "-shm")
"""Suffixes of SQLite's files beside the database."""
_Files = tuple[object, object]


def _files(path: Path) -> _Files:
    """The identities of the database's files."""
    return _identity(path), _identity(path.with_name(path.name + _ENDS[0]))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
