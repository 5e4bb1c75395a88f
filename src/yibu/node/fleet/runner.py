"""Carries out what the scheduler decides: prepares models, runs replicas, answers who waits."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Self

from yibu import descriptors
from yibu.config import ModelConfig
from yibu.config.names import replica_id
from yibu.errors import EngineStartError, YibuError
from yibu.node.events import EventBus
from yibu.node.fleet import readings
from yibu.node.fleet.deploy import Deployer
from yibu.node.fleet.deployment import Deployment
from yibu.node.fleet.lease import Lease
from yibu.node.housekeeping import remove_old_logs
from yibu.node.launch.process import EngineProcess
from yibu.node.launch.spec import Host, LaunchSpec
from yibu.node.scheduler import Holding, Reading, Scheduler, Waiter
from yibu.node.scheduler import types as records
from yibu.node.scheduler.types import Generation
from yibu.node.state import SavedReplica
from yibu.node.supervisor.replica import ReplicaSupervisor
from yibu.node.supervisor.sleeper import levels
from yibu.node.supervisor.start_gate import StartGate
from yibu.node.tasks import cancelled, first_of
from yibu.planner.ledger import Beside, Coming
from yibu.planner.types import Machine, ModelFacts, Placement

_log = logging.getLogger(__name__)
_TICK = 0.25
"""Seconds between two looks at what is due by time."""


class Runner:
    """The scheduler's effects on this machine. One event loop; nothing here blocks it."""

    def __init__(
        self,
        deployer: Deployer,
        host: Host,
        bus: EventBus,
        on_change: Callable[[], None],
    ) -> None:
        self.deployments: dict[Generation, Deployment] = {}
        self.supervisors: dict[str, ReplicaSupervisor] = {}
        self._deployer = deployer
        self._gate = StartGate()
        self._host = dataclasses.replace(host, start_slot=self._gate.slot)
        self._bus = bus
        self._on_change = on_change
        self._tasks: dict[object, asyncio.Task[None]] = {}
        self._group = asyncio.TaskGroup()
        self._stops: dict[str, asyncio.Event] = {}
        self._patience: float | None = None
        self._states: dict[str, tuple[object, ...]] = {}
        self._changed = asyncio.Event()
        timings = host.timings
        self.scheduler = Scheduler(
            self,
            self._place,
            name=lambda key, number: replica_id(key[0], number, key[1]),
            ready_wait=timings.ready_wait,
            min_up=timings.min_up,
            scale_down=timings.scale_down,
            foresight=timings.foresight,
        )
        self._gate.scheduler = self.scheduler

    # The lifespan.

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._spawn("tick", self._tick())
        return self

    async def stop_all(self, patience: float | None) -> None:
        """End every replica; return when all are gone."""
        self._patience = patience
        for name in self.scheduler.names():
            self.remove(name)
        while self._stops or self.deployments:
            await self.changed_again()

    async def __aexit__(self, *_: object) -> None:
        await cancelled(*self._tasks.values())
        await self._group.__aexit__(None, None, None)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            self.scheduler.tick(time.monotonic())

    def _spawn(self, key: object, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks[key] = self._group.create_task(work, name=str(key))
        task.add_done_callback(lambda _: self._tasks.pop(key, None))

    async def changed_again(self) -> None:
        """Wait for the next change of anything."""
        await self._changed.wait()

    def _tell(self) -> None:
        """Everyone who waits wakes once; whoever waits again waits for the next change."""
        self._changed.set()
        self._changed = asyncio.Event()
        self._on_change()

    # Models.

    def add(
        self, config: ModelConfig, *, start: bool | None, created: int, generation: int = 0
    ) -> Generation:
        """Serve this configuration from now on."""
        now = time.monotonic()
        key = (config.name, generation or self.scheduler.next_number(config.name))
        self._deployment(key, config, created)
        return self.scheduler.desire(config, now, start=start, generation=key[1])

    def adopt(
        self,
        config: ModelConfig,
        generation: int,
        created: int,
        found: Sequence[tuple[SavedReplica, EngineProcess]],
        *,
        start: bool,
    ) -> None:
        """Go on with engines of an earlier node; ``start``: the model is wanted in memory."""
        deployment = self._deployment((config.name, generation), config, created)
        running = []
        for saved, process in found:
            spec = saved.spec
            deployment.hold_adopted(spec)
            if saved.port is not None:
                self._host.ports.keep(saved.port)
            running.append(saved.record(deployment.key))
            self._run(deployment, saved.id, saved.number, self._resume(deployment, saved, process))
        self.scheduler.adopt(config, generation, running, time.monotonic(), start=start)

    def _deployment(self, key: Generation, config: ModelConfig, created: int) -> Deployment:
        deployment = Deployment(key, config, self._deployer, self._host, self._bus, created)
        self.deployments[key] = deployment
        return deployment

    def adjust(self, config: ModelConfig) -> Generation:
        """Serve the model with this configuration, which its engines need not know of."""
        found = self.scheduler.model(config.name)
        assert found is not None
        self.deployments[found.generations()[-1].key].adjust(config)
        key = self.scheduler.adjust(config, time.monotonic())
        self._tell()
        return key

    def remove(self, model: str) -> None:
        """Serve it no longer."""
        self.scheduler.remove(model, time.monotonic())
        self._sweep()
        self._tell()

    # Effects: yibu.node.scheduler.Effects.

    def prepare(self, generation: Generation) -> None:
        deployment = self.deployments[generation]
        self._spawn(("prepare", generation), self._prepare(deployment))

    async def _prepare(self, deployment: Deployment) -> None:
        key = deployment.key
        desired = self.scheduler.desired(key)
        rehearse = desired is not None and not desired.started

        def foreseen(facts: ModelFacts | None) -> None:
            self.scheduler.foreseen(key, facts, time.monotonic())

        async def work() -> None:
            await asyncio.to_thread(remove_old_logs, self._host.paths.logs, *key)
            await deployment.prepare(foreseen, rehearse=rehearse)

        try:
            await descriptors.regained(deployment.name, work)
        except YibuError as error:
            self._unprepared(deployment, error)
        except Exception as defect:  # noqa: BLE001 - keeps a defect from the other models
            _log.exception("deploying %s", deployment.name)
            self._unprepared(deployment, _defect(deployment.name, defect))
        else:
            assert deployment.fetched is not None
            self.scheduler.prepared(key, deployment.fetched.facts, time.monotonic())

    def _unprepared(self, deployment: Deployment, error: YibuError) -> None:
        self.scheduler.unprepared(deployment.key, error, time.monotonic())

    def read_memory(self) -> None:
        self._spawn("read memory", self._read_memory())

    async def _read_memory(self) -> None:
        self.scheduler.memory_read(await readings.patiently(self.reading), time.monotonic())

    def reading(self) -> Reading:
        """The machine's memory, and what engines hold of it. Blocking."""
        return Reading(self._deployer.machine(), self.holdings())

    def holdings(self) -> dict[str, Holding]:
        """What the processes of each replica hold. Blocking."""
        running = list(self.supervisors.items())
        return readings.holdings({name: one.process for name, one in running if one.process})

    def _place(
        self, generation: Generation, number: int, machine: Machine, beside: Beside
    ) -> Placement:
        deployment = self.deployments[generation]
        assert deployment.fetched is not None
        coming = tuple(self._with_request(one) for one in beside.coming)
        beside = dataclasses.replace(beside, coming=coming)
        try:
            prepared = dataclasses.replace(deployment.fetched.prepared, model=deployment.config)
            resolved = self._deployer.place(prepared, number, machine, beside)
            placement, deployment.launches[number] = resolved.runs()
        except YibuError:
            raise
        except Exception as defect:  # keeps a defect from the other models
            _log.exception("placing %s", deployment.name)
            raise _defect(deployment.name, defect) from defect
        return placement

    def _with_request(self, coming: Coming) -> Coming:
        """What is known of a model that comes up too."""
        for deployment in self.deployments.values():
            if deployment.config is coming.config and deployment.fetched:
                return dataclasses.replace(coming, request=deployment.fetched.prepared.request)
        return coming

    def waits(self, generation: Generation, others: Sequence[str]) -> None:
        self.deployments[generation].waits_for(others)

    def yields(self, generation: Generation, others: Sequence[str]) -> None:
        self.deployments[generation].displaces(others)

    def start(self, replica: records.Replica) -> None:
        deployment = self.deployments[replica.generation]
        assert replica.placement is not None
        work = self._deploy(deployment, replica.id, replica.number, replica.placement)
        self._run(deployment, replica.id, replica.number, work)

    def _run(
        self, deployment: Deployment, replica: str, number: int, work: Coroutine[Any, Any, None]
    ) -> None:
        self._stops[replica] = asyncio.Event()
        self._spawn(("replica", replica), self._to_the_end(deployment, replica, number, work))

    async def _to_the_end(
        self, deployment: Deployment, replica: str, number: int, work: Coroutine[Any, Any, None]
    ) -> None:
        try:
            await work
        finally:
            self._stops.pop(replica, None)
            self._states.pop(replica, None)
            self.supervisors.pop(replica, None)
            deployment.replicas.pop(number, None)
            self.scheduler.replica_ended(replica, time.monotonic())
            deployment.show()
            self._sweep()
            self._tell()

    async def _deploy(
        self, deployment: Deployment, replica: str, number: int, placement: Placement
    ) -> None:
        """From a placement to a running replica, until that has ended."""
        stop = self._stops[replica]
        try:
            work = partial(deployment.spec_of, number, placement)
            async with first_of(descriptors.regained(replica, work), stop.wait()) as (spec, _):
                if stop.is_set():
                    return
                supervisor = self._supervisor(deployment, replica, number, spec.result())
        except YibuError as error:
            await self._not_started(replica, error)
            return
        except Exception as defect:  # noqa: BLE001 - keeps a defect from the other models
            _log.exception("starting %s", replica)
            await self._not_started(replica, _defect(replica, defect))
            return
        await supervisor.run()

    async def _not_started(self, replica: str, error: YibuError) -> None:
        """Tell why it never began to start, and wait until it is not wanted any more."""
        self.scheduler.replica_changed(replica, "failed", time.monotonic(), error=error)
        if (stop := self._stops.get(replica)) is not None:
            await stop.wait()

    async def _resume(
        self, deployment: Deployment, saved: SavedReplica, process: EngineProcess
    ) -> None:
        supervisor = self._supervisor(deployment, saved.id, saved.number, saved.spec, saved)
        if self._stops[saved.id].is_set():  # it is not wanted any more
            supervisor.ask_stop(self._patience)
        await supervisor.run(process)

    def _supervisor(
        self,
        deployment: Deployment,
        replica: str,
        number: int,
        spec: LaunchSpec,
        saved: SavedReplica | None = None,
    ) -> ReplicaSupervisor:
        def moved(supervisor: ReplicaSupervisor) -> None:
            self._moved(deployment, supervisor)

        names = ("restarts", "key", "port", "asleep")
        kept = {name: getattr(saved, name) for name in names} if saved else {}
        supervisor = ReplicaSupervisor(replica, spec, self._host, moved, **kept)
        self.supervisors[replica] = deployment.replicas[number] = supervisor
        return supervisor

    def _moved(self, deployment: Deployment, replica: ReplicaSupervisor) -> None:
        deployment.moved(replica)
        told = (replica.state, replica.due)
        if replica.state in ("starting", "ready", "sleeping", "draining", "failed") and (
            self._states.get(replica.id) != told
        ):
            self._states[replica.id] = told
            self.scheduler.replica_changed(
                replica.id,
                replica.state,
                time.monotonic(),
                slots=replica.spec.plan.slots,
                sleeps=levels(replica.spec.plan.sleep),
                slept=replica.asleep.level if replica.asleep else None,
                due=replica.due,
                error=replica.error,
            )
        elif replica.state == "ready":
            self.scheduler.replica_silent(replica.id, time.monotonic(), silent=replica.silent)
        self._tell()

    def suspend(self, replica: str, level: int) -> None:
        self.supervisors[replica].ask_sleep(level)

    def wake(self, replica: str) -> None:
        self.supervisors[replica].ask_wake()

    def let_start(self, replica: str) -> None:
        self._gate.open(replica)

    def stop(self, replica: str) -> None:
        if (stop := self._stops.get(replica)) is not None:
            stop.set()
        if (supervisor := self.supervisors.get(replica)) is not None:
            supervisor.ask_stop(self._patience)

    def grant(self, waiter: Waiter, replica: str) -> bool:
        assert isinstance(waiter, Lease)
        return waiter.taken(self.supervisors[replica])

    def refuse(self, waiter: Waiter, error: YibuError) -> None:
        assert isinstance(waiter, Lease)
        waiter.refused(error)

    def not_ready(self, model: str, retry_after: float) -> YibuError:
        deployment = self.current(model)
        assert deployment is not None
        deployment.refresh(self.scheduler.desired(deployment.key))
        return deployment.not_ready(retry_after)

    def changed(self, model: str) -> None:
        for deployment in list(self.deployments.values()):
            if deployment.name == model:
                deployment.refresh(self.scheduler.desired(deployment.key))
        self._sweep()
        self._tell()

    def current(self, model: str) -> Deployment | None:
        """The generation of a model that serves."""
        found = self.scheduler.model(model)
        return None if found is None else self.deployments.get(found.current.key)

    def _sweep(self) -> None:
        """Forget generations of which nothing is left."""
        for key, deployment in list(self.deployments.items()):
            if self.scheduler.desired(key) is not None:
                continue
            preparing = self._tasks.get(("prepare", key))
            if preparing is not None:
                preparing.cancel()
            if not deployment.replicas and not any(
                replica_id(key[0], number, key[1]) in self._stops for number in range(64)
            ):
                deployment.waiting = "stopped"
                deployment.close()
                del self.deployments[key]


def _defect(name: str, defect: Exception) -> EngineStartError:
    return EngineStartError(
        "{name}: a defect in yibu: {defect!r}", name=name, defect=defect, cause="defect"
    )
