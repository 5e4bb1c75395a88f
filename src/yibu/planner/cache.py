"""KV cache and state of layers, grouped by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

CacheKind = Literal["full", "window", "latent", "state"]


@dataclass(frozen=True, slots=True)
class CacheGroup:
    """Layers with the same cache.

    Full attention keeps every token, a sliding window keeps the last ones, latent attention (MLA)
    keeps one compressed vector a token, linear attention and state-space layers keep a state whose
    size does not grow.
    """

    kind: CacheKind
    layers: int
    heads: int = 0
    """Key/value heads of a layer; 1 for a latent, which tensor parallelism cannot split."""
    width: int = 0
    """Elements per token and head: key and value together, or the latent."""
    window: int = 0
    """Tokens of a sliding window."""
    state: int = 0
    """Elements per sequence, for layers with a state."""
    fixed: int = 0
    """Further bytes per entry, independent of the cache's type: a sparse attention's index key."""
    ratio: int = 1
    """Tokens an entry stands for (DeepSeek-V4's compressed attention)."""


def merged(groups: Iterable[CacheGroup]) -> tuple[CacheGroup, ...]:
    """Groups with the same cache joined, in order of appearance."""
    tally: Counter[CacheGroup] = Counter()
    for group in groups:
        tally[replace(group, layers=1)] += group.layers
    return tuple(replace(group, layers=layers) for group, layers in tally.items() if layers)
