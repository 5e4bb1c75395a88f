"""What the clients of a chaos run used of each API key, and the node's own count held against it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.chaos.acts import PROMPT_TOKENS

if TYPE_CHECKING:
    from tests.chaos.books import Entry

EXACT, ROUGH, CROWD, PROBE = "exact", "rough", "crowd", "probe"
"""Keys. ``exact``: requests of which the client knows all that they use, unless their node is killed;
``rough``: clients that leave and engines that fail; ``crowd``: many at once; ``probe``: the run's own."""
COMPARED = (EXACT, ROUGH, CROWD)
_LOST = 1.0
"""Seconds of usage that a killed node may lose, where a commit takes less than half of one."""
_GUESS = 400
"""Tokens that the node may count for one request whose engine counted none."""


@dataclass
class Count:
    """Sums, of which the true ones lie between ``low`` and ``high``."""

    low: int = 0
    high: int = 0

    def add(self, low: int, high: int | None = None) -> None:
        self.low += low
        self.high += low if high is None else high

    def holds(self, found: int) -> bool:
        return self.low <= found <= self.high


@dataclass
class Tally:
    """One key's requests since it was last compared."""

    requests: Count = field(default_factory=Count)
    errors: Count = field(default_factory=Count)
    tokens: Count = field(default_factory=Count)
    before: tuple[int, int, int] = (0, 0, 0)
    """What the node had counted by then: requests, errors, tokens."""
    recent: deque[tuple[float, int, int, int]] = field(default_factory=lambda: deque(maxlen=2000))
    """The last to end, and when: what a node that is killed now may lose."""


class Ledger:
    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}
        """The key of each account by now."""
        self._tallies = {name: Tally() for name in COMPARED}
        self.compared = 0
        """Requests that were counted by both sides."""
        self._killed_at = 0.0

    def count(self, entry: Entry) -> None:
        """A request is over."""
        tally = self._tallies.get(entry.key)
        if tally is None:
            return
        most = PROMPT_TOKENS + entry.order.words
        guess = max(most, _GUESS)
        # An answer that its client read after the kill may be the dead node's, which it never wrote down.
        unknown = entry.begun <= self._killed_at <= entry.ended
        if not unknown and entry.outcome == "answer" and entry.key != ROUGH:
            used = (1, 0, most)
            tally.requests.add(1)
            tally.errors.add(0)
            tally.tokens.add(most)
        elif not unknown and entry.outcome in ("answer", "error") and entry.response:
            refused = entry.response.status >= 400
            failed = entry.outcome == "error"
            used = (1, int(failed), 0)
            tally.requests.add(1)
            tally.errors.add(int(failed), 1)
            tally.tokens.add(0, 0 if refused and entry.key != ROUGH else guess)
        else:  # it left, or its node was killed: counted or not
            used = (0, 0, 0)
            tally.requests.add(0, 1)
            tally.errors.add(0, 1)
            tally.tokens.add(0, guess)
        tally.recent.append((entry.ended, *used))

    def killed(self, slowness: float = 1.0) -> None:
        """The node was killed just now: what it had not written yet is lost."""
        self._killed_at = time.monotonic()
        since = self._killed_at - _LOST * slowness
        for tally in self._tallies.values():
            for ended, requests, errors, tokens in tally.recent:
                if ended >= since:
                    tally.requests.low -= requests
                    tally.errors.low -= errors
                    tally.tokens.low -= tokens
            tally.recent.clear()

    def compare(self, usage: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """What differs from the node's own sums by key, while nothing is in flight."""
        wrong = []
        for name, tally in self._tallies.items():
            row = usage.get(name, {})
            now = (
                int(row.get("requests", 0)),
                int(row.get("errors", 0)),
                int(row.get("total_tokens", 0)),
            )
            counts = (tally.requests, tally.errors, tally.tokens)
            for what, count, before, found in zip(
                ("requests", "errors", "tokens"), counts, tally.before, now, strict=True
            ):
                if not count.holds(found - before):
                    wrong.append(
                        f"usage of the key {name}: the node counted {found - before} {what},"
                        f" its clients {count.low} to {count.high}"
                    )
            self.compared += now[0] - tally.before[0]
            self._tallies[name] = Tally(before=now)
        return wrong
