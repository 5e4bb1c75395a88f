"""The gateway's counters, cheap enough for every request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from time import perf_counter

from yibu.prometheus import Histogram, Labels, family, head, histograms, sample

DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
"""Seconds."""


@dataclass(slots=True)
class GatewayMetrics:
    """The gateway's counters. Labels are few: paths of the API, known models."""

    requests: Counter[Labels] = field(default_factory=Counter)
    """By model, path, status and the key's name, where there is one."""
    tokens: Counter[Labels] = field(default_factory=Counter)
    """By model, direction (prompt, completion) and the key's name, where there is one."""
    received: Counter[Labels] = field(default_factory=Counter)
    """Bytes of request bodies, by model."""
    sent: Counter[Labels] = field(default_factory=Counter)
    """Bytes of answers, by model."""
    upstream_errors: Counter[Labels] = field(default_factory=Counter)
    """By model and kind."""
    retries: Counter[Labels] = field(default_factory=Counter)
    """By model: requests sent to a second replica."""
    duration: dict[Labels, Histogram] = field(default_factory=dict)
    """Seconds, by model and path."""
    first_byte: dict[Labels, Histogram] = field(default_factory=dict)
    """Seconds, by model and path."""
    waits: dict[Labels, Histogram] = field(default_factory=dict)
    """Seconds that requests waited for a replica, of those that had to; by model."""
    in_flight: int = 0

    def observe(self, store: dict[Labels, Histogram], labels: Labels, seconds: float) -> None:
        histogram = store.get(labels)
        if histogram is None:
            histogram = store[labels] = Histogram(DURATION_BUCKETS)
        histogram.observe(seconds)

    async def waited(self, model: str, granted: Awaitable[None]) -> None:
        """Wait until a request has its replica."""
        begun = perf_counter()
        await granted
        self.observe(self.waits, (model,), perf_counter() - begun)

    def render(self, extra: Iterable[str] = ()) -> str:
        """The exposition; ``extra`` are further lines, for instance of the models' states."""
        model, path = ("model",), ("model", "path")
        errors = "Engines unreachable or broken off"
        retries = "Requests sent to a second replica"
        waits = "Time that requests waited, of those that had to"
        lines = [
            *self._of_keys(lambda _: True),
            *_counted("request_bytes_total", "Bytes of request bodies", model, self.received),
            *_counted("response_bytes_total", "Bytes of answers", model, self.sent),
            *_counted("upstream_errors_total", errors, (*model, "kind"), self.upstream_errors),
            *_counted("upstream_retries_total", retries, model, self.retries),
            *histograms("request_seconds", "Time to the last byte", path, self.duration),
            *histograms("first_byte_seconds", "Time to the first byte", path, self.first_byte),
            *histograms("queue_wait_seconds", waits, model, self.waits),
            *head("requests_in_flight", "HTTP requests in flight", "gauge"),
            f"yibu_requests_in_flight {self.in_flight}",
            *extra,
        ]
        return "\n".join(lines) + "\n"

    def render_own(self, key: str) -> str:
        """The metrics of one key alone."""
        return "\n".join(self._of_keys(lambda other: other == key)) + "\n"

    def _of_keys(self, shown: Callable[[str], bool]) -> list[str]:
        """The families with the key's name; requests without a key have no such label."""
        lines: list[str] = []
        for name, text, names, counter in (
            ("requests_total", "HTTP requests", ("model", "path", "status"), self.requests),
            ("tokens_total", "Tokens, by usage", ("model", "direction"), self.tokens),
        ):
            lines += head(name, text, "counter")
            for values, number in sorted(counter.items()):
                if shown("".join(values[len(names) :])):
                    lines.append(sample(name, (*names, "key")[: len(values)], values, number))
        return lines


def _counted(name: str, text: str, names: Labels, counter: Counter[Labels]) -> list[str]:
    return family(name, text, "counter", names, sorted(counter.items()))
