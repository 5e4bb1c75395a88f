"""Traces of two nodes' lives over simulated engines, against what must always hold of their requests.

In every moment: who gets a replica gets one that is ready, and the scheduler knows of a replica what its
supervisor does; ``max_concurrency`` and ``max_queue`` hold for both nodes together. In the end: every
request has had its replica or its refusal, and nothing counts as waiting or in flight.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import socket
from collections import Counter
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.node.simulated import Engines
from tests.node.support import NoGpu, explain, fake_deployer, fake_model, placing
from tests.support import virtual_time
from yibu.config import ModelConfig
from yibu.daemon import _Shared
from yibu.engines.sleep import SleepLevel, SleepPlan
from yibu.errors import DoesNotFitError, RequestError, YibuError
from yibu.gateway.limits import Accounting
from yibu.node.fleet.fleet import Fleet
from yibu.node.fleet.lease import Lease
from yibu.node.handover.ownership import Ownership
from yibu.node.launch.spec import Host
from yibu.node.machine.ports import Ports
from yibu.node.scheduler import types as records
from yibu.node.state import SavedModel, SavedNode
from yibu.node.timings import Timings
from yibu.node.upgrade import adopted
from yibu.paths import Paths
from yibu.planner.types import Machine, MemoryNeed, Placement

NAMES = "ab"
TOTAL = 100
MAX_QUEUE = 4
MOST = 6
"""Requests that all replicas of a model work on at most; while it is not loaded, as many more wait."""
TIMINGS = Timings(failure_limit=3, drain=5.0, scale_down=10.0, min_up=2.0)


class Memory:
    """In the place of the state file."""

    def save(self, models: list[SavedModel]) -> None: ...


class Node:
    """A fleet as ``yibu.node.node`` and ``yibu.daemon`` have it."""

    def __init__(self, engines: Engines, paths: Paths, *, owned: bool | None = True) -> None:
        self.ownership = Ownership(owned)
        host = Host(paths, "home", {}, Ports(engines.chance), TIMINGS, explain, NoGpu(),
                    ownership=self.ownership)  # fmt: skip
        deployer = fake_deployer(
            machine=lambda: Machine("m", 2, 2, TOTAL, TOTAL - engines.used), place=placing(_place)
        )
        self.fleet = Fleet(deployer, host, Memory())  # type: ignore[arg-type]
        self.shared = _Shared(Accounting(None, self.fleet.route), self.fleet)
        self.stack = contextlib.AsyncExitStack()
        self.clients: dict[asyncio.Task[None], None] = {}
        self.ends: list[Any] = []
        """Of its connections with other nodes."""

    @property
    def scheduler(self) -> Any:
        return self.fleet._scheduler

    async def begin(self) -> None:
        await self.stack.enter_async_context(self.fleet)

    async def connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        end = self.ends.pop()
        connecting = asyncio.create_task(asyncio.open_connection(sock=end))
        try:
            return await asyncio.shield(connecting)
        finally:  # also where its node is killed in this moment
            self.ends.append((await connecting)[1])

    async def leave(self) -> None:
        async with asyncio.timeout(100):
            await self.shared.__aexit__()
            for end in self.ends:
                end.close()
            await self.stack.aclose()

    async def killed(self) -> None:
        """With its clients; its engines go on."""
        self.ownership.decide(False)
        for client in self.clients:
            client.cancel()
        await self.leave()


def _place(config: ModelConfig, _facts: object, _number: int, beside: Any) -> Placement:
    held = sum(one.missing for one in (*beside.starting, *beside.held))
    size = config.options["size"]
    if size + held > TOTAL:  # the machine's own figure is as it was when it was read
        raise DoesNotFitError(f"{size} beside {held}")
    return Placement((), 1, None, 1, MemoryNeed(size, 0, 0))


class World:
    def __init__(self, seed: int, trouble: float, paths: Paths) -> None:
        self.chance = random.Random(seed)
        self.engines = Engines(self.chance, trouble)
        self.paths = paths
        self.node = Node(self.engines, paths)
        """The one that commands reach."""
        self.old: Node | None = None
        self.upgrading: asyncio.Task[None] | None = None
        self.tasks: list[asyncio.Task[Any]] = []
        self.verbs: set[asyncio.Task[None]] = set()
        self.has: Counter[str] = Counter()
        """Requests that replicas work on, as their clients know it."""
        self.outcomes: Counter[str] = Counter()
        self.lost = False
        """The node was killed in whose hands the engines were."""

    # What people and clients do.

    def entry(self, name: str) -> ModelConfig:
        chance = self.chance
        levels = tuple(SleepLevel(n, 0, (), ()) for n in (1, 2))
        sleep = SleepPlan(levels, "/asleep", "asleep") if chance.random() < 0.5 else None
        return fake_model(
            name,
            options={"plan": {"slots": chance.choice([None, 2]), "sleep": sleep},
                     "size": chance.choice([5, 20, 40])},
            keep=chance.choice(["always", "idle", "idle", "manual"]),
            idle=chance.choice([1.0, 10.0]),
            asleep=chance.choice([5.0, 50.0]),
            replicas=chance.choice([1, 2]),
            max_concurrency=chance.choice([1, 2]),
            max_queue=MAX_QUEUE,
            queue_timeout=chance.choice([5.0, 60.0]),
        )  # fmt: skip

    def do(self, what: str) -> None:
        name = self.chance.choice(NAMES)
        if what in ("crash", "hang", "silent", "heard"):
            self._befalls_an_engine(what)
        elif what == "leave":
            if clients := [client for node in self.nodes() for client in node.clients]:
                self.chance.choice(clients).cancel()
        elif what == "kill":
            if self.upgrading is not None and not self.upgrading.cancelling():
                self.upgrading.cancel()  # wherever it is
        elif what == "upgrade":
            if self.upgrading is None and not self.lost:
                self.upgrading = asyncio.create_task(self._upgrade())
        elif what == "ask":
            for _ in range(self.chance.choice([1, 3])):
                self._ask(self.chance.choice(self.nodes()), name)
        else:
            self._command(what, name)

    def _command(self, what: str, name: str) -> None:
        fleet, known = self.node.fleet, self.node.scheduler.model(name) is not None
        if what == "up" or not known:
            self._verb(fleet.up(self.entry(name), start=self.chance.random() < 0.3))
        elif what == "adjust":
            latest = self.node.scheduler.model(name).generations()[-1].config
            most = self.chance.choice([1, 2])
            self._verb(fleet.up(dataclasses.replace(latest, max_concurrency=most)))
        elif what == "scale":
            self._verb(fleet.scale(name, self.chance.choice([1, 2, 3])))
        else:
            self._verb(getattr(fleet, what)(name))

    def _ask(self, node: Node, name: str) -> None:
        client = asyncio.create_task(self._request(node, name))
        node.clients[client] = None
        client.add_done_callback(node.clients.pop)
        self.tasks.append(client)

    def nodes(self) -> list[Node]:
        return [self.node] if self.old is None else [self.node, self.old]

    def _verb(self, work: Any) -> None:
        async def quietly() -> None:
            with contextlib.suppress(YibuError):
                await work

        if self.upgrading is not None or self.lost:  # the node takes no commands
            work.close()
            return
        task = asyncio.create_task(quietly(), name=work.__qualname__)
        self.verbs.add(task)
        task.add_done_callback(self.verbs.discard)
        self.tasks.append(task)

    def _befalls_an_engine(self, what: str) -> None:
        engines = [engine for engine in self.engines.living.values() if engine.up]
        if not engines:
            return
        engine = self.chance.choice(engines)
        if what == "crash":
            self.engines.end(engine)
        for watch in list(engine.watches):
            if what == "hang":
                watch.hangs.set()
            elif what != "crash":
                watch.heard(what == "heard")

    async def _request(self, node: Node, name: str) -> None:
        exclude: frozenset[str] = frozenset()
        for _ in range(2):
            failed = await self._attempt(node, name, exclude)
            if failed is None:
                return
            exclude |= {failed}

    async def _attempt(self, node: Node, name: str, exclude: frozenset[str]) -> str | None:
        """The replica, where it failed."""
        key = self.chance.choice(["k1", "k2"])
        try:
            lease = node.fleet.acquire(name, key=key, exclude=exclude)
            await lease.granted()
        except RequestError as error:
            self.outcomes[type(error).__name__] += 1
            return None
        endpoint = lease.endpoint
        engine = self.engines[endpoint]
        self.outcomes["granted"] += 1
        self.has[endpoint.replica] += 1
        failed = engine is None
        if engine is not None:
            engine.requests += 1
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.chance.choice([0, 0.3, 3, 20])):
                    if engine is not None:
                        await engine.ended.wait()
                        failed = True
        finally:
            self.has[endpoint.replica] -= 1
            if engine is not None:
                engine.requests -= 1
            lease.release(failed=failed)
        return endpoint.replica if failed else None

    # Another node in this one's place.

    async def _upgrade(self) -> None:
        """As ``yibu.node.upgrade`` and ``yibu.node.node`` do it. Whoever cancels it kills one of the two."""
        try:
            await self._replace()
        except asyncio.CancelledError:
            if self.old is None:  # nothing was handed over: the earlier node takes all back
                self.node.ownership.decide(True)
            else:
                killed, other = self.node, self.old
                if self.chance.random() < 0.5:
                    killed, other = other, killed
                self.lost = killed is self.node
                self.node, self.old = other, None
                other.ownership.decide(not self.lost)
                await killed.killed()
        self.upgrading = None

    async def _replace(self) -> None:
        old, coming = self.node, ("pending", "downloading", "starting")
        await old.fleet.changed()
        if self.verbs or any(model.state in coming for model in old.fleet.routes()):
            return
        old.ownership.decide(None)
        new = Node(self.engines, self.paths, owned=None)
        try:
            await new.begin()
            models = tuple(old.fleet._save(each) for each in old.fleet._current())
            await adopted(new.fleet, await new.fleet.adopt(SavedNode("boot", models)))
            new.shared.expect()
            await self._moment()
            for node, end in zip((old, new), socket.socketpair(), strict=True):
                node.ends.append(end)
            connection = await new.connected()
        except asyncio.CancelledError:
            await new.killed()
            raise
        # Whatever becomes of the old node now, the new one listens to its end of the connection.
        self.old, self.node = old, new
        new.ownership.decide(True)
        new.shared.take_over(*connection)
        await self._moment()
        old.ownership.decide(False)
        old.shared.hand_over(*await old.connected())
        while old.clients:
            await self._moment()
        self.old = None
        await old.leave()

    async def _moment(self) -> None:
        await asyncio.sleep(self.chance.choice([0, 0.1, 2]))

    # What always holds.

    def taken(self, lease: Lease, supervisor: Any, real: Any) -> bool:
        given: bool = real(lease, supervisor)
        record = self._record(supervisor)
        if given and record is not None:
            assert supervisor.state == "ready", f"{supervisor.id} is {supervisor.state}"
            assert lease.found is not None
            if not self.lost and record.slots is not None:
                has = self.has[supervisor.id]
                assert has < record.slots, f"{supervisor.id} has {has} of {record.slots}"
        return given

    def _record(self, supervisor: Any) -> records.Replica | None:
        """What the scheduler of its node knows of it; None: of a node that was killed, or is another."""
        for node in self.nodes():
            if node.fleet._runner.supervisors.get(supervisor.id) is supervisor:
                found: records.Replica = node.scheduler._replicas[supervisor.id]
                return found
        return None

    def check(self) -> None:
        if self.upgrading is not None and self.upgrading.done():
            self.upgrading.result()
        for node in self.nodes():
            for record in node.scheduler._replicas.values():
                if record.state == "ready":
                    supervisor = node.fleet._runner.supervisors[record.id]
                    assert supervisor.state == "ready", f"{record.id} is {supervisor.state}"
                    assert supervisor.silent == record.silent
            for name in node.scheduler.names():
                model = node.scheduler.model(name)
                assert len(model.queue) <= MAX_QUEUE + MOST

    def check_end(self) -> None:
        for node in self.nodes():
            for record in node.scheduler._replicas.values():
                assert record.in_flight == 0, f"{record.id} has {record.in_flight} for good"
            for name in node.scheduler.names():
                queue = node.scheduler.model(name).queue
                assert not len(queue)
                assert not queue._in_flight, f"{name} has {queue._in_flight} for good"
            for supervisor in node.fleet._supervisors:
                assert not supervisor.requests

    async def live(self, steps: list[tuple[str, float]]) -> None:
        await self.node.begin()
        for name in NAMES:
            self._verb(self.node.fleet.up(self.entry(name), start=True))
        await asyncio.sleep(4)
        for what, pause in steps:
            self.do(what)
            await asyncio.sleep(pause)
            self.check()
        await asyncio.sleep(0)
        done, late = await asyncio.wait(self.tasks, timeout=600) if self.tasks else ((), ())
        assert not late, f"these never end: {late}"
        for task in done:
            if not task.cancelled():
                task.result()
        if self.upgrading is not None:
            await asyncio.wait_for(self.upgrading, 600)
        await asyncio.sleep(1)
        self.check()
        self.check_end()
        await self.node.leave()
        await asyncio.sleep(1)
        assert not self.engines.living or self.lost


COMMON = ["ask"] * 9 + ["leave"] * 3 + ["crash", "silent", "heard", "upgrade", "kill"] * 2
RARE = ["hang", "up", "adjust", "down", "load", "unload", "restart", "scale"]
PAUSES = [0, 0, 0, 0.01, 0.01, 0.3, 0.3, 2, 12]
STEPS = st.lists(
    st.tuples(st.sampled_from(COMMON + RARE), st.sampled_from(PAUSES)), min_size=20, max_size=40
)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    found = Paths.from_env({"YIBU_HOME": str(tmp_path_factory.mktemp("home"))})
    found.make()
    return found


@given(seed=st.integers(0, 2**32), trouble=st.sampled_from([0, 0.1]), steps=STEPS)
def test_a_trace(seed: int, trouble: float, steps: list[tuple[str, float]], paths: Paths) -> None:
    world, real = World(seed, trouble, paths), Lease.taken

    def taken(lease: Lease, supervisor: Any) -> bool:
        return world.taken(lease, supervisor, real)

    with world.engines.in_place(), mock.patch.object(Lease, "taken", taken):
        virtual_time.run(world.live(steps))
