"""The control socket: how the command line talks to the node. The owner's alone.

One connection a request: the client sends one line of JSON, ``{"op": …, …}``; the node answers
with lines ``{"event": …}`` while it works and one last line, ``{"result": …}`` or
``{"error": {"type", "message", "hint"}}``.

| op        | fields                 | events | result |
|-----------|------------------------|--------|--------|
| ping      |                        |        | {pid, started, instance} |
| ps        |                        |        | what ``yibu ps --json`` prints |
| reserved  |                        |        | {promises: what engines were planned, what they hold} |
| access    |                        |        | {url, key, capabilities: {model: [name]}} |
| up        | models: [ModelConfig]  | yes    | {models: [name]} |
| apply     | models: [ModelConfig], remove: [name], rollback: bool | yes | {models: [name]} |
| configs   |                        |        | {models: [ModelConfig], previous: {until, models} or null} |
| down      | models: [name]         | yes    | {models: [name]} |
| restart   | models: [name]         | yes    | {models: [name]} |
| log       | model, replica         |        | {path} |
| subscribe | model (or null)        | yes    | none: until the client goes |
| open      | patience: seconds      |        | {url}: a gateway that was to listen later does |
| settings  |                        |        | {gateway: what it was started with, models: {name: file}} |
| accounts  |                        |        | {}: changed keys hold, usage is written |
| wait      |                        |        | {}: comes when the node is told to stop |
| shutdown  | hurry: bool            |        | {pid, instance}; the node then drains and exits |

Any request may carry ``instance``: a node that is another one refuses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yibu.config.wire import model_config, plain_config
from yibu.errors import EngineStartError, NotRunningError, RequestError, UsageError, YibuError
from yibu.node.events import Subscription
from yibu.node.fleet import Fleet
from yibu.node.history import History
from yibu.node.launch import cancelled
from yibu.planner.ledger import Promise

_log = logging.getLogger(__name__)
_LINE_LIMIT = 4 << 20
_FIRST_LINE = 10.0
"""Seconds that a client has for its request."""

Send = Callable[[Mapping[str, Any]], Awaitable[None]]


@dataclass(slots=True)
class GatewayHandle:
    """What the node must know of its gateway: where it answers, and the owner's key."""

    url: str
    """Empty until the gateway listens."""
    key: str | None = field(default=None, repr=False)
    hurry: Callable[[], None] = field(default=lambda: None, repr=False)
    """Called when answers that are being sent shall not be waited for any longer."""
    sync: Callable[[], Awaitable[None]] | None = None
    """Writes what the gateway has counted, and takes up changed keys."""
    start: Callable[[float], Awaitable[str]] | None = None
    """Listens as soon as the address is free, and gives the URL; raises ConfigError when it is
    not within so many seconds. None where it listens from the start."""

    async def listen(self, patience: float) -> str:
        if self.start is not None:
            self.url, self.start = await self.start(patience), None
        return self.url


