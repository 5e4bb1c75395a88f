"""The order in which waiting segments reach the model: fair between requests, and batched by
length. Pure: no clock, no threads, no model.

The rule is weighted fair queueing (Demers, Keshav and Shenker, 1989) with equal weights: each
request ("flow") carries a tag that grows by the seconds of audio it was served, and the smallest
tag goes first. Virtual time grows by what is served over the number of flows that wait, and a
request that arrives starts there. So a two-second clip waits for about one batch whatever a
two-hour file still has in the queue, and no stream of short clips can starve the long file: its
tag stands still while virtual time, and with it the tags of newcomers, pass it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")

_SIMILAR = 0.6
"""Shortest over longest segment of a batch: below it, padding wastes more than batching saves."""

_LOOK_AHEAD = 16
"""Segments of one request that are looked at for one of the right length."""


@dataclass(slots=True)
class _Flow(Generic[Item]):
    tag: float
    waiting: deque[tuple[float, Item]] = field(default_factory=deque)


class FairQueue(Generic[Item]):
    """Queued items by flow; ``seconds`` is the queued audio."""

    def __init__(self) -> None:
        self._flows: dict[int, _Flow[Item]] = {}
        self._virtual_time = 0.0
        self.seconds = 0.0

    def __len__(self) -> int:
        return sum(len(flow.waiting) for flow in self._flows.values())

    def push(self, flow_id: int, seconds: float, item: Item) -> None:
        """Add an item to the end of a flow; an idle or new flow joins at the present time."""
        flow = self._flows.setdefault(flow_id, _Flow(self._virtual_time))
        if not flow.waiting:
            flow.tag = max(flow.tag, self._virtual_time)
        flow.waiting.append((seconds, item))
        self.seconds += seconds

    def drop(self, flow_id: int) -> None:
        """Drop a flow and its queued items."""
        flow = self._flows.pop(flow_id, None)
        if flow is not None:
            self.seconds -= sum(seconds for seconds, _ in flow.waiting)
            if not len(self):
                self.seconds = 0.0  # what rounding left

    def take(self, max_seconds: float) -> list[Item]:
        """The next batch: the fairest flow's next item, and items of similar length, from any
        flow in turn, while the longest times the number stays within ``max_seconds``.

        Empty only when nothing waits.
        """
        busy = self._busy()
        if not busy:
            return []
        lead = min(busy, key=lambda flow: flow.tag)
        batch = self._fill(lead, max_seconds)
        self._virtual_time += sum(seconds for seconds, _ in batch) / len(busy)
        return [item for _, item in batch]

    def _fill(self, lead: _Flow[Item], max_seconds: float) -> list[tuple[float, Item]]:
        shortest = longest = lead.waiting[0][0]
        batch = [self._serve(lead, 0)]
        while True:
            found = self._similar(shortest, longest, max_seconds / (len(batch) + 1))
            if found is None:
                return batch
            flow, index = found
            length = flow.waiting[index][0]
            shortest, longest = min(shortest, length), max(longest, length)
            batch.append(self._serve(flow, index))

    def _busy(self) -> list[_Flow[Item]]:
        return [flow for flow in self._flows.values() if flow.waiting]

    def _similar(
        self, shortest: float, longest: float, room: float
    ) -> tuple[_Flow[Item], int] | None:
        for flow in sorted(self._busy(), key=lambda flow: flow.tag):
            for index, (length, _) in enumerate(flow.waiting):
                if index == _LOOK_AHEAD:
                    break
                low, high = min(shortest, length), max(longest, length)
                if high <= room and low >= _SIMILAR * high:
                    return flow, index
        return None

    def _serve(self, flow: _Flow[Item], index: int) -> tuple[float, Item]:
        seconds, item = flow.waiting[index]
        del flow.waiting[index]
        flow.tag += seconds
        self.seconds = max(0.0, self.seconds - seconds)
        return seconds, item
