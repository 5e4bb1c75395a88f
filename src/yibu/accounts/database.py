"""The database file: opening, creating and migrating it; its errors as sentences.

WAL, so that readers and the one writer do not wait for each other; every commit is synced, so that
a key that was shown is still there after a power failure.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from yibu.errors import YibuError

_PATIENCE = 5.0
"""Seconds to wait for another process's transaction, which takes milliseconds."""
_ROOM = 64 * 1024
"""Free bytes below which an I/O error is reported as a full disk."""

_MIGRATIONS = sorted((Path(__file__).with_name("migrations")).glob("*.sql"))
"""Migrations of the schema, by index. Never change one: add one."""

_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class AccountsError(YibuError):
    """The database of accounts cannot be read or written."""

    cause = "accounts"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection for the entering thread, with the current schema; the file is made if missing.

    Raises:
        AccountsError: the file cannot be used, or is a newer version's.
    """
    with translated(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make(path)
        try:
            connection = _connect(path)
        except sqlite3.OperationalError as error:
            if _is_fixed(path):
                connection = _connect_fixed(path)
            elif _code(error) == sqlite3.SQLITE_IOERR:
                # A full disk has no room for the memory that processes share; alone, none is needed.
                connection = _connect(path, alone=True)
            else:
                raise
    with contextlib.closing(connection):
        yield connection


def _make(path: Path) -> None:
    """Create the empty file with mode 0600: SQLite would use the umask, and its -wal and -shm files get
    this file's mode.

    One that exists is not opened: closing a descriptor of it would release the locks of every other
    connection in this process (https://sqlite.org/howtocorrupt.html, 2.2). The next process to close
    the database would then delete the -wal file that the node goes on writing to.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _is_fixed(path: Path) -> bool:
    """Whether nobody can write the file, on a disk that is mounted read-only, and it holds all that was
    written: then it is read without the locks and the memory that WAL needs."""
    log = path.with_name(f"{path.name}-wal")
    whole = not log.exists() or not log.stat().st_size
    return whole and bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _connect_fixed(path: Path) -> sqlite3.Connection:
    """A connection for reading; one to a copy in memory where the file has an earlier schema."""
    with contextlib.ExitStack() as stack:
        fixed = sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)
        stack.callback(fixed.close)
        if check_version(fixed, path) == len(_MIGRATIONS):
            stack.pop_all()
            return fixed
        copy = sqlite3.connect(":memory:", isolation_level=None)
        fixed.backup(copy)
    _migrate(copy, path)
    copy.execute("PRAGMA query_only = ON")
    return copy


def _connect(path: Path, *, alone: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)
    try:
        if alone:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        _migrate(connection, path)
    except BaseException:  # an interrupt too: the database must not stay open
        connection.close()
        raise
    return connection


def shares(connection: sqlite3.Connection) -> bool:
    """Whether other processes can use the database beside this connection."""
    return bool(connection.execute("PRAGMA locking_mode").fetchone()[0] == "normal")


def may_hold_keys(path: Path) -> bool:
    """Whether a database that could not be opened may have keys: one that was never finished, on a
    full disk for instance, has none."""
    try:
        if not path.stat().st_size:
            return False
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=0.1)
        with contextlib.closing(connection):
            return _version(connection) > 0
    except FileNotFoundError:
        return False
    except (sqlite3.Error, OSError):
        return True


def check_version(connection: sqlite3.Connection, path: Path) -> int:
    """The version of the schema.

    Raises:
        AccountsError: a newer yibu has written the file.
    """
    version = _version(connection)
    if version > len(_MIGRATIONS):
        raise AccountsError(
            "{path} was written by a newer yibu (schema {version}; this one knows {migrations})",
            path=path,
            version=version,
            migrations=len(_MIGRATIONS),
            hint="Use that version, or a later one: pip install -U yibu",
        )
    return version


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    if check_version(connection, path) == len(_MIGRATIONS):
        return
    with transaction(connection):  # two processes may open a new file at once
        for migration in _MIGRATIONS[check_version(connection, path) :]:
            for statement in filter(str.strip, migration.read_text("utf-8").split(";")):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit the block as a whole, or roll it back."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:  # an interrupt too: nothing is written by halves
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Translate errors of SQLite and the file system, and numbers that SQLite cannot hold, to
    AccountsError."""
    try:
        yield
    except sqlite3.Error as error:
        raise _explained(path, error) from error
    except OverflowError as error:
        raise AccountsError(
            "a number is too large for the database of keys {path}: expected at most {most}",
            path=path,
            most=2**63 - 1,
            hint="Give a smaller limit or budget; nothing was changed",
        ) from error
    except OSError as error:
        raise AccountsError(
            "the database of keys {path} cannot be used: {error}",
            path=path,
            error=error.strerror or error,
            parent=path.parent,
            hint="Check whose it is and its mode: ls -la {parent}",
        ) from error


def _code(error: sqlite3.Error) -> int:
    """SQLite's error code without its extension (``SQLITE_IOERR_WRITE``)."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _explained(path: Path, error: sqlite3.Error) -> AccountsError:
    code = _code(error)
    if code == sqlite3.SQLITE_IOERR and _is_full(path.parent):
        code = sqlite3.SQLITE_FULL
    if code == sqlite3.SQLITE_FULL:
        return AccountsError(
            "the disk is full: {path} could not be written, and holds what it held before",
            path=path,
            parent=path.parent,
            hint="Make room, then try again: df -h {parent}",
        )
    if code in _CORRUPT:
        return AccountsError(
            "the database of keys {path} is damaged: {error}; it was left as it is",
            path=path,
            error=error,
            hint="Move {path}* elsewhere, then put a copy in its place, or add the keys again",
        )
    if code in _BUSY:
        return AccountsError(
            "the database of keys {path} is locked by another process for more than {patience:g} s",
            path=path,
            patience=_PATIENCE,
            hint="Find it and let it end: fuser -v {path}",
        )
    return AccountsError(
        "the database of keys {path} cannot be used: {error}",
        path=path,
        error=error,
        parent=path.parent,
        hint="Check its mode and the disk: ls -la {parent}; df -h {parent}",
    )


def _is_full(directory: Path) -> bool:
    try:
        return shutil.disk_usage(directory).free < _ROOM
    except OSError:  # not there any more, or not reachable
        return False