@dataclass(frozen=True, slots=True)
class Stopping:
    """Whether the node was told to stop, and a second time, to wait for nobody."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)

    def ask(self, *, hurry: bool = False) -> None:
        self.asked.set()
        if hurry:
            self.hurry.set()


class Control:
    """Carries out requests on a fleet."""

    def __init__(
        self,
        fleet: Fleet,
        node: Callable[[], Mapping[str, Any]],
        gateway: GatewayHandle,
        stopping: Stopping,
        settings: Mapping[str, Any],
        history: History,
    ) -> None:
        """``node`` gives what ``ps`` shows of the node: ``{"node": …, "gateway": …}``;
        ``settings`` are those that the gateway was started with, without its keys."""
        self._fleet = fleet
        self._gateway = gateway
        self._node = node
        self._stopping = stopping
        self._settings = settings
        self._history = history

    async def answer(self, request: Mapping[str, Any], send: Send) -> Any:
        """The result of one request.

        Raises:
            YibuError: it is refused or it failed.
        """
        node = self._node()["node"]
        if request.get("instance") not in (None, node["instance"]):
            raise NotRunningError(
                "another node runs on this home by now", hint="see what it serves: yibu ps"
            )
        match request.get("op"):
            case (
                "ping"
                | "ps"
                | "configs"
                | "reserved"
                | "access"
                | "settings"
                | "log"
                | "accounts" as question
            ):
                return await self._told(question, request)
            case "up" | "down" | "restart" as verb:
                start = bool(request.get("start"))
                return await self._change(verb, request["models"], send, start=start)
            case "apply":
                return await self._apply(request, send)
            case "subscribe":
                with self._fleet.events(request.get("model")) as events:
                    async for event in events:
                        await send(event)
                return None
            case "open":
                return {"url": await self._gateway.listen(float(request["patience"]))}
            case "wait":
                await self._stopping.asked.wait()
                return {}
            case "shutdown":
                self._stopping.ask(hurry=bool(request.get("hurry")))
                return {"pid": node["pid"], "instance": node["instance"]}
            case op:
                raise UsageError(f"the node knows no operation {op!r}")

    async def _told(self, question: str, request: Mapping[str, Any]) -> Any:
        match question:
            case "log":
                path = self._fleet.log_path(request["model"], int(request.get("replica", 0)))
                return {"path": path}
            case "accounts":
                if self._gateway.sync is not None:
                    await self._gateway.sync()
                return {}
            case "ping":
                return self._node()["node"]
            case "ps":
                return {"version": 1, **self._node(), "models": await self._fleet.status()}
            case "reserved":
                return {"promises": [_plain(p) for p in await self._fleet.reserved()]}
            case "configs":
                before = await asyncio.to_thread(self._history.last)
                return {
                    "models": list(map(plain_config, self._fleet.configs())),
                    "previous": before
                    and {
                        "until": before.until,
                        "models": list(map(plain_config, before.models)),
                    },
                }
            case "settings":
                files = {config.name: config.file for config in self._fleet.configs()}
                models = {name: str(file) if file else None for name, file in files.items()}
                return {"gateway": dict(self._settings), "models": models}
            case _:
                return {
                    "url": self._gateway.url,
                    "key": self._gateway.key,
                    "capabilities": {
                        route.model: sorted(route.capabilities) for route in self._fleet.routes()
                    },
                }

    async def _apply(self, request: Mapping[str, Any], send: Send) -> dict[str, Any]:
        """Take some models down and bring others up; what was served before can be had back."""
        configs = [model_config(data) for data in request["models"]]
        removed = list(request.get("remove", ()))
        rollback = bool(request.get("rollback"))
        if not rollback:
            await asyncio.to_thread(self._history.push, self._fleet.configs())
        await self._together(removed, [self._fleet.down(name) for name in removed], send)
        names = [config.name for config in configs]
        await self._together(names, [self._fleet.up(config) for config in configs], send)
        if rollback:
            await asyncio.to_thread(self._history.drop_last)
        return {"models": [*names, *removed]}

    async def _change(
        self, verb: str, models: Sequence[Any], send: Send, *, start: bool
    ) -> dict[str, Any]:
        if verb == "up":
            configs = [model_config(data) for data in models]
            names = [config.name for config in configs]
            work = [self._fleet.up(config, start=start) for config in configs]
        else:
            names = list(models)
            act = self._fleet.down if verb == "down" else self._fleet.restart
            work = [act(name) for name in names]
        await self._together(names, work, send)
        return {"models": names}

    async def _together(
        self, names: list[str], verbs: Sequence[Awaitable[None]], send: Send
    ) -> None:
        """Carry verbs out at once, with their models' events; then raise the first error.

        What one model fails of does not stop the others.
        """
        with self._fleet.events() as events:
            work = asyncio.gather(*verbs, return_exceptions=True)
            telling = asyncio.create_task(_forward(events, names, send), name="control events")
            try:
                results = await work
            finally:
                await cancelled(telling)
            while not events.empty():
                await _tell(events.get_nowait(), names, send)
        errors = [result for result in results if isinstance(result, BaseException)]
        if errors:
            raise errors[0]


def _plain(promise: Promise) -> dict[str, Any]:
    return {
        "replica": promise.replica,
        "gpus": list(promise.gpus),
        "memory_bytes": promise.memory,
        "host_bytes": promise.host,
        "pids": sorted(promise.pids),
        "resident_bytes": promise.resident,
    }


async def _forward(events: Subscription, names: list[str], send: Send) -> None:
    async for event in events:
        await _tell(event, names, send)


async def _tell(event: Mapping[str, Any], names: list[str], send: Send) -> None:
    if event["model"] in names:
        await send(event)


@asynccontextmanager
async def serve(path: Path, control: Control) -> AsyncIterator[None]:
    """Listen on ``path`` (mode 0600) until the block ends; connections still open are closed.

    The node's lock is held, so a socket that is there already belongs to nobody.
    """
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await _converse(control, reader, writer)
        finally:
            connections.discard(task)
            writer.close()

    server = await asyncio.start_unix_server(connected, sock=_listener(path), limit=_LINE_LIMIT)
    try:
        yield
    finally:
        server.close()
        _remove(path)
        await cancelled(*connections)


def _listener(path: Path) -> socket.socket:
    _remove(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Between bind and chmod the directory's 0700 keeps others out.
    listener.bind(str(path))
    path.chmod(0o600)
    return listener


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


async def _converse(
    control: Control, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    async def send(message: Mapping[str, Any]) -> None:
        # Paths that are no UTF-8 hold surrogates, which the client reads back.
        line = json.dumps(message, ensure_ascii=False).encode(errors="surrogatepass")
        writer.write(line + b"\n")
        await writer.drain()

    if not _is_owner(writer):
        _log.warning("control socket: a connection of another user was refused")
        return
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(_FIRST_LINE):
            line = await _line(reader)
        if line is None:
            return
        work = asyncio.create_task(_reply(control, line, send), name="control request")
        # The client sends nothing more: the end of its stream means that it is gone. What it
        # began (a deployment, say) goes on; only the telling ends.
        gone = asyncio.create_task(reader.read(1), name="control client")
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            await cancelled(work, gone)


async def _line(reader: asyncio.StreamReader) -> bytes | None:
    """The request's line; None when the client left or sent more than a line may hold."""
    try:
        return await reader.readuntil(b"\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None


async def _reply(control: Control, line: bytes, send: Send) -> None:
    try:
        request = json.loads(line)
        if not isinstance(request, dict):
            raise UsageError(f"a request is a JSON object, this is a {type(request).__name__}")
        result = await control.answer(request, send)
    except YibuError as error:
        await send({"error": plain_error(error)})
    except (ValueError, KeyError, TypeError) as error:
        text = f"the request cannot be read: {type(error).__name__}: {error}"
        await send({"error": plain_error(UsageError(text))})
    else:
        await send({"result": result})


def plain_error(error: YibuError) -> dict[str, Any]:
    """An error as it crosses the socket; ``yibu.node.client`` makes it an exception again.

    A class that only one package knows goes as its nearest parent in ``yibu.errors``.
    """
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ == "yibu.errors")
    plain: dict[str, Any] = {
        "type": kind.__name__,
        "message": error.message,
        "hint": error.hint,
    }
    if isinstance(error, EngineStartError):
        plain["cause"] = error.cause
    if isinstance(error, RequestError):
        plain |= {"param": error.param, "code": error.code, "retry_after": error.retry_after}
    return plain


def _is_owner(writer: asyncio.StreamWriter) -> bool:
    """Whether the peer runs as this user (or root): the kernel says so, on Linux. Elsewhere the
    modes of the socket and its directory have to do."""
    peer = writer.get_extra_info("socket")
    if not sys.platform.startswith("linux"):
        return True
    # struct ucred of unix(7): pid, uid, gid.
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", credentials)
    return uid in (0, os.getuid())
