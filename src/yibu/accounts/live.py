"""The accounts of a running node: in memory for requests, synchronized with the database.

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
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from yibu.accounts import usage
from yibu.accounts.database import AccountsError, may_hold_keys
from yibu.accounts.exchange import Database, StoredAccounts
from yibu.accounts.limits import Meter, Spending
from yibu.accounts.secret import digest_of, prefix_of
from yibu.accounts.store import KeyDigest
from yibu.accounts.types import Account, Priority, stamp
from yibu.accounts.usage import By, Slot, Used
from yibu.errors import UnauthorizedError, YibuError
from yibu.messages import tr

_log = logging.getLogger(__name__)

_MOST_SLOTS = 10_000
"""Records in memory, beyond which hours of a day are added up; some 3 MB."""
_NAMED = 10
"""Removed keys that the log names."""
_TICK = 0.5
"""Seconds from one look at the database to the next. A node that is killed loses what it counted since
the last one, and what was being written: less than a second, while a commit takes less than half of one."""


@dataclass(eq=False, slots=True)
class Caller:
    """Who sends a request: an account, a key of the configuration, or anybody."""

    name: str
    """The name in logs and usage."""
    labels: tuple[str, ...] = ()
    """Metric labels: the account's name; keys of the configuration have none."""
    admin: bool = False
    configured: bool = False
    """Whether the key is the operator's own, from the configuration."""
    models: frozenset[str] | None = None
    """Names of the models it may use; None: all."""
    priority: Priority = "interactive"
    weight: int = 1
    expires: float | None = None
    meter: Meter | None = None
    """Its limits, where it has any."""


ANYBODY = Caller("-")
"""The caller of a gateway without keys."""


@dataclass(frozen=True, slots=True)
class _Known:
    """One key, as requests are checked against it."""

    digest: KeyDigest
    caller: Caller


