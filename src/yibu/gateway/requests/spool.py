"""Bytes of an upload held until the model is known: in memory, then in a temporary file.

The file has no name, so that nothing stays of it, whatever ends this process.
"""

from __future__ import annotations

import asyncio
import errno
import tempfile
import threading
from collections.abc import AsyncGenerator
from typing import IO

from yibu.errors import RequestError
from yibu.messages import tr

MEMORY_BYTES = 4 * 1024 * 1024
"""Bytes held in memory; the rest goes to disk."""
_READ_BYTES = 256 * 1024


class NoRoomError(RequestError):
    """The temporary directory is full or not writable."""

    status = 507
    default_code = "no_disk_space"
    should_retry = False


class Spool:
    """Written once, then read any number of times. Disk is used in a thread; bound to one task."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()
        """Guards the file: a client that leaves cancels the task, but not the thread that writes."""
        self._closed = False
        self.size = 0

    @property
    def on_disk(self) -> bool:
        return self._file is not None

    async def write(self, part: bytes) -> None:
        """Append a part. Raises NoRoomError."""
        self.size += len(part)
        if self._file is None:
            self._parts.append(part)
            if self.size <= MEMORY_BYTES:
                return
            part = b"".join(self._parts)
            self._parts = []
        await asyncio.to_thread(self._write, part)

    def close(self) -> None:
        """Remove the file. Blocks."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()

    def held(self) -> bytes:
        """All of it, while it is in memory."""
        return b"".join(self._parts)

    async def read(self, start: int, end: int) -> AsyncGenerator[bytes]:
        """The bytes from ``start`` to ``end`` in pieces."""
        if self._file is None:
            yield self.held()[start:end]
            return
        while start < end:
            part = await asyncio.to_thread(self._read, start, min(_READ_BYTES, end - start))
            if not part:
                return
            start += len(part)
            yield part

    def _write(self, part: bytes) -> None:
        try:
            with self._lock:
                if self._closed:
                    return
                if self._file is None:
                    # Unbuffered: a full disk is found here, and not when the file is closed.
                    self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  (closed by close)
                view = memoryview(part)
                while view:
                    view = view[self._file.write(view) :]
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            what = tr("is full") if full else tr("cannot be written: {error}", error=error.strerror)
            raise NoRoomError(
                "The upload names its model behind the file, so it has to wait on disk, "
                "and {gettempdir} {what}",
                gettempdir=tempfile.gettempdir(),
                what=what,
                hint="Put the field 'model' before 'file', or have the gateway's machine "
                "cleared: TMPDIR names another directory when the node is started",
                param="model",
            ) from error

    def _read(self, start: int, count: int) -> bytes:
        with self._lock:
            if self._file is None or self._closed:
                return b""
            self._file.seek(start)
            return self._file.read(count)
