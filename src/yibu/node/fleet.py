"""All models of a node. The gateway sees it as :class:`yibu.routing.Backend`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from yibu.config import ModelConfig
from yibu.config.names import plain_name, replica_id
from yibu.errors import ConfigError, NotRunningError, UsageError, YibuError
from yibu.node import left_behind, logs, processes
from yibu.node.deploy import Deployer
from yibu.node.deployment import Deployment
from yibu.node.events import EventBus, Subscription
from yibu.node.housekeeping import reap_orphans, rotate_logs
from yibu.node.launch import Host, cancelled
from yibu.node.lease import Lease
from yibu.node.process import EngineProcess, end_marked
from yibu.node.replica import Replica
from yibu.node.runner import Runner
from yibu.node.scheduler import Scheduler
from yibu.node.scheduler.types import Generation
from yibu.node.state import SavedModel, SavedNode, SavedReplica, StateFile
from yibu.node.status import model_status
from yibu.planner.ledger import Promise
from yibu.routing import Priority, ReplicaStatus, Route

_log = logging.getLogger(__name__)
T = TypeVar("T")
_SAVE = 2.0
"""Seconds that a model's start waits at most for its own record on disk."""


class Fleet:
    """An async context: leaving it ends every engine (:meth:`drain` first, to let requests
    finish). One event loop; no call blocks it."""

    def __init__(
        self,
        deployer: Deployer,
        host: Host,
        state: StateFile,
        *,
        rotation: logs.Rotation | None = None,
    ) -> None:
        self._host = host
        self._state = state
        self._rotation = rotation or logs.Rotation()
        self._bus = EventBus()
        self._runner = Runner(deployer, host, self._bus, self._changed)
        self._aliased: dict[str, str] = {}
        self._dirty = asyncio.Event()
        self._saved = asyncio.Event()
        self._saved.set()
        self._group = asyncio.TaskGroup()
        self._side_tasks: list[asyncio.Task[None]] = []
        self._verbs: set[asyncio.Task[Any]] = set()

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
            await cancelled(*self._side_tasks, *self._verbs)
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
                self._runner.adopt(model.config, model.generation, model.created, running)
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
        """Take no more requests, and wait for those in flight; False when time ran out."""
        self._scheduler.close()
        try:
            async with asyncio.timeout(timeout):
                await asyncio.gather(*(replica.idle() for replica in self._supervisors))
        except TimeoutError:
            return False
        return True

    async def saved(self) -> None:
        """Wait until the state file has what is known now."""
        await self._saved.wait()

    # Verbs of the command line.

    async def up(self, config: ModelConfig, *, start: bool = False) -> None:
        """Serve the model; return when every replica is ready, or when it can be loaded on demand.

        The same model again is left running. With another configuration it is started beside what
        serves, or in its place where memory does not suffice for both, and takes over when it is
        ready; where it fails, the earlier one serves on. ``start`` loads it even where it is kept
        on demand.

        Raises:
            YibuError: it cannot be deployed or started; it stays listed as ``failed``.
        """
        key = self._put_up(config, start=start)
        await self._settled(key)
        # A node that is killed a moment later finds its engines again.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SAVE):
                await self._saved.wait()

    async def down(self, name: str) -> None:
        """Drain and end the model; return when all of its processes are gone.

        Raises:
            NotRunningError: no such model is up.
        """
        await self._carry_out(self._take_down(name), f"down {name}")

    async def restart(self, name: str) -> None:
        """Restart the model's replicas one by one; return when all are ready again.

        Raises:
            NotRunningError: no such model is up.
            YibuError: it did not come up again.
        """
        await self._carry_out(self._restart(name), f"restart {name}")

    async def status(self) -> list[dict[str, Any]]:
        """The models as ``yibu ps --json`` shows them."""
        table = await asyncio.to_thread(processes.snapshot)
        return [
            model_status(deployment, table, self.queued(deployment.name))
            for deployment in self._current()
        ]

    def configs(self) -> list[ModelConfig]:
        return [deployment.config for deployment in self._current()]

    async def reserved(self) -> list[Promise]:
        """What its engines were planned of the machine's memory, and what they hold of it."""
        reading = await asyncio.to_thread(self._runner.holdings)
        return self._scheduler.reserved(reading)

    def events(self, model: str | None = None) -> AbstractContextManager[Subscription]:
        """Subscribe to changes of state and to progress; see :mod:`yibu.node.events`."""
        return self._bus.subscribe(model)

    def log_path(self, name: str, replica: int = 0) -> str:
        """Where the engine's log is.

        Raises:
            NotRunningError: no such model is up, or it has no such replica.
        """
        deployment = self._find(name)
        if replica >= max(len(deployment.replicas), 1):
            raise NotRunningError(
                f"{name} has {len(deployment.replicas)} replicas, so none of number {replica}"
            )
        return str(self._host.paths.model_log(replica_id(name, replica, deployment.key[1])))

    # The gateway's protocol: yibu.routing.Backend.

    def routes(self) -> Sequence[Route]:
        """Every model that has a name here, ready or not."""
        return [deployment.route for deployment in self._current()]

    def route(self, model: str) -> Route | None:
        """The route of one model, or None for an unknown name."""
        deployment = self._runner.current(self._aliased.get(model, model))
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
        runner = self._runner
        lease = Lease(model, key, priority, affinity, exclude, slotless)
        lease.scheduler = runner.scheduler
        now = time.monotonic()
        replica = runner.scheduler.request(lease, now)
        if replica is not None:
            lease.given(runner.supervisors[replica])
        return lease

    # Inside.

    @property
    def _scheduler(self) -> Scheduler:
        return self._runner.scheduler

    @property
    def _supervisors(self) -> Sequence[Replica]:
        """In the order of models and of their replicas' numbers."""
        return [
            replica
            for deployment in self._runner.deployments.values()
            for _, replica in sorted(deployment.replicas.items())
        ]

    def _current(self) -> list[Deployment]:
        found = (self._runner.current(name) for name in self._scheduler.names())
        return [deployment for deployment in found if deployment is not None]

    def _put_up(self, config: ModelConfig, *, start: bool) -> Generation:
        self._refuse_claimed(config)
        model = self._scheduler.model(config.name)
        created = int(time.time())
        if model is not None:
            wanted = model.generations()[-1]
            current = self._find(config.name)
            created = current.created
            _refuse_replacing(current.config, config)
            if wanted.config == config:
                if start or wanted.error is not None or current.state == "failed":
                    self._scheduler.start(config.name, time.monotonic())
                key: Generation = wanted.key
                return key
        return self._runner.add(config, start=start, created=created)

    async def _settled(self, key: Generation) -> None:
        """Wait until a generation serves.

        Raises:
            YibuError: it cannot.
            NotRunningError: it was taken down meanwhile.
        """
        while True:
            outcome = self._scheduler.outcome(key)
            if outcome is None:
                raise NotRunningError(f"{key[0]} was taken down before it was ready")
            if isinstance(outcome, YibuError):
                raise outcome
            if outcome:
                return
            await self._runner.changed_again()

    async def _take_down(self, name: str) -> None:
        self._find(name)
        self._runner.remove(name)
        while any(key[0] == name for key in self._runner.deployments):
            await self._runner.changed_again()

    async def _restart(self, name: str) -> None:
        deployment = self._find(name)
        self._scheduler.start(name, time.monotonic())
        for replica in list(deployment.replicas.values()):
            if replica.state == "failed":
                continue  # the scheduler has another one started
            replica.restart()
            while replica.restarting:
                await self._runner.changed_again()
            if replica.error is not None:
                break
        await self._settled(deployment.key)

    def _refuse_claimed(self, config: ModelConfig) -> None:
        """Raises ConfigError when another model has one of its names."""
        for other in self._current():
            if other.name == config.name:
                continue
            taken = set(map(plain_name, other.config.names))
            for name in config.names:
                if plain_name(name) in taken:
                    raise ConfigError(
                        f"{config.name} claims the name {name!r}, which {other.name} has here",
                        hint=f"take it off one of them, or stop the other: yibu down {other.name}",
                    )

    async def _carry_out(self, verb: Coroutine[Any, Any, T], name: str) -> T:
        """Await ``verb``, which goes on when the caller is cancelled: half a change to a model,
        because a terminal was closed, would leave it neither up nor down."""
        task = asyncio.create_task(verb, name=name)
        self._verbs.add(task)
        task.add_done_callback(self._verbs.discard)
        return await asyncio.shield(task)

    def _find(self, name: str) -> Deployment:
        deployment = self._runner.current(name)
        if deployment is None:
            names = ", ".join(self._scheduler.names()) or "none"
            raise NotRunningError(f"{name} is not up; there are: {names}", hint="yibu ps")
        return deployment

    def _changed(self) -> None:
        self._aliased = {name: route.model for route in self.routes() for name in route.names}
        self._saved.clear()
        self._dirty.set()

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


def _refuse_replacing(running: ModelConfig, config: ModelConfig) -> None:
    """Raises UsageError when a name that was taken from a source would replace another source's
    model: nobody asked for that."""
    if config.name_derived and config.source != running.source:
        raise UsageError(
            f"{config.name} runs already, from {running.source or 'a command'}; {config.source}"
            " would replace it",
            hint=f"give it another name: yibu up {config.source} --name NAME; or stop the other:"
            f" yibu down {config.name}",
        )
