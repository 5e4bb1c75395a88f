"""Names of replicas. Standard library only: the command line imports this."""

from __future__ import annotations

import hashlib
import re

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]|^\.")


def replica_id(model: str, number: int) -> str:
    """``smol-0``; it names a log file, so what a file name cannot hold is replaced, and a digest
    keeps names apart that then look the same."""
    safe = _UNSAFE.sub("_", model)
    if safe != model:
        safe = f"{safe}-{hashlib.sha256(model.encode()).hexdigest()[:6]}"
    return f"{safe}-{number}"
