"""The sleep of one replica's engine: when it begins, and what ends it."""

from __future__ import annotations

import asyncio
import logging

from yibu.engines.base import Endpoint
from yibu.engines.sleep import SleepPlan
from yibu.messages import tr
from yibu.node.launch.process import EngineProcess
from yibu.node.supervisor.orders import Orders
from yibu.node.supervisor.sleep import Asleep, SleepError, fall_asleep, is_asleep, wake
from yibu.node.tasks import first_of

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
