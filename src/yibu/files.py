"""Files that are there whole, or as they were before."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path


def write_whole(path: Path, content: str | bytes, mode: int = 0o600) -> None:
    """Replace a file, durably; where that cannot be, what was there stays.

    Raises:
        OSError: it cannot be written.
    """
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
        os.fchmod(descriptor, mode)
        _fill(descriptor, content)
        Path(temporary).replace(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:  # it may name no file, or the temporary one
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def write_new(path: Path, content: str | bytes) -> None:
    """Write a file of mode 0600 that is not there yet; where that cannot be, nothing of it stays.

    Raises:
        OSError: it cannot be written; FileExistsError where it is there.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _fill(descriptor, content)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def lock(path: Path, descriptor: int, kind: int) -> None:
    """Lock an open file, by flock(2).

    Raises:
        BlockingIOError: ``kind`` is not to wait, and another has it.
        OSError: it cannot be locked; names the file, which the system does not.
    """
    try:
        fcntl.flock(descriptor, kind)
    except BlockingIOError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def try_lock(path: Path, descriptor: int) -> bool:
    """Lock an open file, unless another process has."""
    try:
        lock(path, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _fill(descriptor: int, content: str | bytes) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(
            content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
        )
        file.flush()
        os.fsync(descriptor)
