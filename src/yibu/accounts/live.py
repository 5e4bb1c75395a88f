"""The accounts of a running node: in memory for requests, in step with the database beside them.

Requests are checked against dictionaries and never wait for the disk. One thread has the database:
twice a second it writes what was used, and reads the accounts again when another process has
changed them. What it cannot read leaves the keys that are known as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from yibu.accounts.database import AccountsError, may_hold_keys, translated
from yibu.accounts.secret import digest_of, prefix_of
from yibu.accounts.store import AccountStore, KeyDigest
from yibu.accounts.types import Account
from yibu.errors import UnauthorizedError

_log = logging.getLogger(__name__)

_TICK = 0.5
"""Seconds between two looks at the database: what a crash can lose of the usage."""


@dataclass(eq=False, slots=True)
class Caller:
    """Who sends a request: an account, a key of the configuration, or anybody."""

    name: str
    """For logs, metrics and usage."""
    admin: bool = False
    configured: bool = False
    """The key is one of the operator's own, from the configuration."""
    models: frozenset[str] | None = None
    """Names of the models that it may use; None: all."""
    expires: float | None = None


ANYBODY = Caller("-")
"""Of a gateway without keys."""


@dataclass(frozen=True, slots=True)
class _Known:
    """One key as requests are checked against it."""

    digest: KeyDigest
    caller: Caller


class LiveAccounts:
    """``async with accounts.running()``; then ``find`` keys."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        """``clock`` gives Unix seconds."""
        self.path = path
        self._clock = clock
        self._known: dict[bytes, list[_Known]] = {}
        self._callers: dict[str, Caller] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="accounts")
        self._database = _Database(path)
        self._told = ""
        self.unreadable = False
        """The database may have keys, and none could be read yet."""
        self.closed = False
        """Keys are asked for. Once they are, that stays until the node is started again: removing the
        last key must not let its holder in without one."""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep in step with the database until the block ends."""
        await self._tick()
        ticking = asyncio.create_task(self._ticks(), name="accounts")
        try:
            yield
        finally:
            ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticking
            await self._tick()
            await asyncio.get_running_loop().run_in_executor(self._thread, self._database.close)
            self._thread.shutdown()

    async def sync(self) -> None:
        """Take up now what has changed in the database.

        Raises:
            AccountsError: it could not be read or written; what was known goes on.
        """
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._thread, self._database.changed)
        except AccountsError as error:
            self.unreadable = not self._known and may_hold_keys(self.path)
            self.closed |= self.unreadable
            if self._told != error.message:
                self._told = error.message
                _log.error("%s", error)
            raise
        if self._told:
            _log.info("the database of keys %s is usable again", self.path)
        self._told, self.unreadable = "", False
        if found is not None:
            self._take(*found)

    def find(self, key: bytes) -> Caller | None:
        """Who a key belongs to; None for an unknown one.

        Raises:
            UnauthorizedError: it has expired, or was replaced.
        """
        known = self._known.get(prefix_of(key))
        if known is None:
            return None
        for one in known:
            digest = one.digest
            if hmac.compare_digest(digest_of(key, digest.salt), digest.digest):
                if digest.expires is not None or one.caller.expires is not None:
                    self._check_time(digest, one.caller)
                return one.caller
        return None

    def _check_time(self, digest: KeyDigest, caller: Caller) -> None:
        now = self._clock()
        if caller.expires is not None and now >= caller.expires:
            raise UnauthorizedError(
                f"The API key {caller.name!r} expired at {_stamp(caller.expires)}",
                code="expired_api_key",
            )
        if digest.expires is not None and now >= digest.expires:
            raise UnauthorizedError(
                f"This secret of the API key {caller.name!r} was replaced, and ended at "
                f"{_stamp(digest.expires)}: use the new one",
                code="replaced_api_key",
            )

    async def _ticks(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            await self._tick()

    async def _tick(self) -> None:
        with contextlib.suppress(AccountsError):  # logged, and tried again
            await self.sync()

    def _take(self, accounts: list[Account], digests: dict[str, list[KeyDigest]]) -> None:
        """Let requests be checked against these from now on."""
        callers: dict[str, Caller] = {}
        known: dict[bytes, list[_Known]] = {}
        for account in accounts:
            caller = self._callers.get(account.name) or Caller(account.name)
            caller.admin = account.admin
            caller.models = None if account.models is None else frozenset(account.models)
            caller.expires = account.expires
            callers[account.name] = caller
            for digest in digests.get(account.name, ()):
                known.setdefault(digest.prefix, []).append(_Known(digest, caller))
        self._callers, self._known = callers, known
        self.closed |= bool(known)


class _Database:
    """The database as the one thread has it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open = contextlib.ExitStack()
        self._store: AccountStore | None = None
        self._seen: object = None

    def changed(self) -> tuple[list[Account], dict[str, list[KeyDigest]]] | None:
        """The accounts and their keys, where another process has changed them since the last call.

        Raises:
            AccountsError: the database cannot be read.
        """
        try:
            store = self._opened()
            with translated(self._path):
                version = store.connection.execute("PRAGMA data_version").fetchone()[0]
            if version == self._seen:
                return None
            found = store.accounts(), store.digests()
        except AccountsError:
            self.close()
            raise
        self._seen = version
        return found

    def close(self) -> None:
        self._open.close()
        self._store = self._seen = None

    def _opened(self) -> AccountStore:
        """The store; opened anew where another file has taken its place, a backup say."""
        if self._store is not None and not self._is_replaced(self._store):
            return self._store
        self.close()
        self._store = self._open.enter_context(AccountStore.open(self._path))
        with translated(self._path):
            self._file = _identity(self._path)
        return self._store

    def _is_replaced(self, store: AccountStore) -> bool:
        try:
            return _identity(store.path) != self._file
        except FileNotFoundError:
            return True


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
