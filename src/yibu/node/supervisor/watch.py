"""Watching a ready engine: health checks, canaries, and the verdict that it hangs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Literal

from yibu import descriptors
from yibu.errors import EngineStartError
from yibu.messages import tr
from yibu.node.launch import probe
from yibu.node.launch.explanations import explain_exit
from yibu.node.launch.process import EngineProcess
from yibu.node.launch.spec import Host, LaunchSpec, Running
from yibu.node.machine import processes
from yibu.node.supervisor.liveness import Liveness
from yibu.node.tasks import first_of

_BUSY_SHARE = 0.05
"""Processes that use more than this share of one core are at work on something."""
_RETRY = 1.0
"""Seconds to the next health check after a failed one."""


class EngineWatch:
    """The effects around :class:`Liveness`, for one life of one engine."""

    def __init__(
        self,
        host: Host,
        spec: LaunchSpec,
        replica: str,
        running: Running,
        heard: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """``heard`` is told whether it answers its health path."""
        self._heard = heard
        self._host = host
        self._spec = spec
        self._replica = replica
        self._running = running
        self._plan = spec.plan
        self._timings = host.timings
        self._liveness = Liveness(host.timings, time.monotonic())
        self._poke = asyncio.Event()

    def progressed(self) -> None:
        """A whole answer, or a piece of a stream, came."""
        self._liveness.progressed(time.monotonic())

    def check_now(self) -> None:
        """A caller's connection broke: do not wait for the next turn."""
        self._poke.set()

    async def trouble(self, in_flight: Callable[[], int]) -> EngineStartError:
        """Return when the engine has ended or hangs, with the reason."""
        hanging = [self._find_silence(in_flight)]
        if (canary := self._running.canary) is not None:
            hanging.append(self._find_stall(canary, in_flight))
        async with first_of(self._running.process.wait(), *hanging) as (exited, *hangs):
            if not exited.done():
                found = next(task.result() for task in hangs if task.done())
                what = tr("{id}: the engine {sentence}", id=self._replica, sentence=found)
                hint = tr("yibu logs {model}", model=self._spec.model)
                return EngineStartError(what, hint=hint, cause="hung")
            life = self._running.life
            return explain_exit(self._host, self._spec, self._replica, life, exited.result())

    async def _find_silence(self, in_flight: Callable[[], int]) -> str:
        """Return when the engine does not answer its health path any more, with the reason as a clause."""
        work = _Work(self._running.process)
        await work.done()
        pause = self._timings.health_every
        while True:
            await self._pause(pause, in_flight)
            late = asyncio.get_running_loop().call_later(self._timings.silent, self._heard, False)
            try:
                silence = await self._ask_health()
            finally:
                late.cancel()
            self._heard(silence is None)
            busy, now = await work.done(), time.monotonic()
            if self._liveness.health(now, answered=silence is None, busy=busy):
                return tr(
                    "hangs: {silence}, {health_failures} times in a row",
                    silence=silence,
                    health_failures=self._liveness.health_failures,
                )
            pause = self._timings.health_every
            if silence is not None:
                pause = min(_RETRY, pause)

    async def _pause(self, seconds: float, in_flight: Callable[[], int]) -> None:
        """Wait for the next health check: less long where something should come of it and does not."""
        due = time.monotonic() + seconds
        while (left := due - time.monotonic()) > 0 and not self._poke.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, self._timings.quiet)):
                    await self._poke.wait()
            if self._liveness.wants_health(time.monotonic(), in_flight()):
                break
        self._poke.clear()

    async def _find_stall(self, canary: probe.TokenRequest, in_flight: Callable[[], int]) -> str:
        """Return when no token comes out of the engine, with the reason as a clause. Its health is
        asked for beside: a token is waited for much longer."""
        reason = None
        while reason is None:
            await asyncio.sleep(self._timings.health_every)
            if self._liveness.wants_canary(time.monotonic(), in_flight()):
                reason = await self._send_canary(canary)
        return reason

    async def _ask_health(self) -> str | None:
        """None when it answered 200 or could not be asked for want of descriptors, which is not its
        fault; else what happened instead."""
        path = self._plan.ready_path
        try:
            main = processes.process(self._running.process.pid)
        except OSError:
            return None
        if main is not None and main.stopped:
            return tr("its process is stopped")
        try:
            answer = await probe.get(self._running.endpoint, path, self._timings.health_request)
        except probe.ProbeError as error:
            return str(error) if descriptors.any_left() else None
        return (
            None
            if answer.status == 200
            else tr("GET {path}: HTTP {answer_status}", path=path, answer_status=answer.status)
        )

    async def _send_canary(self, request: probe.TokenRequest) -> str | None:
        """None when the engine lives, else why it counts as hung."""
        sent, work = time.monotonic(), _Work(self._running.process)
        await work.done()
        outcome: Literal["token", "error", "silence"]
        try:
            answer = await probe.one_token(self._running.endpoint, request, self._timings.canary)
        except probe.ProbeError as error:
            if not descriptors.any_left():
                return None
            outcome, found = "silence", str(error)
        else:
            # 429 says that it is full, and it answered: that is a sign of life.
            outcome = "error" if answer.status >= 500 else "token"
            found = tr(
                "POST {request_path}: HTTP {answer_status}",
                request_path=request.path,
                answer_status=answer.status,
            )
        hung = self._liveness.canary(
            time.monotonic(), outcome=outcome, sent=sent, busy=await work.done()
        )
        if not hung:
            return None
        return tr(
            "hangs: {ready_path} answers, but no tokens came ({found})",
            ready_path=self._plan.ready_path,
            found=found,
        )


class _Work:
    """Whether an engine's processes burn CPU."""

    def __init__(self, process: EngineProcess) -> None:
        self._process = process
        self._cpu = (time.monotonic(), 0.0)

    async def done(self) -> bool:
        """Whether they did since this was last asked; so they did where that cannot be seen for want
        of descriptors."""
        if not descriptors.any_left():
            return True
        then, before = self._cpu
        infos = await self._process.refresh()
        now, after = time.monotonic(), sum(info.cpu_seconds for info in infos)
        self._cpu = (now, after)
        return after - before > _BUSY_SHARE * (now - then)
