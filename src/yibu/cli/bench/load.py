"""Load on a server: a number of concurrent chats, a rate, or an increasing sweep."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from yibu.cli.bench.client import BenchClient, Timing, request_body
from yibu.cli.bench.prompts import Prompts
from yibu.messages import tr

PERCENTILES = (50, 90, 95, 99)
MOST_AT_ONCE = 1024
_OPEN_MOST = 4096
"""Concurrent requests at a rate that the server cannot follow; further ones are counted as not sent."""
_A_CHAT = 4
"""Requests of each chat in a step of a sweep."""
_FEWEST = 16

OnRun = Callable[["Run"], None]


@dataclass(frozen=True, slots=True)
class Amount:
    """The length of a run: a number of requests, or of seconds."""

    requests: int | None = None
    seconds: float | None = None

    def over(self, sent: int, elapsed: float) -> bool:
        if self.requests is not None and sent >= self.requests:
            return True
        return self.seconds is not None and elapsed >= self.seconds


@dataclass(slots=True)
class Run:
    """One load, and the timing of each request."""

    kind: str
    """``concurrency`` or ``rate``."""
    load: float
    """Concurrent chats, or requests a second."""
    timings: list[Timing] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def good(self) -> list[Timing]:
        return [timing for timing in self.timings if timing.error is None]

    @property
    def errors(self) -> Counter[str]:
        return Counter(timing.error for timing in self.timings if timing.error is not None)

    def values(self, name: str) -> list[float]:
        """All values of ``first``, ``per_token``, ``gaps`` or ``last``."""
        if name == "gaps":
            return [gap for timing in self.good for gap in timing.gaps]
        found = (getattr(timing, name) for timing in self.good)
        return [value for value in found if value is not None]

    def ttft(self, percent: float) -> float | None:
        return percentile(self.values("first"), percent)

    def data(self) -> dict[str, Any]:
        good, seconds = self.good, max(self.seconds, 1e-9)
        out = sum(timing.completion_tokens for timing in good)
        prompts = [timing.prompt_tokens for timing in good]
        return {
            self.kind: self.load,
            "seconds": round(self.seconds, 3),
            "requests": len(self.timings),
            "errors": dict(self.errors),
            "requests_per_second": round(len(good) / seconds, 3),
            "output_tokens_per_second": round(out / seconds, 2),
            "prompt_tokens_per_second": round(sum(prompts) / seconds, 2),
            "prompt_tokens": {"mean": _mean(prompts), "min": min(prompts, default=0),
                              "max": max(prompts, default=0)},
            "completion_tokens": {"mean": _mean([t.completion_tokens for t in good])},
            "tokens_counted_by_server": all(timing.counted for timing in good),
            "ttft_seconds": summary(self.values("first")),
            "time_per_output_token_seconds": summary(self.values("per_token")),
            "inter_token_latency_seconds": summary(self.values("gaps")),
            "total_seconds": summary(self.values("last")),
        }  # fmt: skip


def percentile(values: Sequence[float], percent: float) -> float | None:
    """A percentile, interpolated as numpy does; None of no values."""
    if not values:
        return None
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low, high = math.floor(place), math.ceil(place)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def summary(values: Sequence[float]) -> dict[str, float] | None:
    """Mean and percentiles; None of no values."""
    if not values:
        return None
    named = {f"p{percent}": percentile(values, percent) or 0.0 for percent in PERCENTILES}
    found = {"mean": sum(values) / len(values), **named, "max": max(values)}
    return {name: round(value, 6) for name, value in found.items()}


class Load:
    """Sends chats of one kind to one server; no two have the same prompt."""

    def __init__(
        self, client: BenchClient, prompts: Prompts, tokens: int, extra: Mapping[str, Any]
    ) -> None:
        self._client = client
        self._prompts = prompts
        self._tokens = tokens
        self._extra = extra
        self._numbers = itertools.count()
        self._random = random.Random(prompts.seed)  # noqa: S311  (arrivals, not secrets)
        self.typical = 0.0
        """Seconds of a typical answer in the last run."""

    async def warm_up(self) -> Timing:
        """Send one chat that is not counted: kernels are compiled, pages are read."""
        timing = Timing(0.0)
        await self._send(timing)
        self.typical = timing.last or 0.0
        return timing

    async def closed(self, concurrency: int, amount: Amount) -> Run:
        """A number of concurrent chats: each sends its next request after its answer.

        They begin spread over one answer's time, since chats that all begin at once would wait for each
        other's prompts as users never do.
        """
        run = Run("concurrency", concurrency)
        began, sent = perf_counter(), itertools.count()

        async def chat(number: int) -> None:
            await asyncio.sleep(self.typical * number / concurrency)
            while not amount.over(next(sent), perf_counter() - began):
                await self._timed(run, began)

        async with asyncio.TaskGroup() as group:
            for number in range(concurrency):
                group.create_task(chat(number), name=f"chat {number}")
        return self._ended(run, began)

    async def open(self, rate: float, amount: Amount) -> Run:
        """A rate of requests, by a Poisson process, whether the server keeps up or not."""
        run = Run("rate", rate)
        began = perf_counter()
        running: set[asyncio.Task[None]] = set()
        for due in _poisson(self._random, rate, amount):
            await asyncio.sleep(max(0.0, began + due - perf_counter()))
            if len(running) >= _OPEN_MOST:
                run.timings.append(
                    Timing(perf_counter() - began, error=tr("not sent: too many at once"))
                )
                continue
            task = asyncio.create_task(self._timed(run, began), name="request")
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)
        return self._ended(run, began)

    async def sweep(
        self, slo: float, seconds: float | None, limit: int, on_run: OnRun
    ) -> tuple[list[Run], int]:
        """Runs with ever more chats until the 95th percentile of the time to the first token is over
        ``slo`` seconds, a request fails, or there are ``limit``; and the most chats that held.

        Doubled until it breaks, then halved between what held and what did not.
        """
        runs: dict[int, Run] = {}

        async def holds(concurrency: int) -> bool:
            amount = Amount(max(_FEWEST, _A_CHAT * concurrency), seconds)
            run = runs[concurrency] = await self.closed(concurrency, amount)
            on_run(run)
            return within(run, slo)

        most, broken = 0, 1
        while most < limit and await holds(broken):
            most, broken = broken, min(broken * 2, limit)
        while most < limit and broken - most > max(1, most // 8) and most:
            middle = (most + broken) // 2
            if await holds(middle):
                most = middle
            else:
                broken = middle
        return [runs[concurrency] for concurrency in sorted(runs)], most

    async def _timed(self, run: Run, began: float) -> None:
        timing = Timing(perf_counter() - began)
        await self._send(timing)
        run.timings.append(timing)

    async def _send(self, timing: Timing) -> None:
        text = self._prompts.text(next(self._numbers))
        body = request_body(self._client.target, text, self._tokens, self._extra)
        await self._client.chat(timing, body)

    def _ended(self, run: Run, began: float) -> Run:
        run.seconds = perf_counter() - began
        run.timings.sort(key=lambda timing: timing.start)
        self.typical = percentile(run.values("last"), 50) or self.typical
        return run


def within(run: Run, slo: float) -> bool:
    """Whether a run kept within the limit, without failed requests."""
    found = run.ttft(95)
    return found is not None and found <= slo and not run.errors


def _poisson(chosen: random.Random, rate: float, amount: Amount) -> Iterator[float]:
    """Arrival times in seconds from the beginning."""
    due = 0.0
    for sent in itertools.count():
        if amount.over(sent, due):
            return
        yield due
        due += chosen.expovariate(rate)


def _mean(values: Sequence[int]) -> float:
    return round(sum(values) / len(values), 1) if values else 0.0
