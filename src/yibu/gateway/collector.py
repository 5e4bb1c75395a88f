"""The garbage collector's settings for a process that serves requests."""

from __future__ import annotations

import gc

_YOUNG = 20_000
"""Young objects between two collections. Python's 700 is reached every few requests, which leave no
cycles to find."""


def settle() -> None:
    """Freeze what exists, so that it is never walked again. Call once when everything is imported."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 20, 50)
