"""The node: one process that owns a home's replicas and its gateway, from lock to exit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from yibu.config.settings import GatewaySettings
from yibu.node.control.control import Control, GatewayHandle, Stopping
from yibu.node.control.server import ControlServer
from yibu.node.fleet.deploy import Deployer
from yibu.node.fleet.fleet import Fleet
from yibu.node.handover.current import CurrentSettings
from yibu.node.handover.holder_link import HolderLink
from yibu.node.handover.ownership import Ownership
from yibu.node.history import History
from yibu.node.launch.spec import Host
from yibu.node.lock import HomeLock, node_lock
from yibu.node.logs import LogRotation
from yibu.node.machine.gpu import GpuMemory, Nvml
from yibu.node.machine.orphans import become_subreaper
from yibu.node.machine.ports import Ports
from yibu.node.state import StateFile, home_id
from yibu.node.tasks import first_of
from yibu.node.timings import Timings
from yibu.node.upgrade import Predecessor, Upgrade, adopted
from yibu.paths import Paths

_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOCKED = 60.0
"""Seconds that a node which was started again waits for the home's lock."""

Gateway = Callable[[Fleet], AbstractAsyncContextManager[GatewayHandle]]
"""Serves HTTP on the fleet inside the context, and gives its handle. It installs no signal
handlers, and on leaving lets answers that are being sent finish."""


@dataclass(frozen=True, slots=True)
class Node:
    """Everything is in :meth:`run`; the fields say with what."""

    paths: Paths
    deployer: Deployer
    gateway: Gateway
    prepare: Callable[[], None]
    """Takes what must be had before engines are adopted, the gateway's port above all: a node
    that cannot be must not end the engines of the one before it."""
    env: Mapping[str, str] = field(repr=False)
    """What engines inherit, less credentials."""
    timings: Timings = field(default_factory=Timings)
    rotation: LogRotation = field(default_factory=LogRotation)
    gpu_memory: GpuMemory = field(default_factory=Nvml)
    settings: GatewaySettings = field(default_factory=GatewaySettings)
    """What the gateway starts with."""
    secrets: Sequence[str] = field(default=(), repr=False)
    """The keys, as far as they are known."""
    link: HolderLink = field(default_factory=HolderLink)
    handed: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Descriptors of a node whose place this one takes: ``lock`` and ``handover``."""

    async def run(self, work: Callable[[Fleet], Any] | None = None) -> None:
        """Serve until SIGTERM, SIGINT, SIGHUP or a shutdown request; then drain and end all.

        ``work`` is an async function that is run beside (``yibu up`` deploys its models there,
        and shows their events); its error ends the node. A second signal cuts the drain short.

        Raises:
            AlreadyRunningError: another node holds this home.
        """
        self.paths.make()
        node = {"pid": os.getpid(), "started": int(time.time()), "instance": secrets.token_hex(8)}
        gateway = GatewayHandle("")
        stopping = Stopping()
        before = Predecessor(_one(self.handed, "handover"))
        current = CurrentSettings(self.settings, self.secrets, self.link)

        def shown() -> dict[str, Any]:
            told = {"url": gateway.url, "unwritten": gateway.unwritten()}
            return {"node": {**node, "holder": self.link.pid}, "gateway": told}

        async with AsyncExitStack() as stack:
            lock = stack.enter_context(self._lock(before))
            self.prepare()
            stack.enter_context(_signals(stopping))
            become_subreaper()
            state = StateFile(self.paths.state / "node.json")
            host = self._host(Ownership(None if before else True))
            if before:
                await asyncio.to_thread(state.read)
                state.hold()
            await before.let_go()
            fleet = await stack.enter_async_context(
                Fleet(self.deployer, host, state, rotation=self.rotation)
            )
            stack.callback(host.ownership.settle)
            saved = await asyncio.to_thread(state.read if before else state.load)
            await adopted(fleet, await fleet.adopt(saved))
            gateway = await stack.enter_async_context(self.gateway(fleet))
            current.attach(gateway.configure)
            history = History(self.paths.history)
            upgrade = Upgrade(fleet, host.ownership, state, gateway, lock, self.link, stopping,
                              self.paths.node_log, current)  # fmt: skip
            control = Control(fleet, shown, gateway, stopping, current, history, upgrade.run)
            server = ControlServer(self.paths.control_socket, control)
            gateway.attach(control)
            upgrade.control = await stack.enter_async_context(server)
            lock.note(self.link.pid)
            self.link.watch(lambda: lock.note(None))
            await before.leave(node, gateway.shared)
            host.ownership.decide(True)
            await asyncio.to_thread(state.release)
            _log.info("node %d serves %s", os.getpid(), gateway.url)
            await _until(stopping.asked, work(fleet) if work else None)
            if stopping.replaced:
                await self._retire(gateway, current, stopping.hurry)
                return
            self.link.stopping()
            lock.note(None)
            if not await self._drain(fleet, current, stopping.hurry):
                gateway.hurry()

    def _lock(self, before: Predecessor) -> AbstractContextManager[HomeLock]:
        # Where a node was killed while it was replaced, the other one has the lock until it notices.
        patience = _LOCKED if self.handed.get("gateway") and not before else 0.0
        return node_lock(self.paths.node_lock, _one(self.handed, "lock"), self.link.pid, patience)

    async def _retire(
        self, gateway: GatewayHandle, current: CurrentSettings, hurry: asyncio.Event
    ) -> None:
        """Answer what was accepted before another node took this one's place."""
        seconds = current.value.gateway.drain_timeout
        _log.info("replaced: %g s for clients that are connected", seconds)
        async with first_of(_left(gateway), hurry.wait()):
            gateway.hurry()

    async def _drain(self, fleet: Fleet, current: CurrentSettings, hurry: asyncio.Event) -> bool:
        """Whether every request has had its answer."""
        seconds = current.value.gateway.drain_timeout
        _log.info("draining: %g s for requests in flight", seconds)
        async with first_of(fleet.drain(seconds), hurry.wait()) as (drained, _):
            whole = drained.done() and bool(drained.result())
        if not whole:
            _log.warning("requests were still in flight when their time was up")
        return whole

    def _host(self, ownership: Ownership) -> Host:
        return Host(
            paths=self.paths,
            home_id=home_id(self.paths.state),
            env=self.env,
            ports=Ports(),
            timings=self.timings,
            explain=self.deployer.explain,
            phase_marks=self.deployer.phase_marks,
            gpu_memory=self.gpu_memory,
            ownership=ownership,
        )


async def _left(gateway: GatewayHandle) -> None:
    """Wait until no client is connected, and until no node before this one asks for anything: it
    counts for that one too."""
    assert gateway.listeners is not None
    await gateway.listeners.retire()
    if gateway.shared is not None:
        await gateway.shared.alone()


def _one(handed: Mapping[str, Sequence[int]], name: str) -> int | None:
    return next(iter(handed.get(name, ())), None)


async def _until(stop: asyncio.Event, work: Any) -> None:
    """Wait for ``stop``; an error of ``work`` ends the waiting and is raised."""
    stopping = asyncio.create_task(stop.wait(), name="stop")
    tasks = [stopping]
    if work is not None:
        tasks.append(asyncio.ensure_future(work))
    try:
        while not stopping.done():
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()
                tasks.remove(task)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def _signals(stopping: Stopping) -> Iterator[None]:
    """The first signal asks to stop, the second to hurry; nothing else is done in a handler."""
    loop = asyncio.get_running_loop()

    def received() -> None:
        stopping.ask(hurry=stopping.asked.is_set())

    for number in _SIGNALS:
        loop.add_signal_handler(number, received)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
