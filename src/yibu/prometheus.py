"""Prometheus' text format, as the gateway and the speech engine write it.

Names and labels follow https://prometheus.io/docs/practices/naming/. One event loop writes them: there is
no lock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[str, ...]
"""Values of labels, in the order of their names."""


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


def escape(value: str) -> str:
    """A label's value, escaped."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def sample(name: str, names: Sequence[str], values: Labels, number: float) -> str:
    """One line; ``name`` is without the prefix, ``names`` and ``values`` are its labels."""
    labels = ",".join(
        f'{label}="{escape(value)}"' for label, value in zip(names, values, strict=True)
    )
    return f"yibu_{name}{f'{{{labels}}}' if labels else ''} {number!r}"


def head(name: str, text: str, kind: str) -> list[str]:
    """The HELP and TYPE lines of a family; ``kind`` is counter, gauge or histogram."""
    return [f"# HELP yibu_{name} {text}.", f"# TYPE yibu_{name} {kind}"]


def family(
    name: str, text: str, kind: str, names: Sequence[str], rows: Iterable[tuple[Labels, float]]
) -> list[str]:
    """A family's head and its samples: the values of ``names``, and a number."""
    return [*head(name, text, kind), *(sample(name, names, *row) for row in rows)]


def histograms(
    name: str, text: str, names: Labels, store: Mapping[Labels, Histogram]
) -> Iterator[str]:
    """A family of histograms, by the values of ``names``."""
    yield from head(name, text, "histogram")
    for values, histogram in sorted(store.items()):
        running = 0
        bounds = [f"{bound:g}" for bound in histogram.bounds] + ["+Inf"]
        for bound, count in zip(bounds, histogram.counts, strict=True):
            running += count
            yield sample(f"{name}_bucket", (*names, "le"), (*values, bound), running)
        yield sample(f"{name}_sum", names, values, histogram.total)
        yield sample(f"{name}_count", names, values, running)
