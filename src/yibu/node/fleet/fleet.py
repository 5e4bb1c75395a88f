"""All models of a node. The gateway sees it as :class:`yibu.routing.Backend`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from yibu.channel import Channel
from yibu.errors import YibuError
from yibu.node import logs
from yibu.node.events import EventBus, Subscription
from yibu.node.fleet import left_behind
from yibu.node.fleet.deploy import Deployer
from yibu.node.fleet.deployment import Deployment
from yibu.node.fleet.lease import Lease
from yibu.node.fleet.runner import Runner
from yibu.node.fleet.shared import ReplicasPredecessor, ReplicasSuccessor
from yibu.node.fleet.verbs import Verbs
from yibu.node.housekeeping import reap_orphans, rotate_logs
from yibu.node.launch.process import EngineProcess, end_marked
from yibu.node.launch.spec import Host
from yibu.node.machine import processes
from yibu.node.state import SavedModel, SavedNode, SavedReplica, StateFile
from yibu.node.supervisor.replica import ReplicaSupervisor
from yibu.node.tasks import cancelled
from yibu.planner.ledger import Reservation
from yibu.routing import Priority, ReplicaStatus, Route

_log = logging.getLogger(__name__)


class Fleet(Verbs):
    """An async context: leaving it ends every engine (:meth:`drain` first, to let requests
    finish). One event loop; no call blocks it."""

    def __init__(
        self,
        deployer: Deployer,
        host: Host,
        state: StateFile,
        *,
        rotation: logs.LogRotation | None = None,
    ) -> None:
        self._host = host
        self._state = state
        self._rotation = rotation or logs.LogRotation()
        self._bus = EventBus()
        super().__init__(Runner(deployer, host, self._bus, self._changed))
        self._named: dict[str, str] = {}
        """Which model answers to a name."""
        self._elsewhere: ReplicasSuccessor | None = None
        """The other node's scheduler, while that one grants replicas."""
        self._dirty = asyncio.Event()
        self._group = asyncio.TaskGroup()
        self._side_tasks: list[asyncio.Task[None]] = []

    # The lifespan.

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        await self._runner.__aenter__()
        self._side_tasks = [
            self._group.create_task(self._save_when_dirty(), name="save state"),
            self._group.create_task(
                rotate_logs(self._log_files, self._rotation), name="rotate logs"
            ),
            self._group.create_task(reap_orphans(self._engine_pids), name="reap orphans"),
        ]
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._scheduler.close()
        try:
            await self._runner.stop_all(patience=0)
        finally:
            await cancelled(*self._side_tasks)
            await self._runner.__aexit__()
            await self._group.__aexit__(None, None, None)
            await asyncio.to_thread(self._state.save, [])

    async def adopt(self, saved: SavedNode | None) -> set[str]:
        """Serve what an earlier node served: go on with engines that still run, end what cannot be
        adopted, and start what no longer runs. Returns the replicas that are adopted."""
        timings = self._host.timings
        boot = saved.boot if saved else ""
        found: list[tuple[SavedModel, list[tuple[SavedReplica, EngineProcess]]]] = []
        for model in saved.models if saved else ():
            left = [(one, left_behind.process_of(one, boot)) for one in model.replicas]
            found.append((model, [(one, process) for one, process in left if process]))
        adopted = {process.marker for _, left in found for _, process in left}
        # Before anything is started: a new engine would have a marker that is not spared.
        ended = await end_marked(
            f"{self._host.home_id}/", adopted, grace=timings.orphan_grace, kill=timings.kill
        )
        if ended:
            _log.warning("%d processes that an earlier node left behind were ended", ended)
        await asyncio.to_thread(left_behind.remove_files, self._host.paths, saved, adopted)
        for model, running in found:
            name = model.config.name
            if running:
                self._runner.adopt(
                    model.config, model.generation, model.created, running, start=model.started
                )
                _log.info("%s: %d engines adopted", name, len(running))
            else:
                self._runner.add(
                    model.config,
                    start=model.started,
                    created=model.created,
                    generation=model.generation,
                )
                _log.info("%s: nothing of it runs any more; it is deployed again", name)
        return {one.id for _, left in found for one, _ in left}

    async def drain(self, timeout: float) -> bool:
        """Refuse new requests and wait for those in flight; False on timeout."""
        self._scheduler.close()
        try:
            async with asyncio.timeout(timeout):
                await asyncio.gather(*(replica.idle() for replica in self._supervisors))
        except TimeoutError:
            return False
        return True

    def changing(self) -> list[str]:
        """Models of which an earlier configuration still runs, or another is about to take over."""
        current = self._current()
        return [each.name for each in self._runner.deployments.values() if each not in current]

    async def changed(self) -> None:
        """Wait until :meth:`changing` is empty."""
        while self.changing():
            await self._runner.changed_again()

    async def saved(self) -> None:
        """Wait until the state file is up to date."""
        await self._saved.wait()

    # What is shown of it.

    async def status(self) -> list[dict[str, Any]]:
        """The models as ``yibu ps --json`` shows them."""
        table = await asyncio.to_thread(processes.snapshot)
        return [
            _shown(deployment, table, self.queued(deployment.name))
            for deployment in self._current()
        ]

    async def reserved(self) -> list[Reservation]:
        """What its engines were planned of the machine's memory, and what they hold of it."""
        reading = await asyncio.to_thread(self._runner.holdings)
        return self._scheduler.reserved(reading)

    def events(self, models: Collection[str] | None = None) -> AbstractContextManager[Subscription]:
        """Subscribe to changes of state and to progress; see :mod:`yibu.node.events`."""
        return self._bus.subscribe(models)

    # The gateway's protocol: yibu.routing.Backend.

    def routes(self) -> Sequence[Route]:
        """Every model that has a name here, ready or not."""
        return [deployment.route for deployment in self._current()]

    def route(self, model: str) -> Route | None:
        """The route of one model, or None for an unknown name."""
        deployment = self._runner.current(self._named.get(model, model))
        return None if deployment is None else deployment.route

    def replicas(self) -> Sequence[ReplicaStatus]:
        """Every replica of every model, whatever its state."""
        return [replica.status() for replica in self._supervisors]

    def queued(self, model: str) -> int:
        """Requests that wait for a replica of the model."""
        found = self._scheduler.model(model)
        return 0 if found is None else len(found.queue)

    def acquire(
        self,
        model: str,
        *,
        key: str = "",
        priority: Priority = "interactive",
        weight: int = 1,
        affinity: int | None = None,
        exclude: frozenset[str] = frozenset(),
        slotless: bool = False,
    ) -> Lease:
        """A replica for one request; see Backend.

        Raises:
            NotReadyError: none is ready, nor will one be soon.
            OverloadedError: too many requests wait already.
            UnknownModelError: no model of that name is up.
        """
        lease = Lease(model, key, priority, affinity, exclude, slotless, weight=weight)
        if self._elsewhere is not None:
            self._elsewhere.request(lease)
        else:
            self._request(lease)
        return lease

    def _request(self, lease: Lease) -> None:
        """Ask for a replica: of this node's scheduler, or of the other node's."""
        runner = self._runner
        lease.scheduler = runner.scheduler
        replica = runner.scheduler.request(lease, time.monotonic())
        if replica is not None:
            lease.taken(runner.supervisors[replica])

    # While two nodes stand: yibu.node.fleet.shared.

    def expect(self) -> None:
        """Grant no replica until an old node has reported its requests in flight."""
        self._elsewhere = ReplicasSuccessor()

    def known(self) -> None:
        """Grant replicas: the old node's requests in flight are known, or lost."""
        if self._elsewhere is not None and not self._elsewhere.asked:
            self.alone()

    def alone(self) -> None:
        """Grant replicas here again: no other node does."""
        elsewhere, self._elsewhere = self._elsewhere, None
        for lease in elsewhere.gone() if elsewhere is not None else ():
            if not lease.waits:
                self._occupy(lease)
                continue
            try:
                self._request(lease)
            except YibuError as error:
                lease.refused(error)

    def _occupy(self, lease: Lease) -> None:
        supervisor, now = self._runner.supervisors.get(lease.endpoint.replica), time.monotonic()
        lease.scheduler = self._scheduler
        if supervisor is not None and self._scheduler.occupied(supervisor.id, lease, now):
            lease.given(supervisor)

    def take_over(self, channel: Channel) -> ReplicasPredecessor:
        """Grant replicas to an old node's requests too."""

        def request(lease: Lease) -> None:
            if self._elsewhere is not None and self._elsewhere.asked:  # there is a third one by now
                self._elsewhere.request(lease)
            else:
                self._request(lease)

        return ReplicasPredecessor(channel, self._runner, request)

    def hand_over(self, channel: Channel) -> None:
        """Let a new node grant replicas to this one's requests, from now on."""
        self._elsewhere, now = ReplicasSuccessor(channel), time.monotonic()
        waiting = self._scheduler.waiting()
        for waiter in waiting:
            self._scheduler.left(waiter, now)
        for supervisor in self._supervisors:
            for lease in list(supervisor.requests):
                assert isinstance(lease, Lease)
                lease.release()
                self._elsewhere.take(lease)
        for waiter in waiting:
            assert isinstance(waiter, Lease)
            self._elsewhere.request(waiter)

    # Inside.

    @property
    def _supervisors(self) -> Sequence[ReplicaSupervisor]:
        """Every supervisor, ordered by model and replica number."""
        return [
            replica
            for deployment in self._runner.deployments.values()
            for _, replica in sorted(deployment.replicas.items())
        ]

    def _changed(self) -> None:
        self._named = self._names()
        self._saved.clear()
        self._dirty.set()

    def _names(self) -> dict[str, str]:
        """Which model answers to a name: until one that takes it over is ready, the one that had it."""
        ready = {one.name for one in self._current() if one.state == "ready"}
        claims = [
            each for key, each in self._runner.deployments.items() if self._scheduler.desired(key)
        ]
        claims.sort(key=lambda claim: claim.name in ready)
        named = {name: claim.name for claim in claims for name in claim.config.names}
        had = {name: self._named[name] for name in named.keys() & self._named.keys()}
        return named | {n: had[n] for n in had if had[n] in ready and named[n] not in ready}

    async def _save_when_dirty(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            models = [self._save(deployment) for deployment in self._current()]
            await asyncio.to_thread(self._state.save, models)
            if not self._dirty.is_set():
                self._saved.set()

    def _save(self, deployment: Deployment) -> SavedModel:
        desired = self._scheduler.desired(deployment.key)
        return deployment.save(started=desired is not None and desired.started)

    def _log_files(self) -> list[Path]:
        return [self._host.paths.model_log(replica.id) for replica in self._supervisors]

    def _engine_pids(self) -> list[int]:
        return [replica.process.pid for replica in self._supervisors if replica.process]


def _shown(
    deployment: Deployment, table: Mapping[int, processes.ProcessInfo], queued: int
) -> dict[str, Any]:
    """A model as ``yibu ps --json`` shows it. ``table`` is the machine's processes; ``queued``: requests that wait for the model."""
    plan = deployment.spec.plan if deployment.spec else None
    return {
        "name": deployment.name,
        "source": deployment.config.source,
        "engine": plan.engine if plan else deployment.config.engine,
        "state": deployment.state,
        "cause": deployment.cause,
        "cause_key": deployment.cause_key,
        "hint": deployment.hint or None,
        "phase": deployment.phase,
        "phases": _rounded(deployment.phases),
        "queued": queued,
        "replicas": [
            {
                "id": replica.id,
                "pid": replica.process.pid if replica.process else None,
                "port": replica.port,
                "state": replica.state,
                "restarts": replica.restarts,
                "rss_bytes": replica.process.rss_bytes(table) if replica.process else 0,
                "gpus": list(replica.spec.gpus),
                "phase": replica.timeline.current,
                "phases": _rounded(replica.timeline.seconds(time.monotonic())),
            }
            for _, replica in sorted(deployment.replicas.items())
        ],
    }


def _rounded(phases: Mapping[str, float]) -> dict[str, float]:
    return {phase: round(seconds, 3) for phase, seconds in phases.items()}
