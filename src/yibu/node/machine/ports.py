"""Loopback ports for engines.

An engine binds its own port, maybe a minute after it was chosen, so no socket can hold it
meanwhile. Ports are therefore taken from below the kernel's ephemeral range, where no outgoing
connection lands by chance, and two replicas of one node never get the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Iterable
from pathlib import Path

from yibu.errors import EngineStartError
from yibu.sockets import port_fault

LOOPBACK = "127.0.0.1"
_FIRST, _LAST = 20_000, 32_000
_TRIES = 200


def is_free(port: int) -> bool:
    """Whether a server could bind ``port`` now, counting connections that linger as free."""
    return port_fault(port) is None


async def wait_free(port: int, timeout: float) -> bool:
    """Wait until ``port`` can be bound; False when ``timeout`` seconds did not suffice."""
    deadline = time.monotonic() + timeout
    while not (free := is_free(port)) and time.monotonic() < deadline:  # noqa: ASYNC110 - no event
        await asyncio.sleep(0.05)
    return free


def listens(port: int, pids: Iterable[int]) -> bool | None:
    """Whether one of ``pids`` listens on ``port``; None where the system does not tell.

    An answer on an engine's port may come from a stranger who bound it first, and who would then
    be sent the inner key and people's prompts.
    """
    inodes = set()
    try:
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            inodes |= _listening_inodes(Path(table).read_text(), port)
    except OSError:
        return None
    sockets = {f"socket:[{inode}]" for inode in inodes}
    return any(not sockets.isdisjoint(_open_files(pid)) for pid in pids)


def _listening_inodes(table: str, port: int) -> set[str]:
    """Inodes of listening sockets, from the columns of proc(5): 1 local address, 3 state (0A is
    LISTEN), 9 inode."""
    rows = (line.split() for line in table.splitlines()[1:])
    return {row[9] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}


def _open_files(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):  # it ended, or is not ours to look at
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(descriptor.readlink()))
    return found


class Ports:
    """Hands out loopback ports; one object a node."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.SystemRandom()
        self._taken: set[int] = set()

    def take(self) -> int:
        """Reserve a port that is free now.

        Raises:
            EngineStartError: none of many tries was free.
        """
        for _ in range(_TRIES):
            port = self._rng.randrange(_FIRST, _LAST)
            if port not in self._taken and is_free(port):
                self._taken.add(port)
                return port
        raise EngineStartError(
            "no free loopback port was found between {first} and {last} in {tries} tries",
            first=_FIRST,
            last=_LAST,
            tries=_TRIES,
            hint="See what listens: ss -ltn",
            cause="no_free_port",
        )

    def keep(self, port: int) -> None:
        """Count a port as taken: an adopted engine has it."""
        self._taken.add(port)

    def release(self, port: int) -> None:
        self._taken.discard(port)
