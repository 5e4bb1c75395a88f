"""Limits as arithmetic: what is left, what a request takes, and when enough is left again.

No clock, no request: whoever calls says what time it is. Requests and tokens a minute are token
buckets, as OpenAI's limits are: a bucket holds a minute's worth, and fills evenly. So in any
stretch of time at most one minute's worth comes on top of the rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from yibu.accounts.types import Period, TokenBudget
from yibu.config.types import NO_LIMITS, Limits

Kind = Literal["requests", "tokens", "concurrency", "budget"]

_CONCURRENCY_WAIT = 1.0
"""Retry-After in seconds for concurrency limits: nobody can foresee when a request ends."""
_DUST = 1e-9
"""Rounding error that adding fractions may leave of one request."""


@dataclass(slots=True)
class Bucket:
    """A token bucket that refills by ``capacity`` a minute."""

    capacity: int
    level: float
    at: float

    def refill(self, now: float) -> None:
        """Refill up to ``now``; a clock that went back changes nothing."""
        if now > self.at:
            self.level = min(self.capacity, self.level + (now - self.at) * self.capacity / 60)
            self.at = now

    def wait(self, level: float) -> float:
        """Seconds until it holds ``level``."""
        return max(0.0, (level - self.level) * 60 / self.capacity)

    def window(self) -> Window:
        return Window(self.capacity, max(0, int(self.level + _DUST)), self.wait(self.capacity))

    def resize(self, capacity: int) -> None:
        """Change the capacity; what was taken out stays taken."""
        self.level += capacity - self.capacity
        self.capacity = capacity


@dataclass(slots=True)
class Spending:
    """A budget, and its use in the current calendar day or month (UTC)."""

    budget: TokenBudget
    start: float
    end: float
    spent: int = 0
    stale: bool = False
    """Whether ``spent`` lacks the database's count for this day or month."""

    @classmethod
    def at(cls, budget: TokenBudget, now: float, spent: int = 0) -> Spending:
        return cls(budget, *bounds(budget.period, now), spent)

    def roll(self, now: float) -> None:
        """Begin anew when the day or month is over, or when the clock was set to another one: what was used
        of that before has to be read."""
        if not self.start <= now < self.end:
            self.start, self.end = bounds(self.budget.period, now)
            self.spent, self.stale = 0, True

    def has(self, hour: int | None) -> bool:
        """Whether an hour is of this day or month; what was used in others is not for this one to count."""
        return hour is None or self.start <= hour * 3600 < self.end

    def window(self, now: float) -> Window:
        left = max(0, self.budget.tokens - self.spent)
        return Window(self.budget.tokens, left, self.end - now)


def bounds(period: Period, now: float) -> tuple[float, float]:
    """Start and end of the day or month of ``now``, in Unix seconds."""
    day = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return day.timestamp(), day.timestamp() + 86400
    first = day.replace(day=1)
    after = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    return first.timestamp(), after.timestamp()


@dataclass(frozen=True, slots=True)
class LimitRefusal:
    """Why a request must wait, and how long."""

    who: str
    name: str
    """The meter's name."""
    kind: Kind
    limit: int
    used: int
    wait: float
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Window:
    """The remaining requests or tokens, of a minute or of a budget."""

    limit: int
    remaining: int
    reset: float
    """Seconds until it is full again."""


@dataclass(frozen=True, slots=True)
class LimitVerdict:
    """Whether a request may begin, and what is left of requests and of tokens."""

    refusal: LimitRefusal | None
    windows: tuple[Window | None, Window | None]


