"""What goes wrong in a fake server, ordered by a test, and whether it did."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Fault:
    """Applies to requests whose path (with query) matches ``match``.

    With ``times``, to so many of them, and it must be met exactly so often; without, to all of
    them, and it must be met at least once.
    """

    match: str
    kind: str
    """status, cut, corrupt, throttle, ignore-range, range, hang, empty, body, headers, etag, etags, gate, unit"""
    times: int | None = None
    value: float = 0
    """HTTP status; bytes before the cut; bytes a second; a number to put into the ETag."""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    met: int = 0

    @property
    def as_ordered(self) -> bool:
        return self.met > 0 if self.times is None else self.met == self.times


class Faults:
    """The faults of one server."""

    def __init__(self) -> None:
        self._ordered: list[Fault] = []
        self._active: list[Fault] = []
        self._lock = threading.Lock()

    def order(self, fault: Fault) -> Fault:
        self._ordered.append(fault)
        self._active.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        """From now on it does not happen; that it did is still checked."""
        self._active.remove(fault)

    def take(
        self, path: str, kind: str, applies: Callable[[Fault], bool] = lambda _: True
    ) -> Fault | None:
        """The fault of this kind for this request, counted as met: the caller makes it happen."""
        with self._lock:
            for fault in self._active:
                left = fault.times is None or fault.met < fault.times
                if fault.kind == kind and left and re.search(fault.match, path) and applies(fault):
                    fault.met += 1
                    return fault
        return None

    def check(self) -> None:
        """Fail for a fault that did not happen as ordered: the test would pass without it."""
        unmet = [fault for fault in self._ordered if not fault.as_ordered]
        assert not unmet, f"a test ordered faults that did not happen so: {unmet}"