class LiveAccounts:
    """``async with accounts.running()``; then ``find`` keys."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        """``clock`` returns Unix seconds."""
        self.path = path
        self._clock = clock
        self._known: dict[bytes, list[_Known]] = {}
        self._by_digest: dict[bytes, _Known] = {}
        self._callers: dict[str, Caller] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="accounts")
        self._database = Database(path, clock)
        self._counted: dict[Slot, Used] = {}
        """Usage not yet in the database nor on its way there."""
        self._leaving: dict[Slot, Used] = {}
        self._fault: Exception | None = None
        """The current error of the database."""
        self._failing_since = 0.0
        self._turn = asyncio.Lock()
        """Budgets are added up from the database and from what is not in it yet: nothing may be on
        its way between the two."""
        self.unreadable = False
        """Whether the database may have keys that could not be read yet."""
        self._had_keys = False
        self.before_write: Callable[[], None] = lambda: None
        """Counts what requests that go on have used by now."""

    @property
    def closed(self) -> bool:
        """Whether keys are required. Once there was a key, that stays until the node restarts: removing
        the last key must not let its holder in without one."""
        return self._had_keys or self.unreadable

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Synchronize with the database until the block ends."""
        await self._tick()
        ticking = asyncio.create_task(self._ticks(), name="accounts")
        try:
            yield
        finally:
            ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticking
            await self._tick()
            if (lost := self.unwritten()) is not None and lost["requests"]:
                _log.error("the usage of %d requests is lost: %s", lost["requests"], self._fault)
            await asyncio.get_running_loop().run_in_executor(self._thread, self._database.close)
            self._thread.shutdown()

    async def sync(self) -> None:
        """Write usage, and read changed accounts.

        Raises:
            AccountsError: keys could not be read; what was known goes on.
        """
        # The client of a request that waits for this may leave: what the thread then brings is still
        # taken up, and what it could not write is counted again.
        await asyncio.shield(asyncio.create_task(self._sync(), name="accounts-sync"))

    async def _sync(self) -> None:
        async with self._turn:
            await self._exchange()

    async def _exchange(self) -> None:
        loop = asyncio.get_running_loop()
        self.before_write()
        counted, self._counted = self._counted, {}
        self._leaving = counted
        stale = any(meter.spending is not None and meter.spending.stale for meter in self.meters())
        try:
            found, fault = await loop.run_in_executor(
                self._thread, self._database.exchange, counted, stale
            )
        except Exception as error:  # whatever it is, what was counted is kept and told of once
            # What was read goes on, also that there are no keys: the disk is full now, for instance.
            unread = not self._known and not self._database.was_read()
            self.unreadable = unread and may_hold_keys(self.path)
            self._failed(error, counted)
            raise
        finally:
            self._leaving = {}
        self.unreadable = False
        if fault is not None:
            self._failed(fault, counted)
        elif self._fault is not None:
            _log.info("the database of keys %s is usable again, and has all usage", self.path)
            self._fault = None
        if found is not None:
            self._take(found)

    def _failed(self, fault: Exception, counted: dict[Slot, Used]) -> None:
        """Keep what could not be written."""
        for slot, used in counted.items():
            self.take(slot, used)
        usage.fold(self._counted, _MOST_SLOTS)
        if self._fault is None:
            self._failing_since = self._clock()
            _log.warning("usage is kept in memory until it can be written; a crash loses it")
        if str(self._fault) != str(fault):
            _log.error("%s", fault, exc_info=not isinstance(fault, AccountsError))
        self._fault = fault

    def unwritten(self) -> dict[str, Any] | None:
        """What is kept in memory only, since when and why, what to do about it, and whether keys cannot
        be checked either; None while the database is written."""
        if (fault := self._fault) is None:
            return None
        counted = [*self._counted.values(), *self._leaving.values()]
        error, hint = repr(fault), ""
        if isinstance(fault, YibuError):
            error, hint = fault.message, fault.hint
        return {
            "requests": sum(used.requests for used in counted),
            "since": int(self._failing_since),
            "error": error,
            "hint": hint,
            "unreadable": self.unreadable,
        }

    def give(self) -> dict[Slot, Used]:
        """Usage that could not be written, handed to the next node; this one forgets it."""
        counted, self._counted = self._counted, {}
        return counted

    def take(self, slot: Slot, used: Used) -> None:
        """Count again what was on its way to the database, or what a node before this one could not write."""
        self.used_in(slot).add(used)

    def slot(self, key: str, model: str) -> Slot:
        """Where the usage of this moment is counted."""
        return int(self._clock() // 3600), key, model

    def used(self, key: str, model: str) -> Used:
        """Where to add what a request used, at once; it is written within half a second."""
        return self.used_in(self.slot(key, model))

    def used_in(self, slot: Slot) -> Used:
        """The same, of another hour."""
        return self._counted.setdefault(slot, Used())

    async def usage(self, by: By, since: float, key: str | None = None) -> list[dict[str, Any]]:
        """Usage until now, of all keys or of one.

        Raises:
            AccountsError: the database cannot be read or written.
        """
        await self.sync()
        if self._fault is not None:
            raise self._fault
        read = partial(self._database.usage, by, since, key)
        return await asyncio.get_running_loop().run_in_executor(self._thread, read)

    def meters(self) -> list[Meter]:
        """The limits of every key that has any."""
        return [caller.meter for caller in self._callers.values() if caller.meter is not None]

    def find(self, key: bytes) -> Caller | None:
        """The caller with this key; None for an unknown one.

        Raises:
            UnauthorizedError: it has expired, or was replaced.
        """
        return self._now(self._match(key))

    def digest(self, key: bytes) -> bytes | None:
        """The stored digest of a key; None for an unknown one."""
        one = self._match(key)
        return one.digest.digest if one else None

    def digests(self) -> Sequence[bytes]:
        """The digests of all keys."""
        return tuple(self._by_digest)

    def holder(self, digest: bytes) -> Caller | None:
        """The caller whose key has this digest; None for an unknown one.

        Raises:
            UnauthorizedError: it has expired, or was replaced.
        """
        return self._now(self._by_digest.get(digest))

    def _match(self, key: bytes) -> _Known | None:
        for one in self._known.get(prefix_of(key), ()):
            if hmac.compare_digest(digest_of(key, one.digest.salt), one.digest.digest):
                return one
        return None

    def _now(self, one: _Known | None) -> Caller | None:
        if one is None:
            return None
        now, caller = self._clock(), one.caller
        if caller.expires is not None and now >= caller.expires:
            raise UnauthorizedError(
                "The API key {caller!r} expired at {expires}",
                caller=caller.name,
                expires=stamp(caller.expires),
                code="expired_api_key",
            )
        if (ended := one.digest.expires) is not None and now >= ended:
            raise UnauthorizedError(
                "This secret of the API key {caller!r} was replaced, and ended at "
                "{expires}: use the new one",
                caller=caller.name,
                expires=stamp(ended),
                code="replaced_api_key",
            )
        return caller

    async def _ticks(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            # From its beginning: a slow disk must not add its time to what a crash can lose.
            due = max(due + _TICK, loop.time())
            await asyncio.sleep(due - loop.time())
            await self._tick()

    async def _tick(self) -> None:
        # The keys must go on being followed, whatever was wrong with one look.
        with contextlib.suppress(Exception):  # logged, and tried again
            await self.sync()

    def _take(self, found: StoredAccounts) -> None:
        """Check requests against these accounts from now on."""
        callers: dict[str, Caller] = {}
        known: dict[bytes, list[_Known]] = {}
        for account in found.accounts:
            caller = self._callers.get(account.name) or Caller(account.name, (account.name,))
            caller.admin = account.admin
            caller.models = None if account.models is None else frozenset(account.models)
            caller.priority = account.priority
            caller.weight = account.weight
            caller.expires = account.expires
            caller.meter = self._meter(account, caller.meter, found.spent.get(account.name))
            callers[account.name] = caller
            for digest in found.digests.get(account.name, ()):
                known.setdefault(digest.prefix, []).append(_Known(digest, caller))
        if lost := sorted(self._callers.keys() - callers.keys()):
            # A file that was lost or replaced by an empty one looks like this too.
            some = ", ".join(lost[:_NAMED]) + (", …" if len(lost) > _NAMED else "")
            _log.warning("%d keys are no longer in %s, and refused: %s", len(lost), self.path, some)
        self._callers, self._known = callers, known
        self._by_digest = {one.digest.digest: one for several in known.values() for one in several}
        self._had_keys |= bool(known)

    def _meter(self, account: Account, meter: Meter | None, spent: int | None) -> Meter | None:
        """The account's limits, with what is in use of them by now."""
        if not account.limits and account.budget is None:
            return None
        spending = None
        if account.budget is not None:
            spending = Spending.at(account.budget, self._clock(), spent or 0)
            known = meter.spending if meter else None
            if spent is None and known is not None and known.start == spending.start:
                spending.spent = known.spent  # no more can be read of it
            else:
                spending.spent += sum(
                    used.tokens
                    for (hour, key, _), used in self._counted.items()
                    if key == account.name and spending.has(hour)
                )
        who = tr("The API key {account!r}", account=account.name)
        meter = meter or Meter(who, name=f"key {account.name}")
        meter.configure(account.limits, spending, time.monotonic())
        return meter
