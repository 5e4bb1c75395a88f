"""Which of two nodes supervises the engines, while one takes the other's place."""

from __future__ import annotations

import asyncio


class Ownership:
    """Whether this node starts and ends engines and writes the state file.

    Undecided while an upgrade goes on: neither of the two nodes starts or ends anything then, and
    whoever wants to waits until it is known which of them stays.
    """

    def __init__(self, owned: bool | None = True) -> None:
        self.owned = owned
        self._decided = asyncio.Event()
        self.decide(owned)

    def decide(self, owned: bool | None) -> None:
        self.owned = owned
        if owned is None:
            self._decided.clear()
        else:
            self._decided.set()

    async def decided(self) -> bool:
        """Wait until it is decided whether the engines belong to this node."""
        await self._decided.wait()
        return bool(self.owned)

    def settle(self) -> None:
        """Decide that the other node has the engines, unless that is decided already."""
        if self.owned is None:
            self.decide(False)
