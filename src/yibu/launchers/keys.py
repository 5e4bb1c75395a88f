"""Keys that do not show in logs."""

from __future__ import annotations


class Hidden(str):
    """A key whose ``repr`` does not have it: engines log their arguments when they start."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"
