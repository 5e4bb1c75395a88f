"""All models of a node. The gateway sees it as :class:`yibu.routing.Backend`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from yibu.config import ModelConfig
from yibu.config.names import plain_name, replica_id
from yibu.engines.base import Endpoint
from yibu.errors import (
    ConfigError,
    NotReadyError,
    NotRunningError,
    UnknownModelError,
    UsageError,
)
from yibu.node import left_behind, logs, processes
from yibu.node.deploy import Deployer
from yibu.node.deployment import Deployment
from yibu.node.events import EventBus, Subscription
from yibu.node.housekeeping import reap_orphans, rotate_logs
from yibu.node.launch import Host, cancelled
from yibu.node.policy import Admission, Supervised, Wait
from yibu.node.process import EngineProcess, end_marked
from yibu.node.replica import Replica
from yibu.node.state import SavedModel, SavedNode, StateFile
from yibu.planner.ledger import Promise
from yibu.routing import ReplicaStatus, Route

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
        admission: Admission | None = None,
        rotation: logs.Rotation | None = None,
    ) -> None:
        self._deployer = deployer
        self._host = host
        self._state = state
        self._admission = admission or Supervised(host.timings.ready_wait)
        self._rotation = rotation or logs.Rotation()
        self._bus = EventBus()
        self._models: dict[str, Deployment] = {}
        self._aliased: dict[str, Deployment] = {}
        self._replicas: dict[str, Replica] = {}
        self._changing: dict[str, asyncio.Lock] = {}
        self._draining = False
        self._dirty = asyncio.Event()
        self._saved = asyncio.Event()
        self._group = asyncio.TaskGroup()
        self._side_tasks: list[asyncio.Task[None]] = []
        self._verbs: set[asyncio.Task[Any]] = set()

    # The lifespan.

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
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
        self._draining = True
        try:
            await asyncio.gather(*(model.stop(patience=0) for model in self._models.values()))
        finally:
            await cancelled(*self._side_tasks, *self._verbs)
            await self._group.__aexit__(None, None, None)
            await asyncio.to_thread(self._state.save, [])

    async def adopt(self, saved: SavedNode | None) -> None:
        """Go on with what an earlier node left running, and end what cannot be adopted. A model of
        which nothing runs any more is forgotten: whoever starts the node says what to serve."""
        timings = self._host.timings
        found: list[tuple[SavedModel, list[EngineProcess | None]]] = []
        boot = saved.boot if saved else ""
        for model in saved.models if saved else ():
            left = [left_behind.process_of(replica, boot) for replica in model.replicas]
            if any(left):
                found.append((model, left))
            else:
                _log.warning("%s no longer runs and is not started again", model.config.name)
        adopted = {process.marker for _, left in found for process in left if process}
        # Before anything is started: a new engine would have a marker that is not spared.
        ended = await end_marked(
            f"{self._host.home_id}/", adopted, grace=timings.orphan_grace, kill=timings.kill
        )
        if ended:
            _log.warning("%d processes that an earlier node left behind were ended", ended)
        await asyncio.to_thread(left_behind.remove_files, self._host.paths, saved, adopted)
        for model, left in found:
            deployment = self._add(model.config, saved=model)
            self._group.create_task(deployment.run(left), name=f"model {deployment.name}")
            _log.info("%s: %d engines adopted", deployment.name, sum(map(bool, left)))

    async def drain(self, timeout: float) -> bool:
        """Take no more requests, and wait for those in flight; False when time ran out."""
        self._draining = True
        try:
            async with asyncio.timeout(timeout):
                await asyncio.gather(*(replica.idle() for replica in self._all_replicas()))
        except TimeoutError:
            return False
        return True

    # Verbs of the command line.

    async def up(self, config: ModelConfig) -> None:
        """Serve the model; return when every replica is ready.

        The same model again is left running; with another configuration it is replaced.

        Raises:
            YibuError: it cannot be deployed or started; it stays listed as ``failed``.
        """
        deployment = await self._carry_out(self._put_up(config), f"up {config.name}")
        await deployment.settled()
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
        await self._carry_out(self._find(name).restart(), f"restart {name}")

    async def status(self) -> list[dict[str, Any]]:
        """The models as ``yibu ps --json`` shows them."""
        table = await asyncio.to_thread(processes.snapshot)
        return [_shown(deployment, table) for deployment in self._models.values()]

    def configs(self) -> list[ModelConfig]:
        return [deployment.config for deployment in self._models.values()]

    async def reserved(self) -> list[Promise]:
        """What its engines were planned of the machine's memory, and what they hold of it."""
        return await self._host.ledger.reserved()

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
        return str(self._host.paths.model_log(replica_id(name, replica)))

    # The gateway's protocol: yibu.routing.Backend.

    def routes(self) -> Sequence[Route]:
        """Every model that has a name here, ready or not."""
        return [deployment.route for deployment in self._models.values()]

    def route(self, model: str) -> Route | None:
        """The route of one model, or None for an unknown name."""
        deployment = self._models.get(model) or self._aliased.get(model)
        return None if deployment is None else deployment.route

    def replicas(self) -> Sequence[ReplicaStatus]:
        """Every replica of every model, whatever its state."""
        return [replica.status() for replica in self._all_replicas()]

    async def ensure_ready(self, model: str, *, exclude: frozenset[str] = frozenset()) -> Endpoint:
        """The least loaded ready replica, with one more request counted; see Backend.

        Raises:
            NotReadyError: none is ready, nor will be within ``Timings.ready_wait``.
            UnknownModelError: no model of that name is up.
        """
        deployment = self._models.get(model)
        if deployment is None:
            # It was there when the request came; its client may not know of the others.
            raise UnknownModelError(f"the model {model!r} is not served here any more")
        if self._draining:
            raise NotReadyError("this node is shutting down", retry_after=10.0)
        endpoint = deployment.choose(exclude)
        if endpoint is not None:
            return endpoint
        decision = self._admission.decide(deployment.view())
        if isinstance(decision, Wait):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(decision.seconds):
                    return await _when_ready(deployment, exclude)
            raise _not_ready(deployment, 5.0)
        raise _not_ready(deployment, decision.retry_after)

    def done(self, endpoint: Endpoint, *, failed: bool = False) -> None:
        """The request ended; ``failed`` when the replica broke the connection."""
        replica = self._replicas.get(endpoint.replica)
        if replica is not None:
            replica.release(failed=failed)

    def progress(self, endpoint: Endpoint) -> None:
        """A byte of an answer came: this engine does not hang, however long its answers are."""
        replica = self._replicas.get(endpoint.replica)
        if replica is not None:
            replica.progressed()

    # Inside.

    def _add(self, config: ModelConfig, **saved: Any) -> Deployment:
        deployment = Deployment(
            config, self._deployer, self._host, self._bus, self._changed, **saved
        )
        self._models[config.name] = deployment
        self._changed()
        return deployment

    async def _put_up(self, config: ModelConfig) -> Deployment:
        async with self._changing.setdefault(config.name, asyncio.Lock()):
            self._refuse_claimed(config)
            deployment = self._models.get(config.name)
            if deployment is not None:
                _refuse_replacing(deployment.config, config)
                if deployment.config == config and deployment.state != "failed":
                    return deployment
                await deployment.stop()
            deployment = self._add(config)
            self._group.create_task(deployment.run(), name=f"model {config.name}")
            return deployment

    def _refuse_claimed(self, config: ModelConfig) -> None:
        """Raises ConfigError when another model has one of its names."""
        for other in self._models.values():
            if other.name == config.name:
                continue
            taken = set(map(plain_name, other.config.names))
            for name in config.names:
                if plain_name(name) in taken:
                    raise ConfigError(
                        f"{config.name} claims the name {name!r}, which {other.name} has here",
                        hint=f"take it off one of them, or stop the other: yibu down {other.name}",
                    )

    async def _take_down(self, name: str) -> None:
        async with self._changing.setdefault(name, asyncio.Lock()):
            await self._find(name).stop()
            del self._models[name]
            self._changed()

    async def _carry_out(self, verb: Coroutine[Any, Any, T], name: str) -> T:
        """Await ``verb``, which goes on when the caller is cancelled: half a change to a model,
        because a terminal was closed, would leave it neither up nor down."""
        task = asyncio.create_task(verb, name=name)
        self._verbs.add(task)
        task.add_done_callback(self._verbs.discard)
        return await asyncio.shield(task)

    def _find(self, name: str) -> Deployment:
        deployment = self._models.get(name)
        if deployment is None:
            names = ", ".join(self._models) or "none"
            raise NotRunningError(f"{name} is not up; there are: {names}", hint="yibu ps")
        return deployment

    def _all_replicas(self) -> list[Replica]:
        return [replica for model in self._models.values() for replica in model.replicas]

    def _changed(self) -> None:
        self._replicas = {replica.id: replica for replica in self._all_replicas()}
        self._aliased = {
            name: model for model in self._models.values() for name in model.route.names
        }
        self._saved.clear()
        self._dirty.set()

    async def _save_when_dirty(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            models = [model.save() for model in self._models.values() if model.replicas]
            await asyncio.to_thread(self._state.save, models)
            if not self._dirty.is_set():
                self._saved.set()

    def _log_files(self) -> list[Path]:
        return [self._host.paths.model_log(replica.id) for replica in self._all_replicas()]

    def _engine_pids(self) -> list[int]:
        return [replica.process.pid for replica in self._all_replicas() if replica.process]


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


async def _when_ready(deployment: Deployment, exclude: frozenset[str]) -> Endpoint:
    while True:
        endpoint = deployment.choose(exclude)
        if endpoint is not None:
            return endpoint
        if deployment.state in ("failed", "stopped"):
            raise _not_ready(deployment, 60.0)
        await deployment.changed()


def _not_ready(deployment: Deployment, retry_after: float) -> NotReadyError:
    cause = f": {deployment.cause}" if deployment.cause else ""
    state = "has failed" if deployment.state == "failed" else f"is {deployment.state}"
    return NotReadyError(
        f"model {deployment.name!r} {state}{cause}",
        hint=deployment.hint,
        retry_after=retry_after,
    )


def _shown(deployment: Deployment, table: Mapping[int, processes.ProcessInfo]) -> dict[str, Any]:
    plan = deployment.specs[0].plan if deployment.specs else None
    return {
        "name": deployment.name,
        "source": deployment.config.source,
        "engine": plan.engine if plan else deployment.config.engine,
        "state": deployment.state,
        "cause": deployment.cause,
        "hint": deployment.hint or None,
        "phase": deployment.phase,
        "phases": _rounded(deployment.phases),
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
            for replica in deployment.replicas
        ],
    }


def _rounded(phases: Mapping[str, float]) -> dict[str, float]:
    return {phase: round(seconds, 3) for phase, seconds in phases.items()}
