"""Processes of engines whose parents have died: they become the node's own, which reaps them."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import sys
import time
from collections.abc import Collection

from yibu.node.machine import processes
from yibu.node.machine.processes import Identity

_log = logging.getLogger(__name__)
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def become_subreaper() -> None:
    """Make orphans of engines children of this process, so that they are reaped even where
    process 1 reaps nobody, as in many containers. Does nothing outside Linux."""
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        _log.warning("prctl(PR_SET_CHILD_SUBREAPER): %s", os.strerror(ctypes.get_errno()))


class OrphanReaper:
    """Takes the exit status of orphans that died unseen, between two looks at an engine's tree.

    A zombie is somebody's until it has been one for ``patience`` seconds: a thread of this
    process may be about to wait for a child of its own.
    """

    def __init__(self, patience: float = 60.0) -> None:
        self._patience = patience
        self._since: dict[Identity, float] = {}

    def look(self, spared: Collection[int]) -> int:
        """Reap what has waited long enough, except the pids in ``spared`` (engines, whose owners
        read their exit codes); how many there were. Call it every few seconds, in a thread."""
        now, me = time.monotonic(), os.getpid()
        zombies = {
            info.identity
            for info in processes.snapshot().values()
            if info.zombie and info.parent == me and info.identity.pid not in spared
        }
        self._since = {identity: self._since.get(identity, now) for identity in zombies}
        old = [i for i, since in self._since.items() if now - since >= self._patience]
        for identity in old:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(identity.pid, os.WNOHANG)
        return len(old)
