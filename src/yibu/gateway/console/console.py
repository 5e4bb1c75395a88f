"""The console's state, which lives as long as the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from yibu.config import ModelConfig
from yibu.errors import NotReadyError
from yibu.gateway.console.assets import Assets
from yibu.gateway.console.history import FILE, MetricsHistory
from yibu.gateway.console.jobs import Jobs
from yibu.gateway.console.observer import Observer
from yibu.gateway.deps import GatewayDeps
from yibu.gateway.manager import Manager
from yibu.gateway.monitoring.metrics import GatewayMetrics
from yibu.gateway.sessions import Authentication

_STREAMS = 32
_WRITE = 60.0
"""Seconds between two writes of session use, or two tries on a full disk."""


class Console:
    """What the console's routes share."""

    def __init__(
        self,
        deps: GatewayDeps,
        authentication: Authentication,
        metrics: GatewayMetrics,
        ending: Callable[[], bool],
    ) -> None:
        """``ending`` says whether the process stops or is being replaced, so that streams end."""
        self.deps = deps
        self.authentication = authentication
        self.ending = ending
        self.assets = Assets()
        self.jobs = Jobs()
        self.saved = authentication.sessions.saved
        self._stopped: dict[str, ModelConfig] | None = None
        self.plans: set[asyncio.Task[dict[str, Any]]] = set()
        """Plans in progress."""
        self._streams = 0
        self._observer: Observer | None = None
        if deps.manager is not None:
            history = MetricsHistory(deps.manager.directories["state"] / FILE)
            self._observer = Observer(deps.manager, deps.backend, metrics, history)

    @property
    def manager(self) -> Manager:
        """Raises NotReadyError where this gateway has no node to manage."""
        if self.deps.manager is None:
            raise NotReadyError("This gateway has no node that could be managed")
        return self.deps.manager

    @property
    def observer(self) -> Observer:
        """Raises NotReadyError, as ``manager``."""
        if self._observer is None:
            raise NotReadyError("This gateway has no node that could be managed")
        return self._observer

    async def stopped(self) -> Mapping[str, ModelConfig]:
        """Models stopped in the console, which can be started again."""
        if self._stopped is None:
            found = await asyncio.to_thread(self.saved.stopped)
            self._stopped = self._stopped or {model.name: model for model in found}
        return self._stopped

    async def keep_stopped(self, config: ModelConfig, *, in_file: bool) -> None:
        """Remember a model that is about to be stopped. A model of the file starts again as the file
        then has it; any other is stored."""
        self._stopped = {**await self.stopped(), config.name: config}
        if not in_file:
            self.saved.add_stopped(config)
            await self.saved.write()

    async def forget_stopped(self, name: str) -> None:
        if name in (known := await self.stopped()):
            self._stopped = {key: model for key, model in known.items() if key != name}
            self.saved.remove_stopped(name)
            await self.saved.write()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the history and the downloads' progress until the block ends."""
        tasks = [asyncio.create_task(self._write(), name="console file")]
        if self._observer is not None:
            tasks += [
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
            await self.saved.write()

    async def _write(self) -> None:
        while True:
            await asyncio.sleep(_WRITE)
            await self.saved.write()

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Take one of the event streams that may be open at a time.

        Raises:
            NotReadyError: there are as many.
        """
        if self._streams >= _STREAMS:
            raise NotReadyError(
                "{limit} event streams are open already",
                limit=_STREAMS,
                hint="Close pages of the console that nobody looks at",
                code="too_many_streams",
                retry_after=10,
            )
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1
