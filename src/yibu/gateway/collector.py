"""How often Python's garbage collector looks at a process that serves requests."""

from __future__ import annotations

import gc

_YOUNG = 20_000
"""Objects made before the youngest are looked at; Python's own 700 is reached by every few
requests, which leave nothing for it to find: they hold no cycles."""


def settle() -> None:
    """Call once when everything is imported: what is there stays, and is never walked again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 20, 50)
