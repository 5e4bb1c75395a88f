"""One model on this node: its way from a source to replicas, by one task that owns it all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from yibu.config import ModelConfig
from yibu.config.names import replica_id
from yibu.engines.base import Endpoint
from yibu.engines.requests import UNKNOWN
from yibu.errors import EngineStartError, NotRunningError, YibuError
from yibu.hub.types import Progress
from yibu.node import launch, logs
from yibu.node.deploy import Deployer
from yibu.node.events import EventBus
from yibu.node.launch import Host, LaunchSpec
from yibu.node.phases import Timeline
from yibu.node.policy import ModelView
from yibu.node.process import EngineProcess
from yibu.node.replica import Replica
from yibu.node.state import SavedModel, SavedReplica
from yibu.redaction import redact
from yibu.routing import NO_DETAILS, Failure, Route, State

_log = logging.getLogger(__name__)

# Which state of its replicas a model shows: one that serves is enough to be ready.
_PRECEDENCE: tuple[State, ...] = ("ready", "starting", "draining", "failed", "pending", "stopped")


class Deployment:
    """Owned by the fleet, which runs :meth:`run` as a task of its own."""

    def __init__(
        self,
        config: ModelConfig,
        deployer: Deployer,
        host: Host,
        bus: EventBus,
        on_change: Callable[[], None],
        *,
        saved: SavedModel | None = None,
    ) -> None:
        self.config = config
        self.created = saved.created if saved else int(time.time())
        self.replicas: list[Replica] = []
        self.specs: tuple[LaunchSpec, ...] = ()
        self.error: YibuError | None = None
        """Why there are no replicas."""
        self._failure: Failure | None = None
        self._deployer = deployer
        self._host = host
        self._bus = bus
        self._on_change = on_change
        self._state: State = "pending"
        self._deploying = Timeline()
        self._came_up: set[str] = set()
        """Replicas whose latest start has ended, well or not."""
        self._phases_shown: dict[str | None, str | None] = {}
        self._shown: tuple[State, str | None] = ("pending", None)
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._again = asyncio.Event()
        self._ended = asyncio.Event()
        self._turn = 0
        self._route: Route | None = None
        if saved is not None:
            self._make_replicas(saved.specs, saved.replicas)

    # What others may call.

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def state(self) -> State:
        if not self.replicas:
            return self._state
        states = {replica.state for replica in self.replicas}
        return next(state for state in _PRECEDENCE if state in states)

    @property
    def cause(self) -> str | None:
        """Why the state is not what one wishes, to be shown beside the name; None when all is well."""
        causes = [replica.cause for replica in self.replicas if replica.cause]
        if not self.replicas and self.error:
            causes = self.error.message.splitlines()
        return causes[0].removeprefix(f"{self.name}: ") if causes else None

    @property
    def hint(self) -> str:
        """What to try where the model has failed; empty where nothing is known."""
        return next((e.hint for e in (self.error, *(r.error for r in self.replicas)) if e), "")

    @property
    def route(self) -> Route:
        """As the gateway sees it; made anew only when something has changed."""
        if self._route is None:
            plan = self.specs[0].plan if self.specs else None
            self._route = Route(
                model=self.name,
                engine=plan.engine if plan else self.config.engine or "",
                capabilities=plan.capabilities if plan else frozenset(),
                conforming=plan.conforming if plan else False,
                abilities=plan.abilities if plan else UNKNOWN,
                upload_patience=plan.upload_patience if plan else 0.0,
                limits=self.config.limits,
                created=self.created,
                state=self.state,
                max_context=self.specs[0].max_context if self.specs else None,
                details=self.specs[0].details if self.specs else NO_DETAILS,
                failure=self._failure,
                names=self.config.further_names,
            )
        return self._route

    @property
    def phase(self) -> str | None:
        """What it does just now to come up; None when it is up, or is not coming up."""
        starting = (r.timeline.current for r in self.replicas if r.state == "starting")
        return self._deploying.current or next((phase for phase in starting if phase), None)

    @property
    def phases(self) -> dict[str, float]:
        """Seconds of each phase of the latest start; of the replica that took longest."""
        now = time.monotonic()
        starts = [replica.timeline.seconds(now) for replica in self.replicas]
        longest = max(starts, key=lambda seconds: sum(seconds.values()), default={})
        return {**self._deploying.seconds(now), **longest}

    def choose(self, exclude: frozenset[str]) -> Endpoint | None:
        """The ready replica with the fewest requests, counted as having one more; of equals the
        one that was used longest ago."""
        ready = [r for r in self.replicas if r.endpoint is not None and r.id not in exclude]
        if not ready:
            return None
        chosen = min(ready, key=lambda replica: (replica.in_flight, replica.last_turn))
        self._turn += 1
        chosen.acquire(self._turn)
        return chosen.endpoint

    def view(self) -> ModelView:
        expected = [r.expected for r in self.replicas if r.expected is not None]
        return ModelView(self.name, self.state, min(expected, default=None))

    async def changed(self) -> None:
        """Wait for the next change of any replica's state."""
        await self._changed.wait()

    async def settled(self) -> None:
        """Wait until every replica is ready.

        Raises:
            YibuError: the model cannot be deployed, or a replica has failed.
            NotRunningError: it was taken down meanwhile.
        """
        while True:
            if self._stopping.is_set():
                raise NotRunningError(f"{self.name} was taken down before it was ready")
            if not self._again.is_set():
                if self.error is not None:
                    raise self.error
                for replica in self.replicas:
                    if replica.error is not None:
                        raise replica.error
                if self.replicas and all(r.state == "ready" for r in self.replicas):
                    return
            await self.changed()

    async def restart(self) -> None:
        """Restart the replicas one after the other, so that the others serve meanwhile.

        Raises:
            YibuError: as :meth:`settled` does.
        """
        if not self.replicas:
            self._again.set()
            self._tell()
        for replica in self.replicas:
            replica.restart()
            while replica.restarting:
                await self.changed()
            if replica.error is not None:
                break
        await self.settled()

    async def stop(self, patience: float | None = None) -> None:
        """Give the deployment up, or drain and end the replicas; return when all is gone.

        ``patience`` as for :meth:`Replica.stop`.
        """
        self._stopping.set()
        self._tell()
        await asyncio.gather(*(replica.stop(patience) for replica in self.replicas))
        await self._ended.wait()

    def save(self) -> SavedModel:
        return SavedModel(
            self.config,
            self.created,
            self.specs,
            tuple(replica.save() for replica in self.replicas),
        )

    # The owner task.

    async def run(self, left: Sequence[EngineProcess | None] = ()) -> None:
        """Deploy (or go on with the replicas that were saved) and run replicas until stopped.

        ``left`` are the processes to adopt, in the replicas' order.
        """
        try:
            with contextlib.ExitStack() as held:
                if self.replicas:
                    self._hold_adopted(held)
                while not self.replicas and not self._stopping.is_set():
                    await self._deploy(held)
                left = left or [None] * len(self.replicas)
                async with asyncio.TaskGroup() as group:
                    for replica, process in zip(self.replicas, left, strict=True):
                        group.create_task(replica.run(process), name=f"replica {replica.id}")
        finally:
            self._give_memory_up()
            self._state = "stopped"
            self._ended.set()
            self._tell()

    def _hold(self, held: contextlib.ExitStack, *sources: str) -> None:
        """Keep models that are in use from being removed from the store."""
        for source in sources:
            if source:
                held.enter_context(self._deployer.in_use(source))

    def _hold_adopted(self, held: contextlib.ExitStack) -> None:
        extra = [s for spec in self.specs[:1] for s in spec.plan.extra_sources.values()]
        try:
            self._hold(held, self.config.source, *extra)
        except (YibuError, OSError) as error:  # they run already, held or not
            _log.warning("%s: its files cannot be held against removal: %s", self.name, error)

    async def _deploy(self, held: contextlib.ExitStack) -> None:
        self._again.clear()
        self.error = self._failure = None
        self._state = "downloading" if self.config.source else "pending"
        self._deploying = Timeline()
        self._host.ledger.announce(self.config)
        self._tell()
        work = asyncio.create_task(self._specs(held), name=f"deploy {self.name}")
        stopping = asyncio.create_task(self._stopping.wait(), name=f"stop {self.name}")
        try:
            await asyncio.wait((work, stopping), return_when=asyncio.FIRST_COMPLETED)
            if self._stopping.is_set():
                return
            self._make_replicas(work.result(), ())
        except YibuError as error:
            await self._failed(error)
        except Exception as defect:  # noqa: BLE001 - keeps a defect from the other models
            _log.exception("deploying %s", self.name)
            await self._failed(
                EngineStartError(f"{self.name}: a defect in yibu: {defect!r}", cause="defect")
            )
        finally:
            await launch.cancelled(work, stopping)

    async def _specs(self, held: contextlib.ExitStack) -> list[LaunchSpec]:
        held.close()  # what an earlier try held
        self._hold(held, self.config.source)
        try:
            specs = await self._deployer.deploy(
                self.config, self._progress, self._note, self._entered, self._host.ledger
            )
        except BaseException:  # cancelled too: what was placed will not start
            self._give_memory_up()
            raise
        finally:
            self._deploying.end(time.monotonic())
        self._hold(held, *specs[0].plan.extra_sources.values())
        if not await asyncio.to_thread(logs.has_room, self._host.paths.logs):
            self._note(f"the disk with the logs is full ({self._host.paths.logs}): this engine "
                       "writes none")  # fmt: skip
        return specs

    async def _failed(self, error: YibuError) -> None:
        """Show the error until someone wants the model restarted or taken down."""
        self.error = error
        self._failure = Failure(error.cause, time.time())
        self._state = "failed"
        self._tell()
        while not (self._again.is_set() or self._stopping.is_set()):
            await self.changed()

    def _make_replicas(self, specs: Sequence[LaunchSpec], saved: Sequence[SavedReplica]) -> None:
        self.specs = tuple(specs)
        if not saved:
            self.replicas = [
                Replica(replica_id(self.name, number), spec, self._host, self._moved)
                for number, spec in enumerate(specs)
            ]
            return
        for spec, old in zip(specs, saved, strict=True):
            if old.port is not None:
                self._host.ports.keep(old.port)
            self.replicas.append(
                Replica(
                    old.id,
                    spec,
                    self._host,
                    self._moved,
                    restarts=old.restarts,
                    key=old.key,
                    port=old.port,
                )
            )

    # Telling others.

    def _moved(self, replica: Replica) -> None:
        if replica.state in ("ready", "failed"):
            self._came_up.add(replica.id)
        elif replica.id in self._came_up:  # another start, of which the download is no part
            self._came_up.discard(replica.id)
            self._deploying = Timeline()
        self._reserve(replica)
        self._tell_phase(replica.id, replica.timeline.current)
        self._bus.publish(
            "state",
            self.name,
            replica=replica.id,
            state=replica.state,
            cause=replica.cause,
            phases=_when_ready(replica.state, replica.timeline.seconds(time.monotonic())),
        )
        self._tell()

    def _reserve(self, replica: Replica) -> None:
        """A replica's memory is its own from its start, the first or another, to its end."""
        ledger = self._host.ledger
        if replica.state == "starting":
            spec = replica.spec
            ledger.promise(replica.id, spec.gpus, spec.memory, spec.host_memory)
            ledger.runs(replica.id, replica.process)
        elif replica.state == "ready":
            ledger.ready(replica.id)
        elif replica.state in ("failed", "stopped"):
            ledger.settle(replica.id)

    def _give_memory_up(self) -> None:
        self._host.ledger.withdraw(self.name)
        for number in range(self.config.replicas):
            self._host.ledger.settle(replica_id(self.name, number))

    def _entered(self, phase: str) -> None:
        self._deploying.enter(phase, time.monotonic())
        self._tell_phase(None, phase)

    def _tell_phase(self, replica: str | None, phase: str | None) -> None:
        if self._phases_shown.get(replica) != phase:
            self._phases_shown[replica] = phase
            if phase is not None:
                self._bus.publish("phase", self.name, replica=replica, phase=phase)

    def _tell(self) -> None:
        self._route = None
        now = (self.state, self.cause)
        if now != self._shown:
            self._shown = now
            self._bus.publish(
                "state",
                self.name,
                replica=None,
                state=now[0],
                cause=now[1],
                phases=_when_ready(now[0], self.phases),
            )
        # Everyone who waits wakes once; whoever waits again waits for the next change.
        self._changed.set()
        self._changed = asyncio.Event()
        self._on_change()

    def _progress(self, progress: Progress) -> None:
        fields: dict[str, Any] = {
            "phase": progress.phase,
            "done_bytes": progress.done_bytes,
            "total_bytes": progress.total_bytes,
            "bytes_per_second": progress.bytes_per_second,
            "seconds_left": progress.seconds_left,
            "file": progress.file,
        }
        self._bus.publish("progress", self.name, **fields)

    def _note(self, text: str) -> None:
        self._bus.publish("note", self.name, text=redact(text))


def _when_ready(state: State, phases: dict[str, float]) -> dict[str, float]:
    return phases if state == "ready" else {}
