"""The console's persistent state: open sessions, and models stopped in it.

One file in the state directory. It has no key, no cookie and no token in it: of a session's cookie only a
digest, and of its key a digest with the cookie as salt.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from yibu.config import ModelConfig
from yibu.config.wire import model_config, plain_config
from yibu.gateway.sqlite_file import opened

logger = logging.getLogger(__name__)

FILE = "console.db"
"""File name in the state directory."""
_TABLES = (
    "CREATE TABLE IF NOT EXISTS session (cookie BLOB PRIMARY KEY, key BLOB, begun REAL, used REAL)",
    "CREATE TABLE IF NOT EXISTS stopped (name TEXT PRIMARY KEY, config BLOB)",
)
_UNWRITTEN = 2000
"""Changes kept in memory while the disk is full."""


@dataclass(frozen=True, slots=True)
class SavedSession:
    cookie: bytes
    """Digest of the cookie's value."""
    key: bytes
    """HMAC of the key's digest, with the cookie's value as its key."""
    begun: float
    used: float


class Saved:
    """The file. What cannot be written is kept in memory and tried again; a damaged file is left alone."""

    def __init__(self, path: Path | None) -> None:
        """``path`` None: keep everything in memory only."""
        self._path = path
        self._changes: list[tuple[str, Sequence[Any]]] = []
        self._reported = ""
        self._writing = asyncio.Lock()

    def sessions(self) -> list[SavedSession]:
        """Open sessions, the longest unused first. Blocking."""
        rows = self._rows("SELECT cookie, key, begun, used FROM session ORDER BY used")
        return [SavedSession(*row) for row in rows]

    def stopped(self) -> list[ModelConfig]:
        """Models stopped in the console. Blocking."""
        found = []
        for name, config in self._rows("SELECT name, config FROM stopped ORDER BY name"):
            try:
                found.append(model_config(orjson.loads(config)))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                logger.warning("%s: the stopped model %s is skipped: %s", self._path, name, error)
        return found

    def add_session(self, one: SavedSession) -> None:
        self._change(
            "REPLACE INTO session (cookie, key, begun, used) VALUES (?, ?, ?, ?)",
            (one.cookie, one.key, one.begun, one.used),
        )

    def use_session(self, cookie: bytes, at: float) -> None:
        self._change("UPDATE session SET used = max(used, ?) WHERE cookie = ?", (at, cookie))

    def end_session(self, cookie: bytes) -> None:
        self._change("DELETE FROM session WHERE cookie = ?", (cookie,))

    def add_stopped(self, config: ModelConfig) -> None:
        data = orjson.dumps(plain_config(config))
        self._change("REPLACE INTO stopped (name, config) VALUES (?, ?)", (config.name, data))

    def remove_stopped(self, name: str) -> None:
        self._change("DELETE FROM stopped WHERE name = ?", (name,))

    async def write(self) -> None:
        """Write pending changes."""
        async with self._writing:  # in the order in which things happened
            changes, self._changes = self._changes, []
            if changes and not await asyncio.to_thread(self._write, changes):
                self._changes = [*changes, *self._changes][-_UNWRITTEN:]

    def _change(self, statement: str, values: Sequence[Any]) -> None:
        if self._path is not None:
            self._changes.append((statement, values))

    def _rows(self, question: str) -> list[Any]:
        if self._path is None or not self._path.exists():
            return []
        try:
            with opened(self._path, *_TABLES) as file:
                return file.execute(question).fetchall()
        except (sqlite3.Error, OSError) as error:
            logger.warning("%s cannot be read: %s", self._path, error)
            return []

    def _write(self, changes: Sequence[tuple[str, Sequence[Any]]]) -> bool:
        assert self._path is not None
        try:
            with opened(self._path, *_TABLES) as file:
                for statement, values in changes:
                    file.execute(statement, values)
        except (sqlite3.Error, OSError) as error:
            if self._reported != str(error):
                self._reported = str(error)
                logger.warning(
                    "sessions of the console are kept in memory: %s: %s", self._path, error
                )
            return False
        self._reported = ""
        return True
