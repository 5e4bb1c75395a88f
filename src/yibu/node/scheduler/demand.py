"""How many replicas of a generation there should be, and which are too many."""

from __future__ import annotations

import math

from yibu.node.scheduler.model import Model
from yibu.node.scheduler.types import Desired, Replica

_UNBOUNDED_SLOTS = 8
"""What a replica is taken to work on at once whose engine does not say."""


def target(model: Model, desired: Desired) -> int:
    """Replicas that are wanted of a generation."""
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
    """The replicas to be stopped, so that ``count`` are left: those first that do least."""
    living = desired.living()
    if len(living) <= count:
        return []
    order = ("wanted", "placed", "starting", "ready")
    living.sort(key=lambda r: (order.index(r.state), r.in_flight, -r.number))
    return living[: len(living) - count]


def up(desired: Desired) -> bool:
    """Whether the generation is served as it was wanted."""
    if desired.stage != "prepared" and not desired.replicas:
        return False
    if not desired.started:
        return True
    gone = ("stopping", "suspending", "asleep")
    replicas = [r for r in desired.replicas.values() if r.state not in gone]
    enough = len(replicas) >= min(desired.config.fewest, desired.most or desired.config.fewest)
    return enough and all(replica.state == "ready" for replica in replicas)


def overslept(model: Model, now: float) -> list[Replica]:
    """Replicas that sleep for so long that they are to be unloaded."""
    current = model.current
    return [r for r in current.asleep() if now - r.slept_at >= current.config.asleep]


def review(model: Model, now: float, scale_down: float) -> None:
    """Unload what nobody has asked for, and follow the load; called as time passes. ``scale_down`` is
    seconds of less load before a replica is given up."""
    current = model.current
    if current.most is not None and now >= current.retry_at:
        current.most = None
    if not current.started or model.next is not None:
        return
    if current.config.on_demand and _unused(model, now):
        current.started = False
    elif current.config.autoscale is not None:
        _follow(model, now, scale_down)


def _unused(model: Model, now: float) -> bool:
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


def _follow(model: Model, now: float, scale_down: float) -> None:
    """Scale up at once, and down when the load has been lower for a while: a replica that still answers
    gets no more requests, and ends when it is idle."""
    current, auto = model.current, model.current.config.autoscale
    assert auto is not None
    slots = next((r.slots for r in model.ready if r.slots), None) or _UNBOUNDED_SLOTS
    outstanding = model.in_flight + len(model.queue)
    fewest = current.config.fewest
    wanted = min(max(math.ceil(outstanding / (slots * auto.target)), fewest), auto.max)
    if wanted >= fewest + current.scale:
        current.busy_at = now
        current.scale = wanted - fewest
    elif now - current.busy_at >= scale_down:
        current.scale -= 1
        current.busy_at = now
