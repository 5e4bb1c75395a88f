"""Locks between processes: one puller a model, and leases on models in use.

flock(2) locks end with their process, however it ends, so a killed node or pull leaves nothing
locked. Whoever gives a lock up last removes its file, under the exclusive lock. A lock on a file
that was removed meanwhile protects nothing, so whoever gets one looks whether the path still leads
to that file, and takes the new file's lock if not.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from yibu import files
from yibu.errors import PullCancelledError

READ_ONLY_ERRNOS = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_POLL = 0.2
"""Seconds between tries to get a lock that another process holds."""


PULLS = "pulls.lock"
"""Beside the locks of pulls: every pull shares it, so that nobody who holds it alone meets a pull's
unfinished files."""


@contextmanager
def pulling(
    path: Path, cancel: threading.Event, on_wait: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold a pull's lock.

    Raises:
        PullCancelledError: ``cancel`` was set while another process held it.
    """
    with (
        exclusive(path.with_name(PULLS), cancel, on_wait, fcntl.LOCK_SH),
        exclusive(path, cancel, on_wait),
    ):
        yield


@contextmanager
def exclusive(
    path: Path,
    cancel: threading.Event,
    on_wait: Callable[[], None] = lambda: None,
    kind: int = fcntl.LOCK_EX,
) -> Iterator[bool]:
    """Hold the lock; yields whether another process had it first.

    Raises:
        PullCancelledError: ``cancel`` was set while another process held it.
    """
    waited = False
    while (descriptor := _lock(path, kind | fcntl.LOCK_NB)) is None:
        waited = True
        on_wait()
        if cancel.wait(_POLL):
            raise PullCancelledError(
                "The download was cancelled while another process fetched the same model.",
                hint="The other process goes on",
            )
    try:
        yield waited
    finally:
        _give_up(path, descriptor)


@contextmanager
def try_exclusive(path: Path) -> Iterator[bool]:
    """Hold the lock if it is free; yields whether it is held."""
    descriptor = _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            _give_up(path, descriptor)


def is_free(path: Path) -> bool:
    """Whether nobody holds the lock."""
    if not path.exists():
        return True
    with try_exclusive(path) as free:
        return free


@contextmanager
def lease(path: Path) -> Iterator[None]:
    """A shared lock: the thing it names is in use."""
    # A remover holds its exclusive lock for moments only, so this wait is short.
    descriptor = _lock(path, fcntl.LOCK_SH)
    try:
        yield
    finally:
        if descriptor is not None:
            _give_up(path, descriptor)


def _lock(path: Path, kind: int) -> int | None:
    """A descriptor that holds the lock of the file that stands at ``path``; None where ``kind``
    is not to wait, and another holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = _open(path)
        try:
            files.lock(path, descriptor, kind)
            if _stands_at(path, descriptor):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:  # an interrupt too: the descriptor must not stay open
            os.close(descriptor)
            raise
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno not in READ_ONLY_ERRNOS or not path.exists():
            raise
        # Another user's, or on a disk that may only be read here: it can be locked all the same.
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _give_up(path: Path, descriptor: int) -> None:
    """Unlock, and remove the file if nobody else has a lock on it."""
    # A directory that became read-only keeps its empty file; the lock goes all the same.
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _stands_at(path, descriptor):
            path.unlink()
    os.close(descriptor)


def _stands_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
