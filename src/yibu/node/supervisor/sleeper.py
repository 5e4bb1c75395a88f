"""The sleep of one replica's engine: when it begins, and what ends it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from yibu.engines.base import Endpoint
from yibu.engines.sleep import SleepCall, SleepPlan
from yibu.messages import tr
from yibu.node.launch.process import EngineProcess
from yibu.node.supervisor.orders import Orders
from yibu.node.tasks import first_of
from yibu.redaction import redact
from yibu.upstream.ask import ask
from yibu.upstream.connection import UpstreamError

_LIMIT = 1 << 20
_LOOK = 10.0
"""Seconds for the question whether it sleeps."""


class SleepError(Exception):
    """The engine did not do as it was asked; what it is in now is not known."""


@dataclass(frozen=True, slots=True)
class Asleep:
    """How an engine sleeps."""

    level: int
    said: str
    """What it answered just before to a request whose answer must not change."""


def levels(plan: SleepPlan | None) -> tuple[tuple[int, int], ...]:
    """The levels at which an engine can sleep, each with the bytes of main memory that it takes."""
    return () if plan is None else tuple((level.number, level.memory) for level in plan.levels)


async def is_asleep(endpoint: Endpoint, plan: SleepPlan) -> bool:
    """Whether the engine sleeps. Raises SleepError where it does not say."""
    try:
        answer = await ask(endpoint, "GET", plan.asleep_path, seconds=_LOOK, limit=_LIMIT)
        return bool(json.loads(answer.body)[plan.asleep_field])
    except (UpstreamError, ValueError, KeyError, TypeError) as error:
        raise SleepError(f"GET {plan.asleep_path}: {error!r}") from error


async def fall_asleep(endpoint: Endpoint, plan: SleepPlan, number: int) -> Asleep:
    """Have the engine sleep at this level.

    Raises:
        SleepError: it does not.
    """
    level = plan.level(number)
    if level is None:
        raise SleepError(tr("it has no level {level}", level=number))
    asleep = Asleep(number, await _say(endpoint, plan))
    await _calls(endpoint, plan, level.enter)
    if not await is_asleep(endpoint, plan):
        raise SleepError(tr("it said that it does, and is awake"))
    return asleep


async def wake(endpoint: Endpoint, plan: SleepPlan, asleep: Asleep) -> None:
    """Have the engine work again, and see that it answers as it did before.

    Raises:
        SleepError: it does not, or answers something else: its weights are not what they were.
    """
    level = plan.level(asleep.level)
    if level is None:
        raise SleepError(tr("it has no level {level}", level=asleep.level))
    await _calls(endpoint, plan, level.leave)
    said = await _say(endpoint, plan)
    if said != asleep.said:
        raise SleepError(
            tr(
                "it answers {said!r}, and answered {before!r} before",
                said=said[:80],
                before=asleep.said[:80],
            )
        )


async def _say(endpoint: Endpoint, plan: SleepPlan) -> str:
    if plan.same is None:
        return ""
    answer = await _call(endpoint, plan, plan.same)
    try:
        return json.dumps(json.loads(answer)["choices"], sort_keys=True)
    except (ValueError, KeyError, TypeError) as error:
        raise SleepError(
            tr(
                "POST {same_path}: no choices in {answer!r}",
                same_path=plan.same.path,
                answer=answer[:80],
            )
        ) from error


async def _calls(endpoint: Endpoint, plan: SleepPlan, calls: Sequence[SleepCall]) -> None:
    for call in calls:
        await _call(endpoint, plan, call)


async def _call(endpoint: Endpoint, plan: SleepPlan, call: SleepCall) -> bytes:
    body = b"" if call.body is None else json.dumps(dict(call.body)).encode()
    kind = [(b"content-type", b"application/json")] if body else []
    how: dict[str, Any] = {"seconds": plan.timeout, "limit": _LIMIT, "headers": kind, "body": body}
    try:
        answer = await ask(endpoint, "POST", call.path, **how)
    except UpstreamError as error:
        raise SleepError(f"POST {call.path}: {error}") from error
    if not answer.ok:
        raise SleepError(
            tr(
                "POST {request_path}: HTTP {answer_status}: {excerpt}",
                request_path=call.path,
                answer_status=answer.status,
                excerpt=redact(answer.excerpt()),
            )
        )
    return answer.body


_log = logging.getLogger(__name__)


class Sleeper:
    """``asleep`` says how the engine sleeps; None while it is awake."""

    def __init__(self, plan: SleepPlan | None, orders: Orders, asleep: Asleep | None) -> None:
        self.asleep = asleep
        self.level = 0
        """At which it is to sleep next."""
        self._plan = plan
        self._orders = orders
        self._wanted = asyncio.Event()

    @property
    def can(self) -> bool:
        return self._plan is not None

    def want_awake(self) -> None:
        self._wanted.set()

    def awake(self) -> None:
        """The engine was started anew."""
        self.asleep = None
        self._wanted.clear()

    async def found(self, endpoint: Endpoint) -> bool:
        """Whether an engine of an earlier node sleeps."""
        if self._plan is None:
            return False
        try:
            asleep = await is_asleep(endpoint, self._plan)
        except SleepError as error:
            _log.warning("%s: whether it sleeps cannot be told: %s", endpoint.replica, error)
            return self.asleep is not None
        if asleep and self.asleep is None:  # its node was killed while it fell asleep
            self.asleep = Asleep(self._plan.levels[0].number, "")
        elif not asleep:
            self.asleep = None
        return asleep

    async def fall(self, endpoint: Endpoint) -> None:
        """Have it sleep; an order ends that.

        Raises:
            SleepError: it does not.
        """
        assert self._plan is not None
        self._wanted.clear()
        self._orders.done()
        self.asleep = await self._orders.interrupt(fall_asleep(endpoint, self._plan, self.level))

    async def over(self, process: EngineProcess) -> bool:
        """Wait until it is to wake (True), or there is another order (False).

        Raises:
            SleepError: it ended.
        """
        await self._orders.interrupt(self._woken_or_ended(process))
        if process.exited:
            raise SleepError(tr("it ended while it slept"))
        return self._orders.latest is None

    async def _woken_or_ended(self, process: EngineProcess) -> None:
        async with first_of(process.wait(), self._wanted.wait()):
            return

    async def wake(self, endpoint: Endpoint) -> None:
        """Have it work again.

        Raises:
            SleepError: it does not, or not as before.
        """
        assert self._plan is not None
        assert self.asleep is not None
        self._wanted.clear()
        await wake(endpoint, self._plan, self.asleep)
        self.asleep = None
