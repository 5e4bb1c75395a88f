"""Accounts in the database: adding, listing, removing, rotating keys."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yibu.accounts.database import AccountsError, may_hold_keys, opened, transaction, translated
from yibu.accounts.secret import PREFIX_LENGTH, digest_of, new_key, new_salt
from yibu.accounts.types import Account, Secret, TokenBudget, check_name
from yibu.config.types import Limits
from yibu.errors import UsageError

FILE = "accounts.db"
"""File name in the state directory."""

_COLUMNS = (
    "name, created, expires, admin, priority, weight, models, rpm, tpm, concurrency, "
    "budget_tokens, budget_period"
)


@dataclass(frozen=True, slots=True)
class KeyDigest:
    """What a presented key is compared with."""

    prefix: bytes
    salt: bytes
    digest: bytes
    expires: float | None


class AccountStore:
    """The accounts of one database; used by the thread that opened it."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[AccountStore]:
        """Raises AccountsError."""
        with opened(path) as connection:
            yield cls(path, connection)

    def add(self, account: Account) -> str:
        """Store an account and return its key, which is kept nowhere.

        Raises:
            UsageError: there is one of that name, or nobody may be called so.
            AccountsError: it could not be stored.
        """
        check_name(account.name)
        row = _row(account)
        with translated(self.path), transaction(self.connection):
            if self._find(account.name):
                raise UsageError(
                    "There is a key of the name {account} already",
                    account=account.name,
                    hint="Give it a new secret with: yibu key rotate {account}",
                )
            marks = ", ".join("?" * len(row))
            self.connection.execute(f"INSERT INTO account ({_COLUMNS}) VALUES ({marks})", row)  # noqa: S608 - constants
            return self._add_secret(account.name, account.created)

    def change(self, name: str, changed: Callable[[Account], Account]) -> Account:
        """Store what ``changed`` makes of an account, and return it; its keys stay. It is read in the same
        transaction: of two changes at once neither takes the other's back.

        Raises:
            UsageError: there is none of that name.
        """
        with translated(self.path), transaction(self.connection):
            account = changed(self.get(name))
            settings = ", ".join(f"{column} = ?" for column in _COLUMNS.split(", "))
            row = (*_row(account), name)
            self.connection.execute(f"UPDATE account SET {settings} WHERE name = ?", row)  # noqa: S608 - constants
        return account

    def accounts(self) -> list[Account]:
        """Every account, by name."""
        with translated(self.path):
            rows = self.connection.execute(f"SELECT {_COLUMNS} FROM account ORDER BY name")  # noqa: S608 - constants
            secrets = self._secrets()
            return [_account(row, secrets.get(row[0], ())) for row in rows]

    def get(self, name: str) -> Account:
        """One account.

        Raises:
            UsageError: there is none of that name.
        """
        accounts = {account.name: account for account in self.accounts()}
        if name not in accounts:
            raise _unknown(name, list(accounts))
        return accounts[name]

    def remove(self, name: str) -> Account:
        """Remove an account with its keys; its usage stays.

        Raises:
            UsageError: there is none of that name.
        """
        with translated(self.path), transaction(self.connection):
            account = self.get(name)
            self.connection.execute("DELETE FROM account WHERE name = ?", (name,))
        return account

    def rotate(self, name: str, grace: float, now: float | None = None) -> str:
        """A new key for an account; those that it had work for another ``grace`` seconds.

        Raises:
            UsageError: there is no account of that name, or it has expired.
        """
        now = time.time() if now is None else now
        with translated(self.path), transaction(self.connection):
            expires = self.get(name).expires
            if expires is not None and expires <= now:
                raise UsageError(
                    "The key {name} has expired, and a new secret would be refused like "
                    "the old one",
                    name=name,
                    hint="Give it more time: yibu key set {name} --expires 30d",
                )
            # What has ended before stays ended; rows stay, for the reason that is then told.
            self.connection.execute(
                "UPDATE secret SET expires = min(coalesce(expires, :end), :end) WHERE account = :name",
                {"end": now + grace, "name": name},
            )
            return self._add_secret(name, now)

    def digests(self) -> dict[str, list[KeyDigest]]:
        """What keys are checked against, by the account's name."""
        found: dict[str, list[KeyDigest]] = {}
        with translated(self.path):
            for name, prefix, salt, digest, expires in self.connection.execute(
                "SELECT account, prefix, salt, digest, expires FROM secret"
            ):
                key = KeyDigest(prefix.encode(), salt, digest, expires)
                found.setdefault(name, []).append(key)
        return found

    def _add_secret(self, name: str, now: float) -> str:
        while True:
            key, salt = new_key(), new_salt()
            prefix = key[:PREFIX_LENGTH]
            taken = "SELECT 1 FROM secret WHERE prefix = ?"
            if self.connection.execute(taken, (prefix,)).fetchone() is None:
                break
        self.connection.execute(
            "INSERT INTO secret (prefix, account, salt, digest, created) VALUES (?, ?, ?, ?, ?)",
            (prefix, name, salt, digest_of(key.encode(), salt), now),
        )
        return key

    def _find(self, name: str) -> bool:
        found = self.connection.execute("SELECT 1 FROM account WHERE name = ?", (name,))
        return found.fetchone() is not None

    def _secrets(self) -> dict[str, tuple[Secret, ...]]:
        found: dict[str, tuple[Secret, ...]] = {}
        for name, *fields in self.connection.execute(
            "SELECT account, prefix, created, expires FROM secret ORDER BY created"
        ):
            found[name] = (*found.get(name, ()), Secret(*fields))
        return found


def holds_keys(path: Path) -> bool:
    """Whether a database has keys, or may have some that cannot be read now."""
    if not path.exists():
        return False
    try:
        with AccountStore.open(path) as store:
            return bool(store.accounts())
    except AccountsError:
        return may_hold_keys(path)


def _row(account: Account) -> tuple[Any, ...]:
    budget, limits = account.budget, account.limits
    return (
        account.name, account.created, account.expires, account.admin, account.priority,
        account.weight,
        None if account.models is None else json.dumps(account.models),
        limits.rpm, limits.tpm, limits.concurrency,
        budget and budget.tokens, budget and budget.period,
    )  # fmt: skip


def _account(row: tuple[Any, ...], secrets: tuple[Secret, ...]) -> Account:
    name, created, expires, admin, priority, weight, models, rpm, tpm, concurrency, *budget = row
    return Account(
        name,
        created,
        expires,
        bool(admin),
        priority,
        None if models is None else tuple(json.loads(models)),
        Limits(rpm, tpm, concurrency),
        None if budget[0] is None else TokenBudget(*budget),
        secrets,
        weight,
    )


def _unknown(name: str, names: list[str]) -> UsageError:
    if not names:
        return UsageError(
            "There is no key {name!r}: no key has been added",
            name=name,
            hint="Add one with: yibu key add {name}",
        )
    known = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return UsageError(
        "There is no key {name!r}; those that exist: {known}",
        name=name,
        known=known,
        hint="List them with: yibu key ls",
    )
