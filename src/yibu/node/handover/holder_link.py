"""The node's end of the socket to its holder (:mod:`yibu.node.handover.holder`)."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from tempfile import TemporaryFile

from yibu.node.handover import holder

_log = logging.getLogger(__name__)


class HolderLink:
    """The connection to the holder; without one (``descriptor`` None) its methods do nothing."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._socket = None if descriptor is None else socket.socket(fileno=descriptor)
        self.pid = None if descriptor is None else os.getppid()
        """The holder's pid; None without a holder."""

    def watch(self, gone: Callable[[], None]) -> None:
        """Call ``gone`` once if the holder is killed."""
        if self._socket is None:
            return
        loop, fd = asyncio.get_running_loop(), self._socket.fileno()

        def ended() -> None:
            loop.remove_reader(fd)
            _log.warning(
                "the holder (pid %d) of the listening socket is gone: this node goes on, but nothing "
                "starts it again if it is killed. `yibu node upgrade` gives it another one",
                self.pid or 0,
            )
            self.close()
            gone()

        loop.add_reader(fd, ended)  # the holder says nothing: only its end is heard

    def keep(self, listeners: Sequence[int]) -> None:
        """Hand over the listening sockets, so that the holder restarts a killed node with them."""
        self._send(lambda one: socket.send_fds(one, [holder.KEEP], listeners))

    def settings(self, data: bytes) -> None:
        """Hand over the settings for the next node."""
        if self._socket is None:
            return
        # A file in memory, where the system has such: a pipe could be full, and the holder slow to read it.
        memory = sys.platform == "linux"
        with os.fdopen(os.memfd_create("settings"), "w+b") if memory else TemporaryFile() as file:
            file.write(data)
            file.flush()
            self._send(lambda one: socket.send_fds(one, [holder.SETTINGS], [file.fileno()]))

    def stopping(self) -> None:
        """Tell the holder that the node was asked to stop."""
        self._send(lambda one: one.sendall(holder.STOP))

    def leave(self) -> None:
        """Tell the holder to end: another one has the next node."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._send(lambda one: one.sendall(holder.LEAVE))
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = self.pid = None

    def _send(self, work: Callable[[socket.socket], object]) -> None:
        if self._socket is None:
            return
        try:
            work(self._socket)
        except ConnectionError as error:  # it is gone, which `watch` tells
            _log.info("the holder does not listen: %s", error)
