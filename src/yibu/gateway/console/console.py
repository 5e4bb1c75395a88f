"""What of the console lives as long as the gateway, whether or not somebody looks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from yibu.config import ModelConfig
from yibu.errors import NotReadyError
from yibu.gateway.console.assets import Assets
from yibu.gateway.console.history import FILE, History
from yibu.gateway.console.jobs import Jobs
from yibu.gateway.console.observer import Observer
from yibu.gateway.deps import GatewayDeps
from yibu.gateway.manager import Manager
from yibu.gateway.monitoring.metrics import Metrics
from yibu.gateway.sessions import Authentication
from yibu.messages import tr

_STREAMS = 32


class Console:
    """What the routes of the console have in common."""

    def __init__(
        self,
        deps: GatewayDeps,
        authentication: Authentication,
        metrics: Metrics,
        ending: Callable[[], bool],
    ) -> None:
        """``ending`` says whether the process stops or gives way to another, so that streams have to end."""
        self.deps = deps
        self.authentication = authentication
        self.ending = ending
        self.assets = Assets()
        self.jobs = Jobs()
        self.stopped: dict[str, ModelConfig] = {}
        """Models that were stopped here, to be started again."""
        self.plans: set[asyncio.Task[dict[str, Any]]] = set()
        """Those that are being made."""
        self._streams = 0
        self._observer: Observer | None = None
        if deps.manager is not None:
            history = History(deps.manager.directories["state"] / FILE)
            self._observer = Observer(deps.manager, deps.backend, metrics, history)

    @property
    def manager(self) -> Manager:
        """Raises NotReadyError where this gateway has no node to manage."""
        if self.deps.manager is None:
            raise NotReadyError(tr("This gateway has no node that could be managed"))
        return self.deps.manager

    @property
    def observer(self) -> Observer:
        """Raises NotReadyError, as ``manager``."""
        if self._observer is None:
            raise NotReadyError(tr("This gateway has no node that could be managed"))
        return self._observer

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the history, and what downloads do, until the block ends."""
        tasks = []
        if self._observer is not None:
            tasks = [
                asyncio.create_task(self._observer.keep(), name="metrics history"),
                asyncio.create_task(self._observer.follow(), name="console progress"),
            ]
        try:
            yield
        finally:
            ending: list[asyncio.Task[Any]] = [*tasks, *self.plans]
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
            await self.jobs.aclose()

    @contextmanager
    def stream(self) -> Iterator[None]:
        """One of the event streams that may be open at a time.

        Raises:
            NotReadyError: there are as many.
        """
        if self._streams >= _STREAMS:
            raise NotReadyError(
                tr("{STREAMS} event streams are open already", STREAMS=_STREAMS),
                hint=tr("close pages of the console that nobody looks at"),
                code="too_many_streams",
                retry_after=10,
            )
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1
