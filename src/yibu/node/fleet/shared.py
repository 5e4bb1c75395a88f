"""Requests of an old node, whose replicas a new node's scheduler grants.

Messages over the channel of the upgrade (:mod:`yibu.channel`), once the new node serves:

| old node | new node |
|---|---|
| ``{"lease": {…}, "replica": name, "id": n}``: it has that one; without: it waits | |
| | ``{"answer": n, "endpoint": {…}}`` or ``{"answer": n, "error": {…}}`` |
| ``{"progress": replica}``, at most once a second | |
| ``{"released": n, "failed": …}``: the request is over, or not wanted any more | |

So ``max_concurrency`` and ``max_queue`` hold for both together, an engine with a request of the old node is
neither unloaded as idle nor taken for hung, and one that is drained waits for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from yibu.channel import Channel, Message
from yibu.engines.base import Endpoint
from yibu.errors import YibuError
from yibu.node.fleet.lease import Lease
from yibu.node.fleet.runner import Runner
from yibu.node.machine.processes import Identity, alive
from yibu.plain_errors import plain_error, rebuild_error

_PROGRESS = 1.0
_FIELDS = ("model", "key", "priority", "affinity", "slotless", "since", "deadline", "weight")


class ReplicasSuccessor:
    """The new node's scheduler, as this node's leases see it. Without a channel requests wait until the
    old node has reported what it has in flight."""

    def __init__(self, channel: Channel | None = None) -> None:
        self._channel = channel
        self._numbers: dict[Lease, int] = {}
        self._told: dict[str, float] = {}

    @property
    def asked(self) -> bool:
        """Whether the other node grants the replicas."""
        return self._channel is not None

    def request(self, lease: Lease) -> None:
        """Ask the other node for a replica."""
        lease.scheduler = self
        self._numbers[lease] = 0
        if self._channel is not None:
            message = self._numbered(lease)
            self._channel.ask(message).add_done_callback(partial(self._heard, lease))

    def take(self, lease: Lease) -> None:
        """Register a lease to which this node's scheduler has granted a replica."""
        assert self._channel is not None
        assert lease.supervisor is not None
        replica = lease.supervisor.id
        self._channel.send({**self._numbered(lease), "replica": replica})
        lease.scheduler, lease.supervisor = self, self._elsewhere(replica, lease.found)

    def answered(self, _lease: Lease, _now: float) -> None:
        """Do nothing: the replica's release has told the other node."""

    def left(self, lease: Lease, _now: float) -> None:
        self._over(lease, failed=False)

    def gone(self) -> list[Lease]:
        """Close the channel; returns the requests that wait or run."""
        self._channel, leases = None, list(self._numbers)
        self._numbers.clear()
        return leases

    def _numbered(self, lease: Lease) -> Message:
        assert self._channel is not None
        number = self._numbers[lease] = self._channel.number()
        fields = {name: getattr(lease, name) for name in _FIELDS}
        return {"lease": {**fields, "exclude": list(lease.exclude)}, "id": number}

    def _heard(self, lease: Lease, answered: asyncio.Future[Message]) -> None:
        if answered.cancelled() or lease not in self._numbers:
            return
        answer = answered.result()
        if "error" in answer:
            del self._numbers[lease]
            lease.refused(rebuild_error(answer["error"]))
            return
        found = _endpoint(answer["endpoint"])
        if not lease.taken(self._elsewhere(found.replica, found)):
            self._over(lease, failed=False)

    def _elsewhere(self, replica: str, endpoint: Endpoint | None) -> _Elsewhere:
        return _Elsewhere(replica, endpoint, partial(self._progressed, replica), self._over)

    def _over(self, lease: Lease, *, failed: bool) -> None:
        number = self._numbers.pop(lease, None)
        if number is not None and self._channel is not None:
            self._channel.send({"released": number, "failed": failed})

    def _progressed(self, replica: str) -> None:
        now = time.monotonic()
        if self._channel is not None and now - self._told.get(replica, 0.0) > _PROGRESS:
            self._told[replica] = now
            self._channel.send({"progress": replica})


@dataclass(slots=True)
class _Elsewhere:
    """A replica that another node supervises and counts requests of."""

    id: str
    endpoint: Endpoint | None
    progressed: Callable[[], None]
    over: Callable[..., None]

    def acquire(self, request: object) -> None:
        """Do nothing: the other node has granted it."""

    def release(self, request: object, *, failed: bool) -> None:
        self.over(request, failed=failed)


class ReplicasPredecessor:
    """The old node, whose requests use this node's replicas."""

    def __init__(self, channel: Channel, runner: Runner, request: Callable[[Lease], None]) -> None:
        self._channel, self._runner, self._request = channel, runner, request
        self._leases: dict[int, Lease] = {}

    def handle(self, message: Message) -> None:
        if (plain := message.get("lease")) is not None:
            lease = Lease(**{**plain, "exclude": frozenset(plain["exclude"])})
            if "replica" in message:
                self._occupied(message["id"], lease, message["replica"])
            else:
                self._wanted(message["id"], lease)
        elif (replica := message.get("progress")) is not None:
            if (supervisor := self._runner.supervisors.get(replica)) is not None:
                supervisor.progressed()
        elif (number := message.get("released")) is not None:
            self._over(number, failed=message["failed"])

    def gone(self) -> None:
        """End everything it had in flight."""
        for number in list(self._leases):
            self._over(number, failed=False)

    def _occupied(self, number: int, lease: Lease, replica: str) -> None:
        """Count a request of the old node on a replica, unless this node does not have that replica."""
        lease.scheduler = scheduler = self._runner.scheduler
        supervisor, now = self._runner.supervisors.get(replica), time.monotonic()
        if supervisor is not None and scheduler.occupied(replica, lease, now):
            lease.given(supervisor)
            self._leases[number] = lease

    def _wanted(self, number: int, lease: Lease) -> None:
        since, deadline = lease.since, lease.deadline
        try:
            self._request(lease)
        except YibuError as error:
            self._channel.send({"answer": number, "error": plain_error(error)})
            return
        self._leases[number] = lease
        if not lease.waits:
            self._granted(number, lease)
            return
        lease.since, lease.deadline = since or lease.since, min(deadline, lease.deadline)
        lease.outcome().add_done_callback(lambda _: self._granted(number, lease))

    def _granted(self, number: int, lease: Lease) -> None:
        if number not in self._leases:
            return
        error = lease.future.exception() if lease.future is not None else None
        if isinstance(error, YibuError):
            del self._leases[number]
            self._channel.send({"answer": number, "error": plain_error(error)})
        else:
            self._channel.send({"answer": number, "endpoint": _plain(lease.endpoint)})

    def _over(self, number: int, *, failed: bool) -> None:
        lease = self._leases.pop(number, None)
        if lease is None:
            return
        assert lease.scheduler is not None
        if lease.waits:
            lease.scheduler.left(lease, time.monotonic())
        else:
            lease.release(failed=failed)


def _plain(endpoint: Endpoint) -> Message:
    names = ("replica", "host", "port", "key", "served_name")
    plain = {name: getattr(endpoint, name) for name in names}
    process = endpoint.alive.args[0] if isinstance(endpoint.alive, partial) else None
    return {**plain, "process": process and [process.pid, process.started]}


def _endpoint(plain: Message) -> Endpoint:
    process = plain.pop("process")
    found = Endpoint(**plain)
    return replace(found, alive=partial(alive, Identity(*process))) if process else found
