"""The node's events and who receives them; a slow listener never delays the node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import contextmanager
from typing import Any

Event = dict[str, Any]
"""Plain data, as it goes over the control socket. ``event`` names the kind:

- ``state``: model, replica (or None for the model as a whole), state, cause, phases (seconds of
  each, once it is ready, else empty); of a model on_demand
- ``phase``: model, replica (None before there is one), phase: what its start does from now on
- ``progress``: model, phase, done_bytes, total_bytes, bytes_per_second, seconds_left, file
- ``note``: model, text
"""

_BACKLOG = 1000


class Subscription:
    """One listener's queue; the oldest events are lost when it does not read."""

    def __init__(self, models: Collection[str] | None) -> None:
        self.models = models
        self._queue: asyncio.Queue[Event] = asyncio.Queue(_BACKLOG)

    def put(self, event: Event) -> None:
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(event)

    def empty(self) -> bool:
        return self._queue.empty()

    def get_nowait(self) -> Event:
        return self._queue.get_nowait()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            yield await self._queue.get()


class EventBus:
    """Publishes to every open subscription. Used from the event loop's thread only."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    def publish(self, kind: str, model: str, **fields: Any) -> None:
        event = {"event": kind, "model": model, **fields}
        for subscription in self._subscriptions:
            if subscription.models is None or model in subscription.models:
                subscription.put(event)

    @contextmanager
    def subscribe(self, models: Collection[str] | None = None) -> Iterator[Subscription]:
        """Events of some models, or of all, from now until the block ends."""
        subscription = Subscription(models)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
