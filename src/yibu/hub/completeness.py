"""What a directory's own index files say is missing, where no hub can be asked."""

from __future__ import annotations

import json
from pathlib import Path


def missing_shards(root: Path) -> list[str]:
    """Weight files that an ``*.index.json`` names and that are not there."""
    missing = set()
    for index in root.glob("*.index.json"):
        try:
            names = set(json.loads(index.read_bytes())["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            missing.add(index.name)
            continue
        missing |= {name for name in names if not (root / str(name)).is_file()}
    return sorted(missing)
