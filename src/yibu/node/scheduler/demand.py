"""How many replicas a generation should have, and which to stop."""

from __future__ import annotations

import math

from yibu.node.scheduler.model import ScheduledModel
from yibu.node.scheduler.types import Desired, Replica

_UNBOUNDED_SLOTS = 8
"""Concurrent requests assumed of a replica whose engine does not say."""


def target(model: ScheduledModel, desired: Desired) -> int:
    """The desired number of replicas of a generation."""
    living = len(desired.living())
    if any(replica.yielding for replica in desired.living()):
        return living  # they end one by one, as soon as each is idle
    if not desired.started:
        return 0
    count = desired.config.fewest + desired.scale
    if desired.most is not None:
        count = min(count, desired.most)
    if desired is model.current and model.next is not None:
        count = min(count, living)
    return count


def surplus(desired: Desired, count: int) -> list[Replica]:
    """The replicas to stop so that ``count`` are left, the least busy first."""
    living = desired.living()
    if len(living) <= count:
        return []
    order = ("wanted", "placed", "starting", "ready")
    living.sort(key=lambda r: (order.index(r.state), r.in_flight, -r.number))
    return living[: len(living) - count]


def up(desired: Desired) -> bool:
    """Whether the generation serves as desired."""
    if desired.stage != "prepared" and not desired.replicas:
        return False
    if not desired.started:
        return True
    gone = ("stopping", "suspending", "asleep")
    replicas = [r for r in desired.replicas.values() if r.state not in gone]
    enough = len(replicas) >= min(desired.config.fewest, desired.most or desired.config.fewest)
    return enough and all(replica.state == "ready" for replica in replicas)


def overslept(model: ScheduledModel, now: float) -> list[Replica]:
    """Replicas that have slept long enough to be unloaded."""
    current = model.current
    return [r for r in current.asleep() if now - r.slept_at >= current.config.asleep]


def review(model: ScheduledModel, now: float, scale_down: float) -> None:
    """Unload idle models and autoscale; called on every tick. ``scale_down`` is seconds of lower load
    before a replica is stopped."""
    current = model.current
    if current.most is not None and now >= current.retry_at:
        current.most = None
    if not current.started or model.next is not None:
        return
    if current.config.on_demand and _unused(model, now):
        current.started = False
    elif current.config.autoscale is not None:
        _follow(model, now, scale_down)


def _unused(model: ScheduledModel, now: float) -> bool:
    current = model.current
    if len(model.queue) or model.in_flight:
        return False
    living = current.living()
    if living and all(replica.state == "wanted" for replica in living):
        return current.asked  # who asked has gone before memory was found
    if not living or any(replica.state != "ready" for replica in living):
        return False
    used = max(model.last_used, *(replica.ready_since for replica in living))
    return now - used >= current.config.idle


def _follow(model: ScheduledModel, now: float, scale_down: float) -> None:
    """Scale up at once, and down after a time of lower load: a replica that still answers gets no new
    requests and stops when idle."""
    current, auto = model.current, model.current.config.autoscale
    assert auto is not None
    slots = next((r.slots for r in model.ready if r.slots), current.config.max_concurrency)
    slots = slots or _UNBOUNDED_SLOTS
    outstanding = model.in_flight + len(model.queue)
    fewest = current.config.fewest
    wanted = min(max(math.ceil(outstanding / (slots * auto.target)), fewest), auto.max)
    if wanted >= fewest + current.scale:
        current.busy_at = now
        current.scale = wanted - fewest
    elif now - current.busy_at >= scale_down:
        current.scale -= 1
        current.busy_at = now
