"""The control socket: how the command line talks to the node. The owner's alone.

One connection a request: the client sends one line of JSON, ``{"op": …, …}``; the node answers
with lines ``{"event": …}`` while it works and one last line, ``{"result": …}`` or
``{"error": {"type", "message", "hint"}}``.

| op        | fields                 | events | result |
|-----------|------------------------|--------|--------|
| ping      |                        |        | {pid, started, instance} |
| ps        |                        |        | what ``yibu ps --json`` prints |
| reserved  |                        |        | {reservations: what engines were planned, what they hold} |
| access    |                        |        | {url, key, capabilities: {model: [name]}} |
| up        | models: [ModelConfig]  | yes    | {models: [name]} |
| apply     | models: [ModelConfig], remove: [name], settings: Settings or null, secrets: [key], rollback: ``until`` of the set that these are | yes | {models: [name]} |
| configs   |                        |        | {models: [ModelConfig], coming: [ModelConfig], settings: Settings, previous: {until, models, settings} or null} |
| down      | models: [name]         | yes    | {models: [name]} |
| restart   | models: [name]         | yes    | {models: [name]} |
| load      | models: [name]         | yes    | {models: [name]} |
| unload    | models: [name]         | yes    | {models: [name]} |
| scale     | models: [name], replicas: number | yes | {models: [name]} |
| open      | patience: seconds      |        | {url}: a gateway that was to listen later does |
| wait      |                        |        | {replaced}: when the node is told to stop, or another has taken its place |
| listeners |                        |        | {}: the listening sockets come with it (SCM_RIGHTS) |
| upgrade   |                        |        | {before, now}: another process has taken the node's place |
| settings  |                        |        | {settings: Settings, models: {name: file}} |
| accounts  |                        |        | {}: changed keys hold, usage is written |
| shutdown  | hurry: bool            |        | {pid, instance}; the node then drains and exits |

Any request may carry ``instance``: a node that is another one refuses it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from yibu.config.settings import GatewaySettings
from yibu.config.wire import model_config, plain, plain_config
from yibu.errors import DoesNotFitError, NotRunningError, UsageError
from yibu.node.events import Subscription
from yibu.node.fleet.fleet import Fleet
from yibu.node.handover.current import Configure, CurrentSettings
from yibu.node.history import History
from yibu.node.tasks import cancelled

Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Hand = Callable[[Sequence[int]], None]


class Listeners(Protocol):
    """The gateway's listening sockets, as an upgrade needs them."""

    def descriptors(self) -> list[int]: ...
    def pause(self) -> None:
        """Stop accepting; new connections wait in the listening socket, open ones go on."""

    async def accept(self) -> None:
        """Accept again."""

    async def retire(self) -> None:
        """Answer what open connections still ask, until their clients have left."""


