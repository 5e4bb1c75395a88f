"""What the connections of one server share: their number, their clock, the Date header."""

from __future__ import annotations

import asyncio
import logging
from email.utils import formatdate
from typing import Protocol

from uvicorn.server import ServerState

from yibu.errors import NotReadyError
from yibu.gateway.http.known_heads import KnownHeads

logger = logging.getLogger("yibu.gateway.http")

_WARN_EVERY = 60.0


class TooManyConnectionsError(NotReadyError):
    """``gateway.max_connections`` clients are being answered."""

    default_code = "too_many_connections"


class Timed(Protocol):
    """An HTTP connection, as the server checks it."""

    transport: asyncio.Transport
    since: float

    @property
    def idle(self) -> bool: ...
    def check_time(self, now: float) -> None: ...


class Connections(ServerState):
    """uvicorn's state, with a bound."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.timed: set[Timed] = set()
        """The HTTP connections; ``connections`` includes websockets."""
        self.known_heads = KnownHeads()
        self._warned = -_WARN_EVERY

    def tick(self, now: float) -> None:
        """Update the Date header and check timeouts; called once a second."""
        self.default_headers = [(b"date", formatdate(usegmt=True).encode())]
        for connection in list(self.timed):
            connection.check_time(now)

    def has_room(self, newcomer: Timed, now: float) -> bool:
        """Whether ``newcomer`` can be served; the longest idle connection is closed for it."""
        if len(self.connections) <= self.limit:
            return True
        if now - self._warned >= _WARN_EVERY:
            self._warned = now
            logger.warning("%d connections are open: gateway.max_connections", self.limit)
        idle = (c for c in self.timed if c.idle and c is not newcomer)
        victim = min(idle, key=lambda c: c.since, default=None)
        if victim is None:
            return False
        self.timed.discard(victim)
        self.connections.discard(victim)
        victim.transport.abort()
        return True
