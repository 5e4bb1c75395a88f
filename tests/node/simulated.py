"""Simulated engines below the real supervisors: a trace says when they answer, hang, sleep and end.

Everything above is real: ``Fleet``, ``Runner``, ``Scheduler``, ``Replica``, leases, and the channel between
two nodes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from yibu.engines.base import Endpoint
from yibu.errors import EngineStartError
from yibu.node.launch.spec import Host, LaunchSpec, Life, Running
from yibu.node.machine.processes import Identity
from yibu.node.scheduler import Holding
from yibu.node.supervisor.sleeper import Asleep, SleepError
from yibu.node.tasks import to_its_end

_PIDS = itertools.count(1000)


@dataclass(eq=False)
class Engine:
    """The process, and what is to be known of it from outside."""

    port: int
    size: int
    identity: Identity = field(default_factory=lambda: Identity(next(_PIDS), 1))
    shared: tuple[()] = ()
    up: bool = False
    asleep: bool = False
    requests: int = 0
    """Those of clients that are connected."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    watches: dict[Watch, None] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        return self.identity.pid

    @property
    def marker(self) -> str:
        return f"home/{self.pid}"

    @property
    def exited(self) -> bool:
        return self.ended.is_set()

    async def wait(self) -> int:
        await self.ended.wait()
        return -9


class Watch:
    """As ``yibu.node.supervisor.watch.Watch``, told by the trace instead of by health checks."""

    def __init__(
        self, _host: Host, _spec: LaunchSpec, replica: str, running: Running,
        heard: Callable[[bool], None],
    ) -> None:  # fmt: skip
        self.replica, self.heard = replica, heard
        self.engine: Any = running.process
        self.hangs = asyncio.Event()

    def progressed(self) -> None: ...

    def check_now(self) -> None: ...

    async def trouble(self, _in_flight: object) -> EngineStartError:
        self.engine.watches[self] = None
        waits = [asyncio.ensure_future(each.wait()) for each in (self.engine.ended, self.hangs)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self.engine.watches[self]
            for each in waits:
                each.cancel()
        return EngineStartError(f"{self.replica}: it ended", cause="hung")


class Engines:
    """Those of one machine, whichever node supervises them."""

    def __init__(self, chance: random.Random, trouble: float) -> None:
        self.chance, self.trouble = chance, trouble
        self.living: dict[int, Engine] = {}
        """By port."""

    def __getitem__(self, endpoint: Endpoint) -> Engine | None:
        return self.living.get(endpoint.port)

    def end(self, engine: Engine) -> None:
        engine.up = False
        engine.ended.set()
        if self.living.get(engine.port) is engine:
            del self.living[engine.port]

    def holdings(self, _processes: object) -> dict[str, Holding]:
        return {}

    def process_of(self, saved: Any, _boot: str) -> Engine | None:
        engine = self.living.get(saved.port)
        return engine if engine is not None and engine.identity == saved.process else None

    @property
    def used(self) -> int:
        return sum(engine.size for engine in self.living.values() if not engine.asleep)

    async def end_marked(self, _home: str, spared: Collection[str], **_: object) -> int:
        """What a node that begins does with the engines that it does not adopt."""
        left = [engine for engine in self.living.values() if engine.marker not in spared]
        for engine in left:
            assert not engine.requests, f"{engine} is ended with {engine.requests} requests"
            self.end(engine)
        return len(left)

    # In the places of yibu.node.launch.launch's functions.

    async def start(
        self, host: Host, spec: LaunchSpec, replica: str, port: int, _key: str,
        on_spawn: Callable[[Any], None], _on_phase: object,
    ) -> Running:  # fmt: skip
        if not await host.ownership.decided():
            raise EngineStartError("another node owns the engines now", cause="upgraded")
        assert port not in self.living, "two engines on one port"
        engine = self.living[port] = Engine(port, spec.memory)
        on_spawn(engine)
        try:
            await self._a_while(3)
            if engine.exited or self._fails():
                raise EngineStartError(f"{replica} did not start", cause="x")
        except BaseException:
            await self.take_down(host, spec, engine)
            raise
        engine.up = True
        return self.found(host, spec, replica, port, _key, engine)

    async def adopt(
        self, host: Host, spec: LaunchSpec, replica: str, port: int, key: str, engine: Engine
    ) -> Running | None:
        try:
            await self._a_while(0.5)
        except BaseException:
            await self.take_down(host, spec, engine)
            raise
        if engine.exited or not engine.up or self._fails():
            await self.take_down(host, spec, engine)
            return None
        return self.found(host, spec, replica, port, key, engine)

    def found(
        self, _host: Host, _spec: LaunchSpec, replica: str, port: int, _key: str, engine: Any
    ) -> Running:
        return Running(
            engine, Endpoint(replica, "127.0.0.1", port), None, Life(Path("/"), 0, 0, 0.0)
        )

    async def take_down(self, host: Host, _spec: object, engine: Engine, *_: object) -> None:
        async def work() -> None:
            if await host.ownership.decided():
                await self._a_while(1)
                self.end(engine)

        await to_its_end(work())

    # In those of yibu.node.supervisor.sleeper's.

    async def is_asleep(self, endpoint: Endpoint, _plan: object) -> bool:
        engine = await self._asked(endpoint)
        return engine.asleep

    async def fall_asleep(self, endpoint: Endpoint, _plan: object, level: int) -> Asleep:
        engine = await self._asked(endpoint)
        engine.asleep = True
        return Asleep(level, "")

    async def wake(self, endpoint: Endpoint, _plan: object, _asleep: object) -> None:
        engine = await self._asked(endpoint)
        engine.asleep = False

    async def _asked(self, endpoint: Endpoint) -> Engine:
        await self._a_while(1)
        engine = self[endpoint]
        if engine is None or self._fails():
            raise SleepError("no answer")
        return engine

    async def _a_while(self, most: float) -> None:
        await asyncio.sleep(self.chance.choice([0, self.chance.uniform(0, most)]))

    def _fails(self) -> bool:
        return self.chance.random() < self.trouble

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Supervisors find these engines instead of processes."""
        with contextlib.ExitStack() as stack:

            def put(where: str, what: Any) -> None:
                stack.enter_context(mock.patch(where, what))

            for name in ("start", "adopt", "found", "take_down"):
                put(f"yibu.node.launch.launch.{name}", getattr(self, name))
            for name in ("is_asleep", "fall_asleep", "wake"):
                put(f"yibu.node.supervisor.sleeper.{name}", getattr(self, name))
            put("yibu.node.supervisor.replica.EngineWatch", Watch)
            put("yibu.node.machine.ports.is_free", lambda port: port not in self.living)
            put("yibu.node.fleet.readings.holdings", self.holdings)
            put("yibu.node.fleet.left_behind.process_of", self.process_of)
            put("yibu.node.fleet.left_behind.remove_files", lambda *_: None)
            put("yibu.node.fleet.fleet.end_marked", self.end_marked)
            put("yibu.node.fleet.fleet.rotate_logs", _for_ever)
            put("yibu.node.fleet.fleet.reap_orphans", _for_ever)
            yield


async def _for_ever(*_: object) -> None:
    await asyncio.Event().wait()
