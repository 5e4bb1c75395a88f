"""GPUs and NPUs by name, for machines that are only described: ``rtx4090``, ``4xh20``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files

from yibu.planner.types import Gpu, Machine

_MIB, _GIB = 1 << 20, 1 << 30
MOST = 1024
"""GPUs of one machine."""
_COUNTED = re.compile(r"^(?:(\d{1,4})x)?([a-z0-9-]+)$")


@dataclass(frozen=True, slots=True)
class Card:
    name: str
    mib: int
    capability: tuple[int, int] | None = None
    """CUDA's; None for what is no NVIDIA card."""


def _cards() -> Iterator[tuple[str, Card]]:
    table = tomllib.loads(files("yibu.planner").joinpath("cards.toml").read_text("utf-8"))
    for capability, rows in table.items():
        major, dot, minor = capability.partition(".")
        for key, (mib, name) in rows.items():
            yield key, Card(name, mib, (int(major), int(minor)) if dot else None)


CARDS: Mapping[str, Card] = dict(_cards())


def cards(key: str, count: int = 1) -> tuple[Gpu, ...]:
    """So many of a card, all of their memory free."""
    card = CARDS[key]
    return tuple(
        Gpu(index, card.name, card.mib * _MIB, card.mib * _MIB, compute_capability=card.capability)
        for index in range(count)
    )


def machine_of(spec: str) -> Machine | None:
    """A machine with ``[Nx]CARD``; None where the name is no card's.

    Its processor and memory are those that such cards are usually sold with: eight cores a card,
    sixteen at least, and twice the cards' memory.
    """
    match = _COUNTED.match(spec.lower().replace("_", "-"))
    card = CARDS.get(match[2]) if match else None
    if match is None or card is None:
        return None
    count = int(match[1] or 1)
    if not 0 < count <= MOST:
        return None
    cores = max(16, 8 * count)
    memory = max(32 * _GIB, 2 * count * card.mib * _MIB)
    return Machine(spec, cores, 2 * cores, memory, memory * 9 // 10, cards(match[2], count))
