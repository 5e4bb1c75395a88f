"""The queue of one model: fair between accounts, interactive before batch."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator

from yibu.node.scheduler.types import Waiter
from yibu.routing import Priority

_BATCH_EVERY = 8
"""While both wait, one in this many requests is a batch one, so that batch does not starve."""


class RequestQueue:
    """The next request is of the account with the fewest in flight for its weight; of several, of the one
    whose turn it is by start-time fair queueing (Goyal, Vin and Cheng, 1996): each request advances its
    account by the inverse of the weight. Those in flight are counted in whole multiples of what the
    lightest may have one of: with few slots a heavy account would else never have two while a light
    one has none. Requests of one account keep their order."""

    def __init__(self) -> None:
        self._waiting: dict[Priority, dict[str, deque[Waiter]]] = {"interactive": {}, "batch": {}}
        self._length = 0
        self._in_flight: Counter[str] = Counter()
        self._finished: dict[str, float] = {}
        """Virtual time at which each account's latest request ends."""
        self._now = 0.0
        """Virtual time: when the latest request began."""
        self._interactive = 0
        """Interactive requests since the last batch one, while both waited."""

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Waiter]:
        for accounts in self._waiting.values():
            for waiters in accounts.values():
                yield from waiters

    def push(self, waiter: Waiter) -> None:
        self._waiting[waiter.priority].setdefault(waiter.key, deque()).append(waiter)
        self._length += 1

    def remove(self, waiter: Waiter) -> bool:
        """Remove a request that no longer waits; False when it is not here."""
        accounts = self._waiting[waiter.priority]
        waiters = accounts.get(waiter.key)
        if waiters is None or waiter not in waiters:
            return False
        waiters.remove(waiter)
        self._shrunk(accounts, waiter.key)
        return True

    def pop(self, fits: Callable[[Waiter], bool]) -> Waiter | None:
        """The next request, of the first of each account that ``fits`` accepts. One that does not fit
        (it waits for another replica than those that are free) holds up nobody behind it."""
        for priority in self._order():
            accounts = self._waiting[priority]
            found = (next(filter(fits, waiters), None) for waiters in accounts.values())
            if firsts := [first for first in found if first]:
                least = min(first.weight for first in firsts)
                waiter = min(firsts, key=lambda first: self._rank(first, least))
                accounts[waiter.key].remove(waiter)
                self._shrunk(accounts, waiter.key)
                self._count(priority)
                return waiter
        return None

    @property
    def granted_any(self) -> bool:
        """Whether a replica works on one of its requests."""
        return bool(self._in_flight)

    def granted(self, waiter: Waiter) -> None:
        """Note that a request goes to a replica."""
        key = waiter.key
        self._in_flight[key] += 1
        self._now = self._start(key)
        self._finished[key] = self._now + 1 / waiter.weight

    def answered(self, key: str) -> None:
        """Note that a request of this account has ended. Forgets accounts with nothing left here."""
        left = self._in_flight[key] - 1
        if left > 0:
            self._in_flight[key] = left
            return
        del self._in_flight[key]
        if not self._length:
            self._finished.clear()

    def _rank(self, waiter: Waiter, least: int) -> tuple[int, float, float]:
        """``least``: the smallest weight of those that are compared."""
        key = waiter.key
        return self._in_flight[key] * least // waiter.weight, self._start(key), waiter.since

    def _start(self, key: str) -> float:
        """Virtual time at which the account's next request begins."""
        return max(self._now, self._finished.get(key, 0.0))

    def _order(self) -> tuple[Priority, Priority]:
        if self._interactive >= _BATCH_EVERY - 1:
            return "batch", "interactive"
        return "interactive", "batch"

    def _count(self, priority: Priority) -> None:
        if priority == "batch" or not self._waiting["batch"]:
            self._interactive = 0
        else:
            self._interactive += 1

    def _shrunk(self, accounts: dict[str, deque[Waiter]], key: str) -> None:
        self._length -= 1
        if not accounts[key]:
            del accounts[key]
