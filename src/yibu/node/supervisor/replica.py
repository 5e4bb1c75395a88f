"""One replica: an engine kept running, by one task that alone changes its state.

``pending → starting → ready ⇄ draining → stopped``, ``ready → draining → sleeping → starting``, and
``failed`` with a cause. Everyone else says what is wanted (stop, restart, sleep, wake) or waits for a change.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from functools import partial

from yibu import descriptors
from yibu.engines.base import Endpoint
from yibu.errors import EngineError, EngineStartError
from yibu.messages import brief, tr
from yibu.node.launch import launch
from yibu.node.launch.phases import WAIT, WAKE, Timeline
from yibu.node.launch.process import EngineProcess
from yibu.node.launch.spec import Host, LaunchSpec, Running
from yibu.node.machine import ports
from yibu.node.scheduler.starts import Start
from yibu.node.supervisor.failures import Failed, Failures
from yibu.node.supervisor.orders import Orders
from yibu.node.supervisor.sleeper import Asleep, Sleeper, SleepError
from yibu.node.supervisor.watch import EngineWatch
from yibu.redaction import register, register_environment, secret_flags
from yibu.routing import ReplicaStatus, State

_log = logging.getLogger(__name__)


class ReplicaSupervisor:
    """Owned by the fleet, which runs :meth:`run` as a task of its own."""

    def __init__(
        self,
        replica_id: str,
        spec: LaunchSpec,
        host: Host,
        on_change: Callable[[ReplicaSupervisor], None],
        *,
        restarts: int = 0,
        key: str | None = None,
        port: int | None = None,
        asleep: Asleep | None = None,
    ) -> None:
        self.id = replica_id
        self.spec = spec
        self.state: State = "pending"
        self.cause: str | None = None
        """A sentence: why it is ``failed``, or is being started again."""
        self.error: EngineStartError | None = None
        """What it failed with, the log's last lines included; None unless ``failed``."""
        self.restarts = restarts
        self.failures = Failures(host.timings)
        self.key = key or secrets.token_urlsafe(32)
        register_environment(spec.env)
        register(self.key, *(value for _, value in secret_flags(spec.plan.argv)))
        self.port = port
        self.process: EngineProcess | None = None
        self.endpoint: Endpoint | None = None
        """Where it answers; None unless it is ready."""
        self.timeline = Timeline()
        """The phases of its latest start."""
        self.requests: set[object] = set()
        """Those that it works on."""
        self.silent = False
        """It is ready, but its engine answers nothing at the moment."""
        self.start_cause = "asked"
        """What its latest start followed; see ``ReplicaStatus``."""
        self._host = host
        self._on_change = on_change
        self._patience = host.timings.drain
        self._watch: EngineWatch | None = None
        self._start_seconds: float | None = None
        self._due: float | None = None
        self._orders = Orders()
        self._sleeper = Sleeper(spec.plan.sleep, self._orders, asleep)
        self._idle = asyncio.Event()
        self._idle.set()
        self._ended = asyncio.Event()

    # What others may call.

    @property
    def asleep(self) -> Asleep | None:
        """How its engine sleeps; None while it is awake."""
        return self._sleeper.asleep

    @property
    def due(self) -> float | None:
        """Monotonic seconds at which it is likely ready; None: it never was, or will not be."""
        return self._due if self.state == "starting" else None

    @property
    def restarting(self) -> bool:
        """Whether a restart that was asked for is still to be carried out."""
        return self._orders.latest == "restart" or self.state in ("pending", "starting", "draining")

    def status(self) -> ReplicaStatus:
        """What metrics show of it."""
        return ReplicaStatus(
            self.spec.model,
            self.id,
            self.state,
            self.restarts,
            len(self.requests),
            self.failures.counts,
            self.failures.last,
            self.endpoint,
            self.start_cause,
        )

    def acquire(self, request: object) -> None:
        """A request goes to this replica."""
        self.requests.add(request)
        self._idle.clear()

    def release(self, request: object, *, failed: bool) -> None:
        """The request ended. A failed one makes the replica be looked at immediately; any other tells
        nothing of the engine, for its client may have given up (see :meth:`progressed`)."""
        self.requests.discard(request)
        if not self.requests:
            self._idle.set()
        if failed and self._watch is not None:
            self._watch.check_now()

    def progressed(self) -> None:
        """A whole answer, or a piece of a stream, came out of the engine."""
        if self._watch is not None:
            self._watch.progressed()

    async def idle(self) -> None:
        """Wait until no request is in flight."""
        await self._idle.wait()

    async def stop(self) -> None:
        """Let requests in flight finish, end the engine, and return when it is gone."""
        self.ask_stop()
        await self._ended.wait()

    def ask_stop(self, patience: float | None = None) -> None:
        """The same, without waiting; ``patience`` is seconds for the requests: None is ``Timings.drain``."""
        if patience is not None:
            self._patience = patience
        self._orders.give("stop")

    def restart(self) -> None:
        """Let requests in flight finish and start the engine anew; failures are forgotten."""
        if self._orders.latest is None:
            self._orders.give("restart")

    def ask_sleep(self, level: int) -> None:
        """Let requests in flight finish, and have the engine give its GPUs' memory up."""
        self._sleeper.level = level
        self._orders.give("sleep")

    def ask_wake(self) -> None:
        """Have a sleeping engine work again."""
        self._sleeper.want_awake()

    # The one writer.

    async def run(self, left: EngineProcess | None = None) -> None:
        """Keep the engine running until :meth:`stop`; ``left`` is one to adopt, if it answers."""
        try:
            if left is not None and self._orders.latest == "stop":  # it is not wanted any more
                await launch.take_down(self._host, self.spec, left, self.port)
            while self._orders.latest != "stop":
                if self._orders.latest == "sleep":  # it failed just then, and nobody needs it
                    self._orders.give("stop")
                    continue
                adopting, left = left, None
                try:
                    await self._answer(await self._live(adopting))
                except EngineError as stuck:  # something survived SIGKILL
                    await self._fail(
                        EngineStartError(stuck.message, hint=stuck.hint, cause="unkillable")
                    )
                except Exception as defect:  # noqa: BLE001 - keeps a defect met here from other models
                    _log.exception("replica %s", self.id)
                    what = tr("{id}: a defect in yibu: {defect!r}", id=self.id, defect=defect)
                    await self._fail(EngineStartError(what, cause="defect"))
                if self._orders.latest == "restart":
                    self._orders.done()
                    self.error = self.cause = None
                    self.failures.forget()
        finally:
            self._give_up_port()
            self.process = None
            self._change("stopped", None)
            self._ended.set()

    async def _live(self, left: EngineProcess | None) -> Failed | None:
        """One life of the engine; None when an order ended it."""
        self._change("sleeping" if left and self.asleep else "starting", self.cause)
        running = None
        try:
            work = partial(self._adopt, left) if left else self._start
            running = await self._orders.interrupt(descriptors.regained(self.id, work))
        except EngineStartError as error:
            return Failed(error, None)
        finally:
            if running is None:
                self._spawned(None)
        if running is None:
            return None
        since = time.monotonic()
        trouble = await self._serve(running)
        return None if trouble is None else Failed(trouble, time.monotonic() - since)

    async def _adopt(self, left: EngineProcess) -> Running:
        """Go on with an engine of an earlier node, or end it and start anew."""
        self._spawned(left)
        if self.port is None:
            return await self._start()
        where = (self._host, self.spec, self.id, self.port, self.key, left)
        if self._sleeper.can:
            sleeping = launch.found(*where)
            try:
                if await self._sleeper.found(sleeping.endpoint):
                    return sleeping
            except asyncio.CancelledError:  # what was half adopted must not stay
                await launch.take_down(self._host, self.spec, left, self.port)
                raise
        running = await launch.adopt(*where)
        if running is None:
            return await self._start()
        self.start_cause = "adopted"
        return running

    async def _start(self) -> Running:
        if self.port is not None and not ports.is_free(self.port):
            self._give_up_port()
        if self.port is None:
            self.port = self._host.ports.take()
        began = time.monotonic()
        self._sleeper.awake()
        self.start_cause = self.failures.start_cause()
        if self._start_seconds is not None:
            self._due = began + self._start_seconds
        async with self._start_slot():
            running = await launch.start(
                self._host, self.spec, self.id, self.port, self.key,
                self._spawned, self._entered,
            )  # fmt: skip
        self._start_seconds = time.monotonic() - began
        return running

    @contextlib.asynccontextmanager
    async def _start_slot(self) -> AsyncIterator[None]:
        """Wait until the engine may start; its phases are timed until the block ends."""
        self.timeline = Timeline()
        gpus, memory = frozenset(self.spec.gpus), self.spec.memory
        start = Start(self.id, gpus, memory, self.spec.plan.starts_alone)
        try:
            async with self._host.start_slot(start, lambda: self._entered(WAIT)):
                yield
        finally:
            self.timeline.end_start(time.monotonic())

    def _entered(self, phase: str) -> None:
        """A phase of the start begins."""
        self.timeline.enter(phase, time.monotonic())
        self._on_change(self)

    async def _serve(self, running: Running) -> EngineStartError | None:
        """Be ready until the engine ends or hangs (the error) or there is an order (None);
        then take it down."""
        self.failures.was_ready = True
        trouble = None
        try:
            while trouble is None and self._orders.latest in (None, "sleep"):
                if self.asleep is None:
                    trouble = await self._work(running)
                if trouble is None and (self.asleep or self._orders.latest == "sleep"):
                    trouble = await self._sleep(running)
            await self._leave(trouble)
        finally:  # whatever happens: an engine without its watcher must not stay
            await launch.take_down(self._host, self.spec, running.process, running.endpoint.port)
            self._spawned(None)
        return trouble

    async def _work(self, running: Running) -> EngineStartError | None:
        """Be ready until the engine ends or hangs (the error) or there is an order."""
        self.endpoint = running.endpoint
        self._watch = EngineWatch(self._host, self.spec, self.id, running, self._heard)
        self._change("ready", None)
        try:
            return await self._orders.interrupt(self._watch.trouble(lambda: len(self.requests)))
        finally:
            self._watch = None

    def _heard(self, answers: bool) -> None:
        if self.silent is answers:
            self.silent = not answers
            _log.warning("%s %s", self.id, "answers again" if answers else "does not answer")
            self._on_change(self)

    async def _sleep(self, running: Running) -> EngineStartError | None:
        """Sleep until the engine is woken or something else is wanted (None), or cannot be woken (the
        error). One that does not fall asleep, or ends meanwhile, is stopped."""
        waking = False
        try:
            if self.asleep is None:
                await self._drain()
                await self._sleeper.fall(running.endpoint)
            if self.asleep is None:
                return None
            self._change("sleeping", None)
            waking = await self._sleeper.over(running.process)
            if waking:
                await self._orders.interrupt(self._wake(running))
        except SleepError as error:
            if waking:
                text = tr("{id} was not woken: {error}", id=self.id, error=str(error))
                return EngineStartError(text, cause="wake_failed")
            text = tr("{id} does not sleep: {error}", id=self.id, error=str(error))
            failed = EngineStartError(text, cause="sleep_failed")
            self.failures.note(failed)
            _log.warning("%s; it is unloaded", failed.message)
            self._orders.give("stop")
        return None

    async def _wake(self, running: Running) -> None:
        self._change("starting", None)
        async with self._start_slot():
            self._entered(WAKE)
            await self._sleeper.wake(running.endpoint)
        self.start_cause = "woken"

    async def _leave(self, trouble: EngineStartError | None) -> None:
        """Say why the engine is about to be ended; let requests finish if it still works."""
        if trouble is not None:
            self._due = None
            self._change("starting", trouble.message)
        else:
            await self._drain()

    async def _drain(self) -> None:
        """Wait for the requests in flight, for a while."""
        self._change("draining", None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                await self.idle()

    async def _answer(self, failure: Failed | None) -> None:
        """Wait before the next start, or for an order when there is no point in starting."""
        if failure is None:
            return
        if failure.error.cause == "port_in_use" and failure.ready_seconds is None:
            self._give_up_port()
        delay = self.failures.delay(failure)
        if delay is None:
            await self._fail(failure.error)
            return
        self.failures.note(failure.error)
        if delay > 0:
            self.restarts += 1
            self._due = time.monotonic() + delay + (self._start_seconds or 0.0)
        sentence = brief(failure.error.message)
        self._change(
            "starting",
            tr("{sentence}; starting again in {delay:.1f} s", sentence=sentence, delay=delay),
        )
        await self._orders.interrupt(asyncio.sleep(delay))

    async def _fail(self, error: EngineStartError) -> None:
        """Stay ``failed`` until there is an order."""
        self.failures.note(error)
        self.error = error
        failures, text = self.failures.recent, brief(error.message)
        if failures > 1:
            text = tr("{text} ({failures} failures in a short time)", text=text, failures=failures)
        self._change("failed", text)
        await self._orders.any()

    def _give_up_port(self) -> None:
        if self.port is not None:
            self._host.ports.release(self.port)
            self.port = None

    def _spawned(self, process: EngineProcess | None) -> None:
        self.process = process
        self._on_change(self)

    def _change(self, state: State, cause: str | None) -> None:
        if (state, cause) != (self.state, self.cause):
            level = logging.ERROR if cause else logging.INFO
            _log.log(level, "%s %s%s", self.id, state, f" ({cause})" if cause else "")
        self.state, self.cause = state, cause
        self.silent = False
        if state != "ready":
            self.endpoint = None
        self._on_change(self)
