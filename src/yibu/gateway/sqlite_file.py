"""The console's SQLite files in the state directory, of mode 0600."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

_WAIT = 5.0
"""Seconds to wait for another process's write: during an upgrade two nodes run."""


@contextmanager
def opened(path: Path, *tables: str) -> Iterator[sqlite3.Connection]:
    """A connection with these tables, whose changes are committed when the block ends. Blocking.

    Raises:
        OSError, sqlite3.Error: the file cannot be used.
    """
    # SQLite would create it with the umask.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    with closing(sqlite3.connect(path, timeout=_WAIT)) as file, file:
        file.execute("PRAGMA synchronous = NORMAL")
        for table in tables:
            file.execute(table)
        yield file
