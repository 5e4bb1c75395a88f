"""One request from the gateway, while it waits for a replica and while it has one."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Protocol

from yibu.engines.base import Endpoint
from yibu.node.scheduler import Waiter


class LeaseScheduler(Protocol):
    """Grants replicas to leases: this node's scheduler, or another node's."""

    def answered(self, lease: Lease, now: float, /) -> None: ...

    def left(self, lease: Lease, now: float, /) -> None: ...


class Supervisor(Protocol):
    """A replica that answers, of this node or of another."""

    id: str
    endpoint: Endpoint | None

    def acquire(self, request: object) -> None: ...

    def release(self, request: object, *, failed: bool) -> None: ...

    def progressed(self) -> None: ...


@dataclass(eq=False, slots=True)
class Lease(Waiter):
    """A request and the replica that answers it: ``yibu.routing.Lease``."""

    scheduler: LeaseScheduler | None = None
    supervisor: Supervisor | None = None
    future: asyncio.Future[None] | None = None
    found: Endpoint | None = None

    @property
    def endpoint(self) -> Endpoint:
        """Where the replica answers."""
        assert self.found is not None
        return self.found

    @property
    def waits(self) -> bool:
        """Whether it still waits for a replica."""
        return self.supervisor is None

    async def granted(self) -> None:
        """Wait for the replica.

        Raises:
            YibuError: it gets none.
        """
        if self.supervisor is not None:
            return
        try:
            await self.outcome()
        except asyncio.CancelledError:
            assert self.scheduler is not None
            if self.supervisor is not None:  # it got one in the same moment
                self.release()
            else:
                self.scheduler.left(self, time.monotonic())
            raise

    def outcome(self) -> asyncio.Future[None]:
        """Done when a replica is granted or refused."""
        if self.future is None:
            self.future = asyncio.get_running_loop().create_future()
        return self.future

    def given(self, supervisor: Supervisor) -> None:
        """Use this replica."""
        self.supervisor, self.found = supervisor, supervisor.endpoint
        supervisor.acquire(self)

    def progress(self) -> None:
        """Note that a part of the answer came: the engine does not hang, however long its answers are."""
        assert self.supervisor is not None
        self.supervisor.progressed()

    def release(self, *, failed: bool = False) -> None:
        """End the request; ``failed`` when the replica broke the connection."""
        assert self.supervisor is not None
        assert self.scheduler is not None
        self.supervisor.release(self, failed=failed)
        self.scheduler.answered(self, time.monotonic())

    def refused(self, error: Exception) -> None:
        """Refuse it with an error."""
        if not self.outcome().done():
            self.outcome().set_exception(error)

    def taken(self, supervisor: Supervisor) -> bool:
        """Offer this replica; False where the request no longer waits."""
        if self.future is not None and self.future.done():
            return False
        self.given(supervisor)
        if self.future is not None:
            self.future.set_result(None)
        return True
