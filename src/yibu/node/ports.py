"""Loopback ports for engines.

An engine binds its own port, maybe a minute after it was chosen, so no socket can hold it
meanwhile. Ports are therefore taken from below the kernel's ephemeral range, where no outgoing
connection lands by chance, and two replicas of one node never get the same.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time

from yibu.errors import EngineError

LOOPBACK = "127.0.0.1"
_FIRST, _LAST = 20_000, 32_000
_TRIES = 200


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could bind ``port`` now, counting connections that linger as free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


async def wait_free(port: int, timeout: float) -> bool:
    """Wait until ``port`` can be bound; False when ``timeout`` seconds did not suffice."""
    deadline = time.monotonic() + timeout
    while not (free := is_free(port)) and time.monotonic() < deadline:  # noqa: ASYNC110 - no event
        await asyncio.sleep(0.05)
    return free


class Ports:
    """Hands out loopback ports; one object a node."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.SystemRandom()
        self._taken: set[int] = set()

    def take(self) -> int:
        """Reserve a port that is free now.

        Raises:
            EngineError: none of many tries was free.
        """
        for _ in range(_TRIES):
            port = self._rng.randrange(_FIRST, _LAST)
            if port not in self._taken and is_free(port):
                self._taken.add(port)
                return port
        raise EngineError(
            f"no free loopback port was found between {_FIRST} and {_LAST} in {_TRIES} tries",
            hint="see what listens: ss -ltn",
        )

    def keep(self, port: int) -> None:
        """Count a port as taken: an adopted engine has it."""
        self._taken.add(port)

    def release(self, port: int) -> None:
        self._taken.discard(port)
