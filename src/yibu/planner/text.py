"""Numbers as people read them."""

from __future__ import annotations

from yibu.messages import tr
from yibu.units import size as size  # noqa: PLC0414 - for whoever writes sizes
from yibu.units import sizes_apart


def room_for(needed: float, room: float) -> str:
    """What is free, in the unit of what is needed; with that again where it took more digits to
    tell the two apart than ``size`` shows."""
    shown, free = sizes_apart(needed, room)
    return free if shown == size(needed) else tr("{free} (of {shown})", free=free, shown=shown)


def tokens(count: int) -> str:
    return tr("{count:,} tokens", count=count)