@dataclass(slots=True)
class Meter:
    """The limits of one account or model, and their use."""

    who: str
    """The subject of sentences about it."""
    limits: Limits = NO_LIMITS
    requests: Bucket | None = None
    tokens: Bucket | None = None
    spending: Spending | None = None
    in_flight: int = 0
    name: str = ""
    """Identifies it for another node."""

    def state(self, now: float) -> tuple[float | None, float | None, int]:
        """Requests and tokens left in the minute, and the number of requests in flight."""
        self.refill(now)
        requests, tokens = (one.level if one else None for one in (self.requests, self.tokens))
        return requests, tokens, self.in_flight

    def resume(
        self, requests: float | None, tokens: float | None, in_flight: int, now: float
    ) -> None:
        """Continue from the state of another node's meter of the same name."""
        self.refill(now)
        for bucket, level in ((self.requests, requests), (self.tokens, tokens)):
            if bucket is not None and level is not None:
                bucket.level = min(bucket.capacity, level)
        self.in_flight += in_flight

    def configure(self, limits: Limits, spending: Spending | None, now: float) -> None:
        """Change the limits; their present use stays."""
        self.limits = limits
        self.requests = _resized(self.requests, limits.rpm, now)
        self.tokens = _resized(self.tokens, limits.tpm, now)
        self.spending = spending

    def refusal(self, now: float, wall: float) -> LimitRefusal | None:
        """Why a request cannot begin now; None where it can."""
        spending, limits = self.spending, self.limits
        if spending is not None:
            spending.roll(wall)
            if spending.spent >= spending.budget.tokens:
                left = spending.end - wall
                return self._refusal("budget", spending.budget.tokens, spending.spent, left)
        if limits.concurrency is not None and self.in_flight >= limits.concurrency:
            most = limits.concurrency
            return self._refusal("concurrency", most, self.in_flight, _CONCURRENCY_WAIT)
        self.refill(now)
        if (bucket := self.requests) is not None and bucket.level < 1 - _DUST:
            return self._refusal("requests", bucket.capacity, bucket.capacity, bucket.wait(1))
        if (bucket := self.tokens) is not None and bucket.level < 1 - _DUST:
            used = int(bucket.capacity - bucket.level)
            return self._refusal("tokens", bucket.capacity, used, bucket.wait(1))
        return None

    def _refusal(self, kind: Kind, limit: int, used: int, wait: float) -> LimitRefusal:
        return LimitRefusal(self.who, self.name, kind, limit, used, wait)

    def begin(self, tokens: int) -> None:
        """Take one request, and set ``tokens`` aside for it until they are counted."""
        self.in_flight += 1
        if self.requests is not None:
            self.requests.level -= 1
        if self.tokens is not None:
            self.tokens.level -= tokens

    def end(self, set_aside: int, tokens: int) -> None:
        """The request has ended, and took ``tokens`` that are not counted yet."""
        self.in_flight -= 1
        self.use(set_aside, tokens)

    def use(self, set_aside: int, tokens: int, hour: int | None = None) -> None:
        """A request took ``tokens`` in an ``hour`` of Unix time, None for this one. They are all taken, so that
        what was too much is waited for; fewer than none where an estimate was too high."""
        if self.tokens is not None:
            level = self.tokens.level + set_aside - tokens
            self.tokens.level = min(self.tokens.capacity, level)
        if self.spending is not None and self.spending.has(hour):
            self.spending.spent += tokens

    def refill(self, now: float) -> None:
        for bucket in (self.requests, self.tokens):
            if bucket is not None:
                bucket.refill(now)


class Admission(NamedTuple):
    """One request's share of every limit that applies."""

    meters: Sequence[Meter]
    set_aside: int


def admit(meters: Sequence[Meter], tokens: int, now: float, wall: float) -> LimitVerdict:
    """Take a request's share of every limit, or of none: the longest wait is told. What is left of
    requests and of tokens is so by the tightest limit of each."""
    refusals = [found for meter in meters if (found := meter.refusal(now, wall)) is not None]
    for meter in meters:
        meter.refill(now)
        if not refusals:
            meter.begin(tokens)
    refusal = max(refusals, key=lambda refusal: refusal.wait, default=None)
    of_requests = [meter.requests.window() for meter in meters if meter.requests is not None]
    of_tokens = [meter.tokens.window() for meter in meters if meter.tokens is not None]
    of_tokens += [meter.spending.window(wall) for meter in meters if meter.spending is not None]
    return LimitVerdict(refusal, (_tightest(of_requests), _tightest(of_tokens)))


def _resized(bucket: Bucket | None, capacity: int | None, now: float) -> Bucket | None:
    if capacity is None:
        return None
    if bucket is None:
        return Bucket(capacity, capacity, now)
    bucket.resize(capacity)
    return bucket


def _tightest(windows: Sequence[Window]) -> Window | None:
    return min(windows, key=lambda window: window.remaining, default=None)
