"""Numbers as people read them."""

from __future__ import annotations

_UNITS = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


def size(count: float) -> str:
    """Bytes in the largest binary unit that leaves a number of at least one."""
    for unit, scale in _UNITS:
        if abs(count) >= scale:
            value = count / scale
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"
    return f"{count:.0f} bytes"


def tokens(count: int) -> str:
    return f"{count:,} tokens"
