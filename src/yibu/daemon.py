"""The node's process, ``python -m yibu.daemon``: every package is wired to the others here.

stdin has the gateway's settings as one JSON object (:meth:`yibu.config.settings.GatewaySettings.as_input`; with ``listen_later`` its port is
taken only when the control socket's ``open`` says so); stdout gets one line of JSON when the node
listens (``{"url": …}``) or why it does not (``{"error": …}``). Both are pipes from the command
that started it, because keys that no log may show are among it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import secrets
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, Self

import uvloop

from yibu import __version__, descriptors, log, sockets
from yibu.accounts.live import LiveAccounts
from yibu.accounts.store import FILE, holds_keys
from yibu.channel import Channel, Message
from yibu.config.keys import check_exposure
from yibu.config.settings import GatewaySettings
from yibu.errors import AlreadyRunningError, YibuError
from yibu.gateway import collector
from yibu.gateway.app import Gateway, create_app
from yibu.gateway.deps import GatewayDeps
from yibu.gateway.limits import Accounting
from yibu.gateway.listening import ListenError, open_listeners
from yibu.gateway.monitoring import tracing
from yibu.gateway.monitoring.node_metrics import NodeMetrics
from yibu.gateway.operations import build_validators
from yibu.gateway.server import GatewayServer
from yibu.hub.settings import moved_caches
from yibu.management.context import Context
from yibu.management.deployer import deployer
from yibu.management.manager import NodeManager
from yibu.messages import pack
from yibu.node.control.control import GatewayHandle
from yibu.node.fleet.fleet import Fleet
from yibu.node.handover.holder_link import HolderLink
from yibu.node.machine.hardware import gpus
from yibu.node.node import Node
from yibu.node.tasks import cancelled
from yibu.node.timings import Timings
from yibu.paths import Paths, file_error
from yibu.plain_errors import plain_error
from yibu.redaction import register, register_environment

_log = logging.getLogger(__name__)

_FIRST_START = 2.0
"""Seconds that the first model's start has the interpreter for itself: importing FastAPI beside it
would hold it up. Whoever asks for a documentation page earlier builds it at once."""


_KNOWN = 5.0
"""Seconds in which an old node says what is in use."""
_OPEN_POLL = 0.005
"""Seconds between two tries to take an address that another server is about to leave: clients
find nobody there meanwhile."""


def main() -> NoReturn:
    """Run the node until it is told to stop."""
    log.configure()
    descriptors.raise_limit()
    handed = sockets.handed(os.environ)
    link = HolderLink(next(iter(handed.get("holder", ())), None))
    env = dict(os.environ)
    register_environment(env)
    given = sys.stdin.read()
    code = 0
    if given:  # nothing: the command that started this process found that it needs no node
        try:
            plain = json.loads(given)
            settings = GatewaySettings.from_plain(plain)
            log.configure(form=settings.gateway.log_format)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(
                    serve(
                        Paths.from_env(env), settings, env, secrets=plain["secrets"],
                        later=plain["listen_later"], link=link, handed=handed,
                    )
                )  # fmt: skip
        except (YibuError, OSError) as error:
            shown = error if isinstance(error, YibuError) else file_error(error)
            _log.error("%s", shown, exc_info=shown is not error)
            if isinstance(error, AlreadyRunningError):
                link.stopping()  # to try again would end in the same way
            _tell({"error": plain_error(shown)}, next(iter(handed.get("handover", ())), None))
            code = 1
    logging.shutdown()
    # All is closed and written. Taking a large interpreter apart would only keep `yibu down`
    # waiting, for up to two seconds on a busy machine.
    os._exit(code)


async def serve(
    paths: Paths,
    settings: GatewaySettings,
    env: Mapping[str, str],
    timings: Timings | None = None,
    *,
    secrets: Sequence[str] = (),
    later: bool = False,
    link: HolderLink | None = None,
    handed: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> None:
    """Own the engines and the gateway of one home until SIGTERM or a shutdown request.

    ``timings`` are the node's waits, where they are not to be the usual ones; ``secrets`` are the keys, as
    far as they are known, for no log to show them. ``handed`` are descriptors by
    name: the listening socket (``gateway``), and what a node gives that is replaced.

    Raises:
        AlreadyRunningError: another node holds the home.
        ConfigError: the address is public without a key, or the port cannot be had.
    """
    register(*secrets)
    link = link or HolderLink()
    context = Context(env, paths, Path(settings.file or "/").parent)
    front = Front(
        settings,
        LiveAccounts(paths.state / FILE),
        link,
        context,
        tracing.start(env, __version__),
        later=later and not handed.get("gateway"),
        given=handed.get("gateway", ()),
        replaces="handover" in handed,
    )
    node = Node(
        paths,
        deployer(context),
        gateway=front.serve,
        prepare=front.bind,
        env={**env, **moved_caches(env)},
        timings=timings or Timings(),
        settings=settings,
        secrets=secrets,
        link=link,
        handed=handed,
    )
    await node.run(front.announce)


@dataclass
class Front:
    """The gateway in this process, from its port to its documented surface."""

    settings: GatewaySettings
    accounts: LiveAccounts
    link: HolderLink
    context: Context
    traces: tracing.Tracing | None
    later: bool
    """Another server has the address until the control socket's ``open``."""
    given: Sequence[int]
    """Listening sockets that this process was started with."""
    replaces: bool
    """An old node runs beside."""

    def __post_init__(self) -> None:
        held = holds_keys(self.accounts.path)
        check_exposure(self.settings.gateway.host, self.settings.digests, accounts=held)
        self._own_key = secrets.token_urlsafe(32)
        """The command line's."""
        register(self._own_key)
        self._listeners: list[socket.socket] = []
        self._app: Gateway | None = None
        self._handle = GatewayHandle("")

    def bind(self) -> None:
        """Take the port. Raises ConfigError."""
        if not self.later:
            self._listeners = open_listeners(self.settings.gateway, self.given)

    @asynccontextmanager
    async def serve(self, fleet: Fleet) -> AsyncIterator[GatewayHandle]:
        accounts, config = self.accounts, self.settings.gateway
        numbers = NodeMetrics(fleet.status, fleet.reserved, gpus)
        manager = NodeManager(self.context, fleet, self.settings.file)
        deps = GatewayDeps(
            fleet, config, (), accounts, self._own_key, numbers, self.traces, manager
        )
        self._app = create_app(deps)
        self._app.configure(config, self.settings.digests)
        async with (
            accounts.running(),
            _counted(fleet, numbers),
            self._app.console.running(),
            _Shared(self._app.accounting, fleet) as shared,
        ):
            if self.replaces:
                shared.expect()
            server = GatewayServer(self._app, self._listeners)
            self._handle = GatewayHandle(
                "",
                self._own_key,
                hurry=server.hurry,
                sync=accounts.sync,
                listeners=server,
                unwritten=accounts.unwritten,
                shared=shared,
                start=partial(self._open, server),
                configure=partial(self._configure, server),
                attach=manager.attach,
            )
            try:
                if not self.later:
                    await self._handle.listen(0)
                yield self._handle
            finally:
                await server.stop()
                await shared.leave(accounts)
                if self.traces is not None:
                    await asyncio.to_thread(self.traces.close)

    async def _open(self, server: GatewayServer, patience: float) -> str:
        """Listen as soon as whoever has the address gives it up."""
        deadline = time.monotonic() + patience
        while True:
            try:
                await server.start()
            except ListenError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_OPEN_POLL)
            else:
                self.link.keep(server.descriptors())
                return server.url

    async def _configure(self, server: GatewayServer, settings: GatewaySettings) -> None:
        """Have the gateway, and this process's log, follow other settings. Raises ConfigError."""
        await server.configure(settings.gateway, settings.digests)
        log.configure(form=settings.gateway.log_format)
        if self._handle.url:  # it listens already
            self._handle.url = server.url
            self.link.keep(server.descriptors())

    async def announce(self, _fleet: Fleet) -> None:
        """Say that the node listens, then make ready what no model's start should wait for."""
        _tell({"url": self._handle.url})
        assert self._app is not None
        await asyncio.sleep(_FIRST_START)
        try:
            await build_validators()
            await asyncio.to_thread(self._app.surface)
        except Exception:  # noqa: BLE001 - nothing depends on it: the first request builds them
            _log.exception("the documented surface was not built ahead")
        collector.settle()


