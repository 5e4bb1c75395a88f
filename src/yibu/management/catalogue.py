"""The catalogue, searched, with what would fit on a machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from yibu.messages import english

if TYPE_CHECKING:
    from yibu.hub.catalogue import CatalogueEntry
    from yibu.planner.types import Machine

_OVERHEAD = 1.2
"""What a model takes beside its weights, roughly; `yibu plan` counts it."""


def rows(word: str | None, machine: Machine) -> list[dict[str, Any]]:
    """The entries of which a name, kind or description has the word, all without one, with their sources."""
    from yibu.hub.catalogue import entries

    return [
        {
            "name": entry.name,
            "aliases": list(entry.aliases),
            "kind": entry.kind,
            "size": entry.size,
            "fits": fits(entry, machine),
            "license": entry.license,
            "about": entry.about,
            "sources": {"modelscope": entry.modelscope, "hf": entry.hf, "package": entry.package},
        }
        for entry in entries()
        if _matches(entry, word)
    ]


def _matches(entry: CatalogueEntry, word: str | None) -> bool:
    texts = (entry.name, *entry.aliases, entry.kind, entry.about, english(entry.about))
    return word is None or any(word.casefold() in text.casefold() for text in texts)


def fits(entry: CatalogueEntry, machine: Machine) -> str | None:
    """Whether weights of this size have room on a GPU or in memory, as a code; None where it is not known."""
    if entry.size is None:
        return None
    needed = entry.size * _OVERHEAD
    if any(needed <= gpu.free for gpu in machine.gpus):
        return "on a GPU"
    if sum(gpu.free for gpu in machine.gpus) >= needed:
        return "on the GPUs"
    return "in memory" if needed <= machine.memory_available else "no"
