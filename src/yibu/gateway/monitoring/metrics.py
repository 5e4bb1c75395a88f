"""Counters and histograms in Prometheus' text format, cheap enough for every request.

Names and labels follow https://prometheus.io/docs/practices/naming/. One event loop writes them:
there is no lock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from yibu.gateway.monitoring.exposition import escape

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
"""Seconds."""

Labels = tuple[str, ...]


class Histogram:
    """Counts of observations by upper bound, with their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@dataclass(slots=True)
class Metrics:
    """What the gateway counts. Labels are few: paths are those of the API, models those known."""

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

    def render(self, extra: Iterable[str] = ()) -> str:
        """The exposition; ``extra`` are further lines, of the models' states for instance."""
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
            *_histograms("request_seconds", "Time to the last byte", path, self.duration),
            *_histograms("first_byte_seconds", "Time to the first byte", path, self.first_byte),
            *_histograms("queue_wait_seconds", waits, model, self.waits),
            *head("requests_in_flight", "HTTP requests in flight", "gauge"),
            f"yibu_requests_in_flight {self.in_flight}",
            *extra,
        ]
        return "\n".join(lines) + "\n"

    def render_own(self, key: str) -> str:
        """What one key may see: what it did itself."""
        return "\n".join(self._of_keys(lambda other: other == key)) + "\n"

    def _of_keys(self, shown: Callable[[str], bool]) -> list[str]:
        """The families that have the key's name; requests without a key have no such label."""
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


def sample(name: str, names: Sequence[str], values: Labels, number: float) -> str:
    """One line; ``name`` is without the prefix, ``names`` and ``values`` are its labels."""
    labels = ",".join(
        f'{label}="{escape(value)}"' for label, value in zip(names, values, strict=True)
    )
    return f"yibu_{name}{{{labels}}} {number!r}"


def head(name: str, text: str, kind: str) -> list[str]:
    """What stands above a family's samples; ``kind`` is counter, gauge or histogram."""
    return [f"# HELP yibu_{name} {text}.", f"# TYPE yibu_{name} {kind}"]


def family(
    name: str, text: str, kind: str, names: Sequence[str], rows: Iterable[tuple[Labels, float]]
) -> list[str]:
    """A family's head and its samples: the values of ``names``, and a number."""
    return [*head(name, text, kind), *(sample(name, names, *row) for row in rows)]


def _counted(name: str, text: str, names: Labels, counter: Counter[Labels]) -> list[str]:
    return family(name, text, "counter", names, sorted(counter.items()))


def _histograms(
    name: str, text: str, names: Labels, store: Mapping[Labels, Histogram]
) -> Iterator[str]:
    yield from head(name, text, "histogram")
    for values, histogram in sorted(store.items()):
        running = 0
        bounds = [f"{bound:g}" for bound in histogram.bounds] + ["+Inf"]
        for bound, count in zip(bounds, histogram.counts, strict=True):
            running += count
            yield sample(f"{name}_bucket", (*names, "le"), (*values, bound), running)
        yield sample(f"{name}_sum", names, values, histogram.total)
        yield sample(f"{name}_count", names, values, running)
