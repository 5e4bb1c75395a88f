"""The console's requests to the node, carried out in the node's process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from yibu.config import ModelConfig
from yibu.errors import NotReadyError, YibuError
from yibu.hub.types import Progress
from yibu.management import catalogue, log_reading, proposals
from yibu.management.context import Context, open_store
from yibu.management.difference import before_last_apply
from yibu.management.files import ConfigFile
from yibu.management.sources import resolve_source
from yibu.messages import tr
from yibu.node.control.control import Control
from yibu.node.fleet.fleet import Fleet
from yibu.node.history import History, Served
from yibu.node.machine.hardware import gpus, gpus_busy
from yibu.node.tasks import in_own_thread
from yibu.planner.types import Gpu

Change = dict[str, Any]
"""Fields of the control socket's ``apply``."""


class NothingAppliedError(YibuError):
    """There is no earlier configuration."""

    cause = "nothing_applied"


class NodeManager:
    """``yibu.gateway.manager.Manager``: the control socket's operations without the socket, and what the
    command line does beside them."""

    def __init__(self, context: Context, fleet: Fleet, file: str | None) -> None:
        """``file`` is the one with which the node was started."""
        self._context = context
        self._fleet = fleet
        self._control: Control | None = None
        self._file = ConfigFile(context, file)

    def attach(self, control: Control) -> None:
        """Carry out operations through this control from now on."""
        self._control = control

    @property
    def file(self) -> ConfigFile:
        """The file that the node's settings come from."""
        path = self._control.settings.value.file if self._control else None
        if path and Path(path) != self._file.path:
            self._file = ConfigFile(self._context, path)
        return self._file

    @property
    def directories(self) -> Mapping[str, Path]:
        paths = self._context.paths
        return {one: getattr(paths, one) for one in ("store", "environments", "logs", "state")}

    async def ask(self, operation: str, **fields: Any) -> Any:
        """Raises YibuError."""
        return await self._attached().answer({"op": operation, **fields}, _drop, _drop_descriptors)

    def configs(self) -> Sequence[ModelConfig]:
        return self._fleet.configs()

    def events(self) -> AbstractContextManager[AsyncIterable[Mapping[str, Any]]]:
        return self._fleet.events()

    def gpus(self) -> tuple[Sequence[Gpu], Mapping[int, float]]:
        found = gpus()
        return found, gpus_busy() if found else {}

    def file_models(self) -> Sequence[ModelConfig]:
        return self.file.models()

    def catalogue(self, word: str | None) -> list[dict[str, Any]]:
        return catalogue.rows(word, self._context.machine())

    async def plan(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        held = await self._fleet.reserved()
        return await in_own_thread(partial(proposals.plan, wanted, self._context, self.file, held))

    async def pull(
        self, model: str, report: Callable[[Mapping[str, Any]], None], cancel: threading.Event
    ) -> None:
        loop = asyncio.get_running_loop()

        def progressed(progress: Progress) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the node has ended
                loop.call_soon_threadsafe(report, progress.plain())

        def work() -> None:
            source = resolve_source(model, self._context.directory)
            open_store(self._context).pull(source, progress=progressed, cancel=cancel)

        try:
            await in_own_thread(work)
        finally:
            cancel.set()

    def read_file(self) -> dict[str, Any]:
        return self.file.read()

    def served_before(self) -> list[dict[str, Any]]:
        return [served.shown() for served in self._before()]

    def _before(self) -> Sequence[Served]:
        settings = self._attached().settings.value
        return History(self._context.paths.history).before(self._fleet.wanted(), settings)

    def check_file(self, text: str) -> dict[str, Any]:
        return self.file.check(text)

    async def compare_file(self, text: str) -> dict[str, Any]:
        told = await self.ask("configs")
        return await asyncio.to_thread(self.file.compare, text, told)

    async def write_file(self, text: str, sha256: str) -> Change:
        told = await self.ask("configs")
        found = await asyncio.to_thread(self.file.difference, text, told)
        await asyncio.to_thread(self.file.write, text, sha256)
        return found.request

    def _attached(self) -> Control:
        """Raises NotReadyError before there is one."""
        if self._control is None:
            raise NotReadyError("The node is still starting", retry_after=1)
        return self._control

    async def change_back(self, until: int | None) -> Change:
        kept = await asyncio.to_thread(self._before)
        wanted = next((one for one in kept if until in (None, one.until)), None)
        told = await self.ask("configs")
        found = before_last_apply({**told, "previous": wanted and wanted.plain()})
        if wanted is None or found is None:
            raise NothingAppliedError(
                tr("There is nothing to go back to: nothing was applied here.")
                if until is None
                else tr("What was served until then is not kept any longer"),
                hint=tr("yibu apply"),
            )
        # An older set is applied like any other: what is served now can be had back from the history.
        return {**found.request, "rollback": wanted.until if wanted is kept[0] else None}

    def logs(self) -> list[dict[str, Any]]:
        return log_reading.listing(self._context.paths)

    def lines(self, names: Sequence[str], wanted: Mapping[str, Any]) -> list[dict[str, object]]:
        return log_reading.rows(self._context.paths, names, wanted)

    def follow(
        self, names: Sequence[str], wanted: Mapping[str, Any]
    ) -> Callable[[], list[dict[str, object]]]:
        return log_reading.followed_rows(self._context.paths, names, wanted)


async def _drop(_event: Mapping[str, Any]) -> None:
    """Ignore events: whoever wants them subscribes."""


def _drop_descriptors(_descriptors: Sequence[int]) -> None:
    """Ignore descriptors: the console asks for none."""
