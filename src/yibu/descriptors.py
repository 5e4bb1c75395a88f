"""Open files: the process's limit, what clients may use of it, and what to do when none is left.

Each client may take two descriptors, its own connection and one to an engine. The reserve is the
node's: logs, state, control socket, the process table, starting engines.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from yibu.errors import YibuError

_log = logging.getLogger(__name__)
T = TypeVar("T")

RESERVE = 128
_AT_START = resource.getrlimit(resource.RLIMIT_NOFILE)
"""What this process was given: engines get it back."""
_HIGHEST = 1 << 20
"""What is asked for where there is no limit: Linux allows no more by default."""
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.EMLINK})
_PAUSE = 0.05
_RETRY = 0.5


def raise_limit() -> None:
    """Raise the soft limit of open files to the hard one."""
    hard = _AT_START[1]
    wanted = _HIGHEST if hard == resource.RLIM_INFINITY else hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:  # macOS allows less than it says
        _log.warning("the limit of open files stays at %d: %s", _AT_START[0], error)


def give_back_limit(pid: int) -> None:
    """Give a child the limits that this process began with: programs that use select() break on
    descriptors above 1023."""
    if sys.platform.startswith("linux"):
        try:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, _AT_START)
        except (ProcessLookupError, PermissionError) as error:  # it has ended; or a set-uid program
            _log.debug("the limits of process %d stay: %s", pid, error)


def clients(wanted: int) -> int:
    """How many clients may be connected: ``wanted``, or what the limit leaves beside the reserve."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return wanted
    return min(wanted, max(8, (limit - RESERVE) // 2))


def exhausted(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that no file could be opened, which tells nothing of
    the file."""
    while error is not None and not (isinstance(error, OSError) and error.errno in _EXHAUSTED):
        error = error.__cause__
    return error is not None


def any_left() -> bool:
    """Whether a file can be opened now."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        if exhausted(error):
            return False
        raise
    return True


def patiently(work: Callable[[], T]) -> T:
    """``work()``, again and again while there are no descriptors. Call it in a thread."""
    while True:
        try:
            return work()
        except OSError as error:
            if not exhausted(error):
                raise
            time.sleep(_PAUSE)


async def regained(what: str, work: Callable[[], Awaitable[T]]) -> T:
    """``await work()``, again and again while there are no descriptors; the log says once that ``what``
    waits for them."""
    told = False
    while True:
        try:
            return await work()
        except (OSError, YibuError) as error:
            if not exhausted(error):
                raise
            if not told:
                _log.warning("%s waits for open files (ulimit -n): %s", what, error)
            told = True
            await asyncio.sleep(_RETRY)
