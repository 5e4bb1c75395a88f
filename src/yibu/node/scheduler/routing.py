"""Which ready replica a request goes to."""

from __future__ import annotations

from collections.abc import Sequence

from yibu.node.scheduler.types import Replica, Waiter

_OVERLOAD = 1.25
"""A replica that prefers a prompt is passed over when it has so many times the average load:
consistent hashing with bounded loads, https://arxiv.org/abs/1608.01350."""


def choose(ready: Sequence[Replica], waiter: Waiter) -> Replica | None:
    """The replica for a request; None where none has room.

    The fewest requests in flight, of equals the one that was used longest ago; with an affinity,
    the replica that equal prompts went to, unless it is busier than the others.
    """
    if not waiter.exclude and len(ready) == 1:
        only = ready[0]
        return only if waiter.slotless or only.has_room() else None
    able = [
        replica
        for replica in ready
        if replica.id not in waiter.exclude and (waiter.slotless or replica.has_room())
    ]
    if not able:
        return None
    if waiter.affinity is not None and len(able) > 1:
        return _preferred(able, ready, waiter.affinity)
    return min(able, key=_load)


def _load(replica: Replica) -> tuple[int, int]:
    return replica.in_flight, replica.turn


def _preferred(able: Sequence[Replica], ready: Sequence[Replica], affinity: int) -> Replica:
    """By rendezvous hashing: of the replicas' numbers, so that a restart changes nothing."""
    bound = _OVERLOAD * (sum(replica.in_flight for replica in ready) + 1) / len(ready)
    light = [replica for replica in able if replica.in_flight + 1 <= max(bound, 1)]
    if not light:
        return min(able, key=_load)
    return max(light, key=lambda replica: hash((affinity, replica.number)))
