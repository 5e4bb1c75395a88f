"""Locks between processes: one puller a model, and leases on models in use.

flock(2) locks end with their process, however it ends, so a killed node or pull leaves nothing
to clean up. Lock files are never deleted: a lock on a deleted file protects nothing.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from yibu.errors import PullCancelledError

_POLL = 0.2
"""Seconds between tries to get a lock that another process holds."""


@contextmanager
def exclusive(
    path: Path, cancel: threading.Event, on_wait: Callable[[], None] = lambda: None
) -> Iterator[bool]:
    """Hold the lock; gives whether another process had it first.

    Raises:
        PullCancelledError: ``cancel`` was set while another process held it.
    """
    descriptor = _open(path)
    try:
        waited = False
        while not _try(descriptor, fcntl.LOCK_EX):
            waited = True
            on_wait()
            if cancel.wait(_POLL):
                raise PullCancelledError(
                    "The download was cancelled while another process fetched the same model.",
                    hint="The other process goes on.",
                )
        yield waited
    finally:
        os.close(descriptor)


@contextmanager
def try_exclusive(path: Path) -> Iterator[bool]:
    """Hold the lock if nobody else does; gives whether it is held."""
    descriptor = _open(path)
    try:
        yield _try(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


class Lease:
    """A shared lock: what it names is in use until ``release``, or until this process ends."""

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = _open(path)
        # A remover holds its exclusive lock for moments only, so this wait is short.
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _open(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
