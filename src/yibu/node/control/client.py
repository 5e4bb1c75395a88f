"""The command line's end of the control socket.

Standard library only, and nothing of the node: ``yibu ps`` must be done within 0.3 s.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

from yibu.errors import HungNodeError, NotRunningError
from yibu.messages import unpack
from yibu.node.lock import holder_of, is_stopped, node_of
from yibu.paths import Paths
from yibu.plain_errors import rebuild_error

_CONNECT = 2.0
_COMES_BACK = 15.0
"""Seconds for a node that was killed to answer again, where something starts it."""
_POLL = 0.05
_MOST = 8
"""Descriptors in one message."""
_QUICK = 15.0
"""Seconds for an operation that the node answers from what it knows."""


_QUESTIONS = ("ping", "ps", "reserved", "access", "settings")
"""Operations that change nothing, and may be asked twice."""


class WentAwayError(NotRunningError):
    """The node ended before it answered."""


class ControlClient:
    """Talks to the node of one home; see :mod:`yibu.node.control.control` for the operations."""

    def __init__(self, paths: Paths, patience: float = _COMES_BACK) -> None:
        """``patience`` is seconds for a node that was killed to come back, where something starts it."""
        self._paths = paths
        self._patience = patience

    def running(self) -> bool:
        """Whether a node listens on this home.

        Raises:
            HungNodeError: one does, and does not answer.
        """
        try:
            self.call("ping")
        except NotRunningError:
            return False
        return True

    def call(self, op: str, *, timeout: float | None = _QUICK, **fields: Any) -> Any:
        """The result of an operation, its events left out.

        ``timeout`` is seconds without a byte from the node; None waits for as long as it takes.

        Raises:
            NotRunningError: no node listens on this home.
            HungNodeError: one does, and does not answer.
            YibuError: what the node refused or failed with, as the class that it raised.
        """
        for more_tries in (2, 1, 0):
            try:
                for message in self.stream(op, timeout=timeout, **fields):
                    if "event" not in message:
                        return message["result"]
            except WentAwayError:
                # A node that was killed seems to listen for a moment still.
                if (
                    op not in _QUESTIONS
                    or not more_tries
                    or holder_of(self._paths.node_lock) is None
                ):
                    raise
                time.sleep(_POLL)
        raise _broken(op)

    def listeners(self) -> list[socket.socket]:
        """The gateway's listening sockets.

        Raises:
            NotRunningError: no node listens on this home.
        """
        with self._connect() as connection:
            connection.settimeout(_QUICK)
            connection.sendall(b'{"op": "listeners"}\n')
            try:
                _, descriptors, _, _ = socket.recv_fds(connection, 1, _MOST)
            except OSError as error:
                raise _broken("listeners") from error
        if not descriptors:
            raise _broken("listeners")
        return [socket.socket(fileno=descriptor) for descriptor in descriptors]

    def stream(
        self, op: str, *, timeout: float | None = None, **fields: Any
    ) -> Iterator[dict[str, Any]]:
        """Messages ``{"event": …}`` as they come, then ``{"result": …}``; raises as :meth:`call`.

        Closing the iterator hangs up, and what was begun goes on in the node.
        """
        with self._connect() as connection:
            connection.settimeout(timeout)
            try:
                if self._stopped() is not None:  # to wait would tell nothing more
                    raise TimeoutError
                connection.sendall(json.dumps({"op": op, **fields}).encode() + b"\n")
                with connection.makefile("rb") as lines:
                    for line in lines:
                        message = unpack(json.loads(line))
                        if "error" in message:
                            raise rebuild_error(message["error"])
                        yield message
                        if "result" in message:
                            return
            except TimeoutError:
                raise self._hung(op, timeout) from None
            except (ConnectionError, ValueError) as error:
                raise _broken(op) from error
        raise _broken(op)

    def _stopped(self) -> int | None:
        """The node's pid if a signal has stopped it, else None."""
        pid = node_of(self._paths.node_lock)
        return pid if pid is not None and is_stopped(pid) else None

    def _hung(self, op: str, timeout: float | None) -> HungNodeError:
        if (pid := self._stopped()) is not None:
            return HungNodeError(
                "the node was stopped by a signal and answers nothing: process {pid}",
                pid=pid,
                hint="Let it go on: kill -CONT {pid}",
            )
        pid, log = node_of(self._paths.node_lock), self._paths.node_log
        return HungNodeError(
            "the node does not answer {op!r} within {timeout:g} s",
            op=op,
            timeout=timeout or 0,
            node_log=log,
            pid=pid,
            hint="See its log: {node_log}. To have it started again, its engines going on: "
            "kill -9 {pid}",
        )

    def _connect(self) -> socket.socket:
        """Connect; waits while a killed node is started again or another takes its place."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return self._connected()
            except NotRunningError:
                holder = holder_of(self._paths.node_lock)
                if holder is None:
                    raise
                if time.monotonic() > deadline:
                    raise NotRunningError(
                        "the node of this home was killed, and does not come back within "
                        "{patience:g} s",
                        patience=self._patience,
                        pid=holder.pid,
                        hint="Process {pid} tries to start it; see why it ends: yibu logs "
                        "node; to give it up: yibu down",
                    ) from None
                time.sleep(_POLL)

    def _connected(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(_CONNECT)
        try:
            connection.connect(str(self._paths.control_socket))
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            # Refused: the socket of a node that was killed.
            connection.close()
            raise NotRunningError(
                "No node runs in this home ({parent}).",
                parent=self._paths.state.parent,
                hint="Start one with a model: yibu up MODEL",
            ) from None
        except OSError as error:
            connection.close()
            raise NotRunningError(
                "the node's socket {control_socket} cannot be used: {error}",
                control_socket=self._paths.control_socket,
                error=error,
                hint="Check whose it is: it has to belong to you",
            ) from error
        return connection


def _broken(op: str) -> WentAwayError:
    return WentAwayError(
        "the node went away while it worked on {op!r}", op=op, hint="See what runs: yibu ps"
    )
