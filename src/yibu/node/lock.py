"""One node a home: a lock that the kernel drops with the process that holds it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from yibu.errors import AlreadyRunningError


@contextmanager
def node_lock(path: Path) -> Iterator[None]:
    """Hold the home's lock, with this pid written into it, until the block ends.

    The file is never unlinked: a second node could lock the old one and a third the new one.
    Engines do not inherit the lock (O_CLOEXEC), so they may outlive the node that held it.

    Raises:
        AlreadyRunningError: another process holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            raise AlreadyRunningError(
                f"a node already runs on this home ({path.parent}): pid {holder}",
                hint="see what it serves: yibu ps; or use another home: YIBU_HOME=DIR yibu up …",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
