"""Whether a request without a replica waits, and how long."""

from __future__ import annotations

from yibu.errors import NotReadyError, OverloadedError, YibuError
from yibu.node.scheduler.model import ScheduledModel
from yibu.node.scheduler.types import Effects, Waiter

_FAILED = 60.0
_DOWN = 10.0
"""Retry-After in seconds for a failed model, and where nothing better is known."""


def deadline(
    model: ScheduledModel, waiter: Waiter, now: float, ready_wait: float, effects: Effects
) -> float:
    """When a request without a ready replica is given up.

    A crash of an engine that starts quickly costs its callers a pause, not an error, while a model
    that loads for minutes says so at once; one that is loaded on demand is waited for.

    Raises:
        OverloadedError: too many wait already.
        NotReadyError: no replica will be ready soon.
    """
    current, config = model.current, model.current.config
    if len(model.queue) >= room(model):
        raise OverloadedError(
            "The queue of model {model!r} is full; requests in it: {queue_count}",
            queue_count=len(model.queue),
            model=model.name,
            hint="Ask again later; max_queue of the model in yibu.yaml sets the limit",
            retry_after=retry_after(model, now),
            code="queue_full",
        )
    patience = now + config.queue_timeout
    replicas = [r for r in current.replicas.values() if r.state not in ("failed", "stopping")]
    if waiter.exclude:
        others = [replica for replica in replicas if replica.id not in waiter.exclude]
        if not others:
            raise effects.not_ready(model.name, _DOWN)
        # It has failed once: better told soon than after all that the others may wait.
        return patience if any(r.state == "ready" for r in others) else now + ready_wait
    if model.ready or model.next is not None or any(r.yielding for r in replicas):
        return patience
    sleeps = any(replica.slept is not None for replica in replicas)
    # What an earlier node served is prepared anew where something of it is to be started.
    prepared = current.stage == "prepared" or (current.served and current.stage != "failed")
    if config.on_demand and (prepared or sleeps):
        if now < current.retry_at:
            raise effects.not_ready(model.name, current.retry_at - now)
        return patience
    due = [replica.due - now for replica in replicas if replica.due is not None]
    if not due:
        raise effects.not_ready(model.name, again(model, now))
    if min(due) > ready_wait:
        raise effects.not_ready(model.name, max(min(due), 1.0))
    return now + ready_wait


def room(model: ScheduledModel) -> int:
    """Requests that may wait. While nothing of the model is ready, those that a loaded one would work on
    wait too, and one of them is what loads it."""
    config = model.current.config
    slots = 0 if model.ready else config.fewest * (config.max_concurrency or 1)
    return config.max_queue + slots


def retry_after(model: ScheduledModel, now: float) -> float:
    """Seconds until a new request is likely answered at once."""
    return max(model.rate.seconds(len(model.queue) + 1, now), 1.0)


def again(model: ScheduledModel, now: float) -> float:
    """Seconds until a client may ask again for a model of which nothing runs: a request then is not refused
    at once where it is loaded on demand."""
    current = model.current
    if current.config.on_demand and current.stage == "prepared":
        return max(current.retry_at - now, 1.0)
    failed = any(replica.state == "failed" for replica in current.replicas.values())
    return _FAILED if failed or current.stage == "failed" else _DOWN


def patient(model: ScheduledModel) -> bool:
    """Whether waiting requests wait for a start, which has its own timeout."""
    return (
        not model.ready
        and model.current.config.on_demand
        and any(
            replica.state in ("placed", "starting") for replica in model.current.replicas.values()
        )
    )


def waited(model: ScheduledModel, waiter: Waiter, now: float, effects: Effects) -> YibuError:
    """The error of a request that has waited too long."""
    if not model.ready:
        return effects.not_ready(model.name, 5.0)
    return NotReadyError(
        "the model {model!r} was busy for the {now:.0f} s that this request waited",
        model=model.name,
        now=now - waiter.since,
        hint="queue_timeout of the model in yibu.yaml sets the limit",
        retry_after=retry_after(model, now),
        code="queue_timeout",
    )


def pause(failures: int) -> float:
    """Seconds before a failed start is tried again for a request."""
    return float(min(5.0 * 2.0 ** (failures - 1), 60.0))