class Shared(Protocol):
    """Limits and replicas while two nodes run: one of them counts for both."""

    def take_over(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Count for an old node too, until it is gone."""

    def hand_over(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Leave the counting to the new node from now on."""

    async def alone(self) -> None:
        """Wait until no old node asks any more."""


@dataclass(slots=True)
class GatewayHandle:
    """What the node must know of its gateway: where it answers, and the owner's key."""

    url: str
    """Empty until the gateway listens."""
    key: str | None = field(default=None, repr=False)
    hurry: Callable[[], None] = field(default=lambda: None, repr=False)
    """Called when answers in progress need not be waited for any longer."""
    sync: Callable[[], Awaitable[None]] | None = None
    """Writes the usage counted so far and reloads changed keys."""
    listeners: Listeners | None = None
    unwritten: Callable[[], dict[str, Any] | None] = field(default=lambda: None, repr=False)
    """The usage that could not be written yet, and why."""
    shared: Shared | None = None
    start: Callable[[float], Awaitable[str]] | None = None
    """Listens as soon as the address is free, and returns the URL; raises ConfigError after that many
    seconds. None where it listens from the start."""

    configure: Configure | None = None
    """Applies other settings to the gateway; None where it has none."""
    attach: Callable[[Control], None] = field(default=lambda _: None, repr=False)
    """Gives the gateway the object that carries out verbs."""

    async def listen(self, patience: float) -> str:
        if self.start is not None:
            self.url, self.start = await self.start(patience), None
        return self.url


@dataclass(slots=True)
class Stopping:
    """Whether the node was told to stop, and a second time, to wait for nobody."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    replaced: bool = False
    """Whether it stops because another node has taken its place and its engines."""

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
        settings: CurrentSettings,
        history: History,
        upgrade: Callable[[], Awaitable[Mapping[str, Any]]],
    ) -> None:
        """``node`` gives what ``ps`` shows of the node: ``{"node": …, "gateway": …}``."""
        self._fleet = fleet
        self._gateway = gateway
        self._node = node
        self._stopping = stopping
        self.settings = settings
        self._history = history
        self._upgrade = upgrade
        self.work: set[asyncio.Task[Any]] = set()
        """The verbs being carried out."""
        self._settling = asyncio.Lock()
        """Held while the settings and their history change."""

    async def answer(self, request: Mapping[str, Any], send: Send, hand: Hand) -> Any:
        """The result of one request; ``hand`` sends descriptors beside it.

        Raises:
            YibuError: it is refused or it failed.
        """
        node = self._node()["node"]
        if request.get("instance") not in (None, node["instance"]):
            raise NotRunningError(
                "another node runs on this home by now", hint="See what it serves: yibu ps"
            )
        match request.get("op"):
            case "up" | "down" | "restart" | "load" | "unload" | "scale" as verb:
                return await self._carry_out(verb, self._change(verb, request, send))
            case "apply":
                return await self._carry_out("apply", self._apply(request, send))
            case "open" | "listeners" | "upgrade" as operation:
                return await self._listening(operation, request, hand)
            case "wait":
                await self._stopping.asked.wait()
                return {"replaced": self._stopping.replaced}
            case "shutdown":
                self._stopping.ask(hurry=bool(request.get("hurry")))
                return {"pid": node["pid"], "instance": node["instance"], "holder": node["holder"]}
            case question:
                return await self._told(question)

    async def _carry_out(
        self, name: str, verb: Coroutine[Any, Any, dict[str, Any]]
    ) -> dict[str, Any]:
        """Await ``verb``, which goes on when whoever asked leaves: half a change, because a terminal was
        closed, would be neither what was served nor what was wanted."""
        task = asyncio.create_task(verb, name=name)
        self.work.add(task)
        task.add_done_callback(self.work.discard)
        return await asyncio.shield(task)

    async def _change(self, verb: str, request: Mapping[str, Any], send: Send) -> dict[str, Any]:
        """Carry out a verb on some models."""
        names = list(request["models"])
        if verb == "up":
            configs = [model_config(data) for data in names]
            self._fleet.claim(configs)
            names = [config.name for config in configs]
            start = bool(request.get("start"))
            work = [self._fleet.up(config, start=start) for config in configs]
        elif verb == "scale":
            work = [self._fleet.scale(name, int(request["replicas"])) for name in names]
        else:
            work = [getattr(self._fleet, verb)(name) for name in names]
        for error in (await self._together(names, work, send)).values():
            raise error
        return {"models": names}

    async def _listening(self, operation: str, request: Mapping[str, Any], hand: Hand) -> Any:
        match operation:
            case "open":
                return {"url": await self._gateway.listen(float(request["patience"]))}
            case "upgrade":
                return await self._upgrade()
            case _:
                if self._gateway.listeners is None or not self._gateway.url:
                    raise NotRunningError("the gateway does not listen yet")
                hand(self._gateway.listeners.descriptors())
                return {}

    async def _told(self, question: object) -> Any:
        match question:
            case "accounts":
                if self._gateway.sync is not None:
                    await self._gateway.sync()
                return {}
            case "ping":
                shown = self._node()
                return {**shown["node"], "url": shown["gateway"]["url"]}
            case "ps":
                return {"version": 1, **self._node(), "models": await self._fleet.status()}
            case "reserved":
                return {"reservations": plain(await self._fleet.reserved())}
            case "configs":
                wanted, settings = self._fleet.wanted(), self.settings.value
                before = await asyncio.to_thread(self._history.before, wanted, settings)
                return {
                    "models": list(map(plain_config, self._fleet.configs())),
                    "coming": list(map(plain_config, self._fleet.coming())),
                    "settings": settings.plain(),
                    "previous": before[0].plain() if before else None,
                }
            case "settings":
                files = {config.name: config.file for config in self._fleet.configs()}
                models = {name: str(file) if file else None for name, file in files.items()}
                return {"settings": self.settings.value.plain(), "models": models}
            case "access":
                return {
                    "url": self._gateway.url,
                    "key": self._gateway.key,
                    "capabilities": {
                        route.model: sorted(route.capabilities) for route in self._fleet.routes()
                    },
                }
            case op:
                raise UsageError("the node knows no operation {op!r}", op=op)

    async def _apply(self, request: Mapping[str, Any], send: Send) -> dict[str, Any]:
        """Change the settings, take some models down and bring others up; keeps what was served before
        for a rollback.

        A model whose name another one takes over serves until that one is ready. Where both do not fit, it
        is taken down first.
        """
        configs = [model_config(data) for data in request["models"]]
        removed, names = list(request.get("remove", ())), [config.name for config in configs]
        rollback = request.get("rollback")
        last = self._fleet.claim(configs, removed)

        async def up() -> dict[str, BaseException]:
            return await self._together(names, [self._fleet.up(config) for config in configs], send)

        async def down(some: Sequence[str]) -> dict[str, BaseException]:
            return await self._together(some, [self._fleet.down(name) for name in some], send)

        async with self._settling:
            if rollback is None:
                now = self.settings.value
                await asyncio.to_thread(self._history.push, self._fleet.configs(), now)
            if settings := request.get("settings"):
                changed = GatewaySettings.from_plain(settings)
                await self.settings.change(changed, request.get("secrets", ()))
        failed = await down([name for name in removed if name not in last]) | await up()
        if last and any(isinstance(error, DoesNotFitError) for error in failed.values()):
            failed, last = await down(last) | await up(), []
        for error in (failed or await down(last)).values():
            raise error
        if rollback is not None:
            await asyncio.to_thread(self._history.drop, rollback)
        return {"models": [*names, *removed]}

    async def _together(
        self, names: Sequence[str], verbs: Sequence[Awaitable[None]], send: Send
    ) -> dict[str, BaseException]:
        """Carry out verbs concurrently and forward their models' events; returns the errors by model.

        What one model fails of does not stop the others.
        """
        with self._fleet.events(names) as events:
            telling = asyncio.create_task(_forward(events, send), name="control events")
            try:
                results = await asyncio.gather(*verbs, return_exceptions=True)
            finally:
                await cancelled(telling)
            while not events.empty():
                await send(events.get_nowait())
        found = zip(names, results, strict=True)
        return {name: result for name, result in found if isinstance(result, BaseException)}


async def _forward(events: Subscription, send: Send) -> None:
    async for event in events:
        await send(event)
