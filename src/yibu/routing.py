"""The one small protocol through which the gateway sees the node.

It stands below both rooms, so that neither imports the other. With it the gateway is tested
without processes, and can run inside the node's process or as worker processes of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from yibu.engines.base import Capability, Endpoint


@dataclass(frozen=True, slots=True)
class Route:
    """What the gateway must know of a model before it asks for a replica."""

    model: str
    engine: str
    capabilities: frozenset[Capability]
    conforming: bool
    """Answers need no mending (``LaunchPlan.conforming``)."""
    created: int
    """Unix seconds, for ``/v1/models``."""
    owned_by: str = "yibu"
    state: str = "pending"
    """The model's state in the node's words, for ``/readyz`` and listings."""
    max_context: int | None = None


class Backend(Protocol):
    """The fleet as the gateway sees it. One event loop; no call blocks it."""

    def routes(self) -> Sequence[Route]:
        """Every model that has a name here, ready or not."""
        ...

    def route(self, model: str) -> Route | None:
        """The route of one model, or None for an unknown name."""
        ...

    async def ensure_ready(self, model: str, *, exclude: frozenset[str] = frozenset()) -> Endpoint:
        """A replica to send one request to, the least loaded; counts the request as in flight.

        ``exclude`` names replicas that already failed this request.

        Raises:
            NotReadyError: no replica is ready (its message has the state or the cause in words).
        """
        ...

    def progress(self, endpoint: Endpoint) -> None:
        """A piece of a streamed answer came: this engine does not hang, however long it takes."""
        ...

    def done(self, endpoint: Endpoint, *, failed: bool = False) -> None:
        """The request ended; ``failed`` when the replica broke the connection, so that the node
        looks at it at once."""
        ...