class _Shared:
    """The gateway's limits and the fleet's replicas beside another node, in tasks that end with the
    block."""

    def __init__(self, accounting: Accounting, fleet: Fleet) -> None:
        self._accounting, self._fleet = accounting, fleet
        self._channel: Channel | None = None
        """To the node that goes on in this one's place."""
        self._old: list[asyncio.Task[None]] = []
        self._new: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancelled(*self._old, *self._new)

    async def alone(self) -> None:
        if self._old:
            await asyncio.wait(self._old)

    def expect(self) -> None:
        """Admit nothing before an old node has said what is in use, or is gone."""
        self._accounting.expect()
        self._fleet.expect()

    def take_over(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        work = self._take_over(Channel(reader, writer))
        self._old.append(asyncio.create_task(work, name="the old node"))

    async def _take_over(self, channel: Channel) -> None:
        limits, leases = self._accounting.take_over(channel), self._fleet.take_over(channel)

        def known(message: Message) -> None:
            if "known" in message:
                self._known()

        late = asyncio.get_running_loop().call_later(_KNOWN, self._known)
        try:
            await channel.run(limits.handle, leases.handle, known)
        finally:
            late.cancel()
            self._known()
            limits.gone()
            leases.gone()

    async def leave(self, accounts: LiveAccounts) -> None:
        """Give what could not be written to the node that goes on."""
        with contextlib.suppress(YibuError):  # which is logged
            await accounts.sync()
        if (channel := self._channel) is not None:
            for slot, used in accounts.give().items():
                channel.send({"slot": slot, "used": dataclasses.asdict(used)})

    def _known(self) -> None:
        self._accounting.known.set()
        self._fleet.known()

    def hand_over(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channel = self._channel = Channel(reader, writer)
        self._accounting.hand_over(channel)
        self._fleet.hand_over(channel)
        channel.send({"known": True})
        self._new.append(asyncio.create_task(self._hand_over(channel), name="the new node"))

    async def _hand_over(self, channel: Channel) -> None:
        try:
            await channel.run()
        finally:
            self._channel = None
            self._fleet.alone()


@asynccontextmanager
async def _counted(fleet: Fleet, numbers: NodeMetrics) -> AsyncIterator[None]:
    """Have the starts of engines counted until the block ends."""
    with fleet.events() as events:
        counting = asyncio.create_task(numbers.watch(events, fleet), name="starts of engines")
        try:
            yield
        finally:
            await cancelled(counting)


def _tell(message: Mapping[str, Any], old_node: int | None = None) -> None:
    """One line to the command that started this process, or to the node that it was to replace;
    they may be gone already."""
    line = json.dumps(pack(message)) + "\n"
    try:
        if old_node is not None:
            os.write(old_node, line.encode())
        else:
            sys.stdout.write(line)
            sys.stdout.flush()
    except (BrokenPipeError, ConnectionError):
        _log.info("nobody reads what the node says as it starts")


if __name__ == "__main__":
    main()
