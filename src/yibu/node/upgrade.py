"""``yibu node upgrade``: another process takes the node's place, and the engines go on.

The old node starts a new holder, which starts the new node; both nodes talk over a socketpair, a line
of JSON each time:

| new node       | old node      | who supervises the engines |
|----------------|---------------|----------------------------|
| ``ready``: it has read its settings and the state | | the old node |
|                | ``go``: it accepts no connection and commands nothing any more | nobody |
| ``serving``: it has adopted the engines and listens | | the new node |
| ``error``, or the end of its process, at any time | takes all of it back | the old node |

Connections wait in the listening socket meanwhile. The old node answers what it has accepted, and leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yibu import __version__
from yibu.errors import UsageError, YibuError
from yibu.messages import tr, unpack
from yibu.node import logs
from yibu.node.control.control import GatewayHandle, Shared, Stopping
from yibu.node.control.server import ControlServer
from yibu.node.fleet.fleet import Fleet
from yibu.node.handover import holder
from yibu.node.handover.current import CurrentSettings
from yibu.node.handover.holder_link import HolderLink
from yibu.node.handover.ownership import Ownership
from yibu.node.lock import HomeLock
from yibu.node.state import StateFile
from yibu.plain_errors import rebuild_error

_log = logging.getLogger(__name__)
_START = 120.0
"""Seconds for the new node to import what it needs and to read its settings."""
_CHANGED = 60.0
"""Seconds for replaced engines to answer what they have, and to end."""
_SERVE = 60.0
"""Seconds for it to adopt the engines and to listen."""
_ADOPTED = 10.0
"""Seconds that connections wait at most for engines that an earlier node left to answer again."""
_TAIL = 16_384


@dataclass(slots=True)
class Upgrade:
    """The old node's side."""

    fleet: Fleet
    ownership: Ownership
    state: StateFile
    gateway: GatewayHandle
    lock: HomeLock
    link: HolderLink
    stopping: Stopping
    log: Path
    settings: CurrentSettings = field(repr=False)
    control: ControlServer | None = None
    """None until the node answers commands."""
    begun: bool = False
    """Another process is to take this one's place, or has taken it."""

    async def run(self) -> dict[str, Any]:
        """Have another process in this one's place; returns what it says of itself.

        Raises:
            UsageError: models start or commands are being carried out, another upgrade among them.
            YibuError: the new node does not start; this one goes on.
        """
        if self.begun:  # two new nodes would have the engines, the address and the control socket
            raise UsageError(
                "The node is being replaced already.", hint="See which one serves: yibu ps"
            )
        self.begun = True
        try:
            return await self._replaced()
        except BaseException:  # cancellation too: this node goes on, and may be replaced later
            self.begun = False
            raise

    async def _replaced(self) -> dict[str, Any]:
        listener, control = await self._settled()
        fds = [("gateway", fd) for fd in listener.descriptors()]
        fds.append(("lock", self.lock.descriptor))
        self.settings.handing_over = True
        try:
            told = await self._hand_over(listener, control, fds)
        except BaseException:  # cancellation too: this node goes on, and its settings may change
            self.settings.handing_over = False
            raise
        self.ownership.decide(False)
        self.link.leave()
        self.stopping.replaced = True
        self.stopping.ask()
        return {"before": {"pid": os.getpid(), "version": __version__}, "now": told["serving"]}

    async def _hand_over(
        self, listener: Any, control: ControlServer, fds: holder.Given
    ) -> dict[str, Any]:
        """What the new node says when it serves; where it fails to, this one serves again."""
        async with _successor(self.settings.as_input(), fds, self.log) as new:
            await new.hear(_START)
            await self._settled()  # commands were carried out meanwhile
            self.ownership.decide(None)
            listener.pause()
            try:
                await self.fleet.saved()
                await asyncio.to_thread(self.state.hold)
                control.close()
                await _tell(new.writer, {"go": True})
                told = await new.hear(_SERVE)
            except BaseException:  # cancellation too: two nodes must not serve one home
                new.kill()
                await self._take_back(listener, control)
                raise
            if self.gateway.shared is not None:  # at once: the new node admits nothing before
                self.gateway.shared.hand_over(new.reader, new.writer)
                new.kept = True
            return told

    async def _settled(self) -> tuple[Any, ControlServer]:
        """What serves, once the engines are those that the new node is told of: it would end the others
        with the requests that they still answer.

        Raises:
            UsageError: models start or commands are being carried out.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CHANGED):
                await self.fleet.changed()
        if self.gateway.listeners is None or not self.gateway.url or self.control is None:
            raise UsageError("this node does not listen yet")
        states = ("pending", "downloading", "starting")
        coming = [route.model for route in self.fleet.routes() if route.state in states]
        coming += self.fleet.changing()
        if coming or self.control.busy:
            names = ", ".join(dict.fromkeys(coming)) or tr("a model")
            raise UsageError(
                "{names} is being started or changed: the node is not replaced meanwhile",
                names=names,
                hint="Try again when `yibu ps` shows it ready or failed",
            )
        return self.gateway.listeners, self.control

    async def _take_back(self, listener: Any, control: ControlServer) -> None:
        _log.warning("the new node does not serve: this one goes on")
        self.lock.note(self.link.pid)
        await control.open()
        await listener.accept()
        self.ownership.decide(True)
        await asyncio.to_thread(self.state.release)


@dataclass(slots=True)
class _Successor:
    """The new node, as the old one sees it."""

    process: subprocess.Popen[bytes]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    log: Path
    offset: int
    kept: bool = False
    """The connection goes on."""

    async def hear(self, seconds: float) -> dict[str, Any]:
        """Its next message. Raises YibuError when it says that it failed, ends, or says nothing."""
        try:
            async with asyncio.timeout(seconds):
                line = await self.reader.readline()
        except TimeoutError:
            raise self._failed(tr("said nothing for {seconds:g} s", seconds=seconds)) from None
        except ConnectionError:
            line = b""
        if not line:
            code = await asyncio.to_thread(self.process.wait, 10)
            raise self._failed(tr("ended with exit code {code}", code=code))
        message: dict[str, Any] = unpack(json.loads(line))
        if "error" in message:
            raise rebuild_error(message["error"])
        return message

    def kill(self) -> None:
        """End it and its holder. It owns nothing yet, so nothing is lost."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _failed(self, what: str) -> YibuError:
        said = logs.read_from(self.log, self.offset, _TAIL).split("\n")
        # The old one writes to it too, of each request.
        lines = [line for line in said if line.strip() and "yibu.gateway.access" not in line]
        text = tr("The new node {what}", what=what)
        if lines:
            text = tr("{text}; its last line: {line}", text=text, line=lines[-1].strip())
        return YibuError(
            text,
            hint=tr("The old one goes on. All that the new one said: {log}", log=self.log),
        )


