"""Putting an engine to sleep and waking it, by the requests that its plan names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from yibu.engines.base import Endpoint
from yibu.engines.sleep import Call, SleepPlan
from yibu.messages import tr
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
        raise SleepError(tr("it has no level {number}", number=number))
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


async def _calls(endpoint: Endpoint, plan: SleepPlan, calls: Sequence[Call]) -> None:
    for call in calls:
        await _call(endpoint, plan, call)


async def _call(endpoint: Endpoint, plan: SleepPlan, call: Call) -> bytes:
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
                "POST {call_path}: HTTP {answer_status}: {excerpt}",
                call_path=call.path,
                answer_status=answer.status,
                excerpt=redact(answer.excerpt()),
            )
        )
    return answer.body
