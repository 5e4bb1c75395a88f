"""Missing files of a model directory by its own index files, where no hub can be asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def missing_shards(root: Path) -> list[str]:
    """Weight files named by an ``*.index.json`` that are missing."""
    missing = set()
    for index in root.glob("*.index.json"):
        try:
            names = indexed_files(json.loads(index.read_bytes()))
        except (OSError, ValueError):
            names = set()
        if not names:
            missing.add(index.name)
        missing |= {name for name in names if not (root / name).is_file()}
    return sorted(missing)


def indexed_files(index: Any) -> set[str]:
    """The weight files that the content of an ``*.index.json`` names."""
    weights = index.get("weight_map") if isinstance(index, dict) else None
    return set(map(str, weights.values())) if isinstance(weights, dict) else set()