@asynccontextmanager
async def _successor(
    settings: bytes, descriptors: holder.Given, log: Path
) -> AsyncIterator[_Successor]:
    """Start a holder and a node; they are killed when the block fails."""
    ours, theirs = socket.socketpair()
    offset = logs.size(log)
    descriptors = [*descriptors, ("handover", theirs.fileno())]
    with theirs:
        process = subprocess.Popen(  # noqa: ASYNC220  (a fork, as for engines)
            holder.command(descriptors),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=tuple(fd for _, fd in descriptors),
            cwd="/",
        )
    assert process.stdin is not None
    reader, writer = await asyncio.open_connection(sock=ours)
    new = _Successor(process, reader, writer, log, offset)
    try:
        with process.stdin as stdin, contextlib.suppress(BrokenPipeError):
            await asyncio.to_thread(stdin.write, settings)
        yield new
    except BaseException:  # cancellation too: a node that is not taken over must not stay
        new.kill()
        raise
    finally:
        if not new.kept:
            writer.close()


class Predecessor:
    """The old node, as the new one sees it; without one its methods do nothing."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    def __bool__(self) -> bool:
        return self._descriptor is not None

    async def let_go(self) -> None:
        """Wait until it supervises nothing and accepts nothing any more.

        Raises:
            YibuError: it ended, or it changed its mind.
        """
        if self._descriptor is None:
            return
        ours = socket.socket(fileno=os.dup(self._descriptor))
        self._reader, self._writer = await asyncio.open_connection(sock=ours)
        line = b""
        with contextlib.suppress(ConnectionError):
            await _tell(self._writer, {"ready": True})
            async with asyncio.timeout(_SERVE):
                line = await self._reader.readline()
        if not line:
            raise YibuError("The old node was gone before this one could take its place.")

    async def leave(self, node: Mapping[str, Any], shared: Shared | None) -> None:
        """Tell it that this node serves: it owns nothing from here on."""
        if self._writer is None or self._reader is None:
            return
        with contextlib.suppress(ConnectionError):  # it is dead, and this one has the lock
            await _tell(self._writer, {"serving": {**node, "version": __version__}})
        if shared is not None:
            shared.take_over(self._reader, self._writer)
        else:
            self._writer.close()


async def _tell(writer: asyncio.StreamWriter, message: Mapping[str, Any]) -> None:
    writer.write(json.dumps(message).encode() + b"\n")
    await writer.drain()


async def adopted(fleet: Fleet, replicas: Collection[str]) -> None:
    """Wait until ``replicas``, engines of an earlier node, answer again, so that connections wait in the
    listening socket instead of being told that nothing is ready."""

    def coming() -> bool:
        states = {one.replica: one.state for one in fleet.replicas()}
        return any(states.get(one, "pending") in ("pending", "starting") for one in replicas)

    with contextlib.suppress(TimeoutError), fleet.events() as events:
        async with asyncio.timeout(_ADOPTED):
            if coming():
                async for _ in events:
                    if not coming():
                        break
