"""One generation of a model: its facts, its replicas, and how they are shown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence

from yibu.config import ModelConfig
from yibu.engines.base import LaunchPlan
from yibu.engines.requests import UNKNOWN
from yibu.errors import NotReadyError, YibuError, safe
from yibu.hub.types import Progress
from yibu.messages import brief, tr
from yibu.node import logs
from yibu.node.events import EventBus
from yibu.node.fleet.deploy import Deployer, Fetched
from yibu.node.launch.phases import WAIT, Timeline
from yibu.node.launch.spec import Host, LaunchSpec
from yibu.node.scheduler.types import Desired, Generation
from yibu.node.state import SavedModel, SavedReplica
from yibu.node.supervisor.replica import ReplicaSupervisor
from yibu.planner.types import ModelFacts, Placement
from yibu.routing import NO_DETAILS, Failure, Route, State

_log = logging.getLogger(__name__)

# Which state of its replicas a model shows: one that serves is enough to be ready.
_PRECEDENCE: tuple[State, ...] = (
    "ready",
    "starting",
    "draining",
    "sleeping",
    "failed",
    "pending",
    "stopped",
)


class Deployment:
    """Owned by the runner, whose tasks call its coroutines."""

    def __init__(
        self,
        key: Generation,
        config: ModelConfig,
        deployer: Deployer,
        host: Host,
        bus: EventBus,
        created: int,
    ) -> None:
        self.key = key
        self.config = config
        self.created = created
        self.replicas: dict[int, ReplicaSupervisor] = {}
        self.fetched: Fetched | None = None
        self.launches: dict[int, LaunchPlan] = {}
        """The launch plan of each replica, as placement made it."""
        self.error: YibuError | None = None
        """Why there are no replicas."""
        self.failure: Failure | None = None
        self.spec: LaunchSpec | None = None
        """The launch spec of its latest replica."""
        self.waiting: State = "pending"
        """The state shown while there are no replicas."""
        self._deployer = (deployer.offline if config.offline else None) or deployer
        self._host = host
        self._bus = bus
        self._timeline = Timeline()
        self._held = contextlib.ExitStack()
        self._sources: set[str] = set()
        """Sources held against removal from the store."""
        self._route: Route | None = None
        self._shown: tuple[State, str | None] = ("pending", None)
        self._replaced = False
        self._phases_shown: dict[str | None, str | None] = {}
        self._came_up: set[str] = set()
        """Replicas whose latest start has ended, successfully or not."""

    # What is shown of it.

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def state(self) -> State:
        if not self.replicas:
            return self.waiting
        states = {replica.state for replica in self.replicas.values()}
        return next(state for state in _PRECEDENCE if state in states)

    @property
    def cause(self) -> str | None:
        """Why the model does not serve, to be shown beside its name; None when all is well."""
        causes = [replica.cause for replica in self.replicas.values() if replica.cause]
        if not self.replicas and self.error:
            causes = [brief(self.error.message)]
        if not causes:
            return None
        prefix = f"{self.name}: "  # only then cut: a whole message keeps its translation
        return causes[0].removeprefix(prefix) if causes[0].startswith(prefix) else causes[0]

    @property
    def hint(self) -> str:
        """What to try where the model has failed; empty where nothing is known."""
        return next((error.hint for error in self._errors), "")

    @property
    def cause_key(self) -> str | None:
        """The key of what the model has failed of, as the metrics have it."""
        return next((error.cause for error in self._errors), None)

    @property
    def _errors(self) -> list[YibuError]:
        errors = (self.error, *(replica.error for replica in self.replicas.values()))
        return [error for error in errors if error]

    @property
    def phase(self) -> str | None:
        """The phase of its start; None when it is up or not starting."""
        starting = (r.timeline.current for r in self.replicas.values() if r.state == "starting")
        return self._timeline.current or next((phase for phase in starting if phase), None)

    @property
    def phases(self) -> dict[str, float]:
        """Seconds of each phase of the latest start; of several replicas, the slowest."""
        now = time.monotonic()
        starts = [replica.timeline.seconds(now) for replica in self.replicas.values()]
        longest = max(starts, key=lambda seconds: sum(seconds.values()), default={})
        return {**self._timeline.seconds(now), **longest}

    @property
    def route(self) -> Route:
        """The gateway's view of it; rebuilt only after a change."""
        if self._route is None:
            spec = self.spec
            plan = spec.plan if spec else None
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
                max_context=spec.max_context if spec else None,
                details=spec.details if spec else NO_DETAILS,
                failure=self.failure,
                replicas=self.config.autoscale.max
                if self.config.autoscale
                else self.config.replicas,
                names=self.config.further_names,
            )
        return self._route

    def adjust(self, config: ModelConfig) -> None:
        """Use a configuration that differs only in what the engines do not see."""
        self.config, self._route = config, None

    # The way to a replica.

    async def prepare(
        self, foreseen: Callable[[ModelFacts | None], None], *, rehearse: bool
    ) -> None:
        """Get its files and find out what it needs. ``foreseen`` is told what is known before all
        of them are here; ``rehearse``: see that it would fit, and get its engine ready, too.

        Raises:
            YibuError: it cannot be served.
        """
        self.error = self.failure = None
        self._timeline = Timeline()
        self.show("downloading" if self.config.source else "pending")
        self._held.close()  # what an earlier try held
        self._sources.clear()
        self._hold(self.config.source)
        try:
            self.fetched = await self._deployer.get(
                self.config, self._progress, self.note, self.entered, foreseen
            )
            if rehearse:
                launch, placement = await asyncio.to_thread(self._deployer.rehearse, self.fetched)
                self.spec = await self._spec(launch, placement, self.note)
        finally:
            self._timeline.end(time.monotonic())

    async def spec_of(self, number: int, placement: Placement) -> LaunchSpec:
        """The launch spec of a placed replica; its environment and further files exist then.

        Raises:
            YibuError: they cannot be had.
        """
        # What is said of the plan is the same for each.
        note = self.note if number == 0 else lambda _: None
        self.spec = await self._spec(self.launches[number], placement, note)
        if not await asyncio.to_thread(logs.has_room, self._host.paths.logs):
            self.note(tr(
"the disk with the logs is full ({logs}): this engine writes none",
logs=self._host.paths.logs
))  # fmt: skip
        return self.spec

    async def _spec(
        self, launch: LaunchPlan, placement: Placement, note: Callable[[str], None]
    ) -> LaunchSpec:
        assert self.fetched is not None
        try:
            spec = await self._deployer.spec(
                self.config, self.fetched, launch, placement, self._progress, note, self.entered
            )
        finally:
            self._timeline.end(time.monotonic())
        self._hold(*(s for s in launch.extra_sources.values() if s not in self._sources))
        return spec

    def _hold(self, *sources: str) -> None:
        """Keep the sources in use from being removed from the store."""
        for source in filter(None, sources):
            self._held.enter_context(self._deployer.in_use(source))
            self._sources.add(source)

    def hold_adopted(self, spec: LaunchSpec) -> None:
        """Keep the source of an adopted engine from being removed."""
        self.spec = spec
        try:
            self._hold(self.config.source, *spec.plan.extra_sources.values())
        except (YibuError, OSError) as error:
            _log.warning("%s: its files cannot be held against removal: %s", self.name, error)

    def close(self) -> None:
        """Release the sources: nothing of it runs any more."""
        self._held.close()

    def save(self, *, started: bool) -> SavedModel:
        """What the next node must know of it."""
        replicas = tuple(_saved(replica, number) for number, replica in self.replicas.items())
        return SavedModel(self.config, self.created, self.key[1], started, replicas)

    # Telling others.

    def refresh(self, desired: Desired | None) -> None:
        """Show the scheduler's state of it; None: another generation serves now."""
        if desired is None:
            self._replaced = True
            return
        if desired.error is not self.error:
            if desired.error is None:
                self.error = self.failure = None
            else:
                self.failed(desired.error)
        if desired.stage == "failed":
            self.show("failed")
        elif desired.stage == "prepared":
            self.show("starting" if desired.replicas else "unloaded")
        else:
            self.show()

    def not_ready(self, retry_after: float) -> NotReadyError:
        """The error for a request that it cannot serve now."""
        name, hint = self.name, self.hint
        if self.state == "unloaded" and not self.cause:
            text = tr("model {model!r} is not loaded", model=name)
            hint = tr("Load it: yibu load {model}", model=name)
        elif self.state == "failed":
            text = tr("model {model!r} has failed", model=name)
        else:
            text = tr("model {model!r} is {state}", model=name, state=self.state)
        if self.cause:
            text = tr("{name}: {text}", name=text, text=self.cause)
        return NotReadyError(text, hint=hint, retry_after=retry_after)

    def failed(self, error: YibuError) -> None:
        """Note why it has no replicas."""
        self.error = error
        self.failure = Failure(error.cause, time.time())

    def moved(self, replica: ReplicaSupervisor) -> None:
        """Show a replica's new state or phase."""
        if replica.state in ("ready", "failed"):
            self._came_up.add(replica.id)
        elif replica.id in self._came_up:  # another start, of which the download is no part
            self._came_up.discard(replica.id)
            self._timeline = Timeline()
        self._tell_phase(replica.id, replica.timeline.current)
        self._bus.publish(
            "state",
            self.name,
            replica=replica.id,
            state=replica.state,
            cause=replica.cause,
            phases=_when_ready(replica.state, replica.timeline.seconds(time.monotonic())),
        )
        self.show()

    def show(self, waiting: State | None = None) -> None:
        """Publish the model's state if it changed; ``waiting`` is the state without replicas."""
        self.waiting = waiting or self.waiting
        self._route = None
        now = (self.state, self.cause)
        if now != self._shown and not self._replaced:
            self._shown = now
            self._bus.publish(
                "state",
                self.name,
                replica=None,
                state=now[0],
                cause=now[1],
                phases=_when_ready(now[0], self.phases),
                on_demand=self.config.on_demand,
            )

    def displaces(self, others: Sequence[str]) -> None:
        """Show, and keep in the log, for whom others are unloaded."""
        names = ", ".join(others)
        _log.info("%s waits for %s to make room", self.name, names)
        self.entered(WAIT)
        self.note(tr("waits for {others} to make room", others=names))

    def waits_for(self, others: Sequence[str]) -> None:
        """Show that it waits for memory."""
        self.entered(WAIT)
        self.note(
            tr(
                "waits for memory that is reserved for {others}, until it has started",
                others=", ".join(others),
            )
        )

    def entered(self, phase: str) -> None:
        self._timeline.enter(phase, time.monotonic())
        self._tell_phase(None, phase)

    def _tell_phase(self, replica: str | None, phase: str | None) -> None:
        if self._phases_shown.get(replica) != phase:
            self._phases_shown[replica] = phase
            if phase is not None:
                self._bus.publish("phase", self.name, replica=replica, phase=phase)

    def _progress(self, progress: Progress) -> None:
        self._bus.publish("progress", self.name, **progress.plain())

    def note(self, text: str) -> None:
        self._bus.publish("note", self.name, text=safe(text))


def _saved(replica: ReplicaSupervisor, number: int) -> SavedReplica:
    process = replica.process
    return SavedReplica(
        id=replica.id,
        number=number,
        spec=replica.spec,
        port=replica.port,
        key=replica.key,
        restarts=replica.restarts,
        marker=process.marker if process else None,
        process=process.identity if process else None,
        shared=tuple(sorted(process.shared)) if process else (),
        asleep=replica.asleep,
    )


def _when_ready(state: State, phases: dict[str, float]) -> dict[str, float]:
    return phases if state == "ready" else {}
