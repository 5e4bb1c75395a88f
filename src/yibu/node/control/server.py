"""The control socket itself: who may connect, a line of JSON in, lines out. See :mod:`yibu.node.control.control`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from yibu.errors import UsageError, YibuError
from yibu.messages import pack, tr
from yibu.node.control.control import Control, Hand, Send
from yibu.node.tasks import cancelled, first_of
from yibu.paths import file_error
from yibu.plain_errors import plain_error

_log = logging.getLogger(__name__)
_LINE_LIMIT = 4 << 20
_FIRST_LINE = 10.0
"""Seconds a client has to send its request."""


class ControlServer:
    """Listens on ``path`` (mode 0600) inside the block; connections still open are closed at its end.

    The node's lock is held, so a socket that is there already belongs to nobody.
    """

    def __init__(self, path: Path, control: Control) -> None:
        self._path = path
        self._control = control
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """Whether models are being changed."""
        return bool(self._control.work)

    async def open(self) -> None:
        listener = _listener(self._path)
        self._server = await asyncio.start_unix_server(
            self._connected, sock=listener, limit=_LINE_LIMIT
        )

    def close(self) -> None:
        """Stop listening; connected clients go on."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._path.unlink(missing_ok=True)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await cancelled(*self._connections, *self._control.work)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await _converse(self._control, reader, writer)
        finally:
            self._connections.discard(task)
            writer.close()


def _listener(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Between bind and chmod the directory's 0700 keeps others out.
    listener.bind(str(path))
    path.chmod(0o600)
    return listener


async def _converse(
    control: Control, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    async def send(message: Mapping[str, Any]) -> None:
        # Paths that are no UTF-8 hold surrogates, which the client reads back.
        line = json.dumps(pack(message), ensure_ascii=False).encode(errors="surrogatepass")
        if not writer.is_closing():
            with contextlib.suppress(
                ConnectionError
            ):  # what was asked for goes on without the client
                writer.write(line + b"\n")
                await writer.drain()

    def hand(descriptors: Sequence[int]) -> None:
        with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as raw:
            # Before the answer's line, whose JSON a space does not change.
            socket.send_fds(raw, [b" "], descriptors)

    if not _is_owner(writer):
        _log.warning("control socket: a connection of another user was refused")
        return
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(_FIRST_LINE):
            line = await _line(reader)
        if line is None:
            return
        # The client sends nothing more: the end of its stream means that it is gone. What it
        # began (a deployment, say) goes on; only the telling ends.
        async with first_of(_reply(control, line, send, hand), reader.read(1)) as (work, _gone):
            if work.done():
                work.result()


async def _line(reader: asyncio.StreamReader) -> bytes | None:
    """The request's line; None when the client left or sent more than the limit."""
    try:
        return await reader.readuntil(b"\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None


async def _reply(control: Control, line: bytes, send: Send, hand: Hand) -> None:
    try:
        request = json.loads(line)
        if not isinstance(request, dict):
            raise UsageError(
                "a request is a JSON object, this is a {name}", name=type(request).__name__
            )
        result = await control.answer(request, send, hand)
    except YibuError as error:
        await send({"error": plain_error(error)})
    except OSError as error:  # a full disk, no more descriptors
        await send({"error": plain_error(file_error(error))})
    except (ValueError, KeyError, TypeError) as error:
        text = tr(
            "the request cannot be read: {name}: {error}", name=type(error).__name__, error=error
        )
        await send({"error": plain_error(UsageError(text))})
    else:
        await send({"result": result})


def _is_owner(writer: asyncio.StreamWriter) -> bool:
    """Whether the peer runs as this user or root: the kernel tells, on Linux. Elsewhere the modes of
    the socket and its directory must suffice."""
    peer = writer.get_extra_info("socket")
    if not sys.platform.startswith("linux"):
        return True
    # struct ucred of unix(7): pid, uid, gid.
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", credentials)
    return uid in (0, os.getuid())
