"""What the console asks of the node, carried out in the node's own process."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from yibu.config import ModelConfig
from yibu.errors import NotReadyError
from yibu.management.context import Context
from yibu.management.files import ConfigFile
from yibu.node.control import Control
from yibu.node.fleet import Fleet
from yibu.node.hardware import gpus, gpus_busy
from yibu.planner.types import Gpu

_log = logging.getLogger(__name__)


class NodeManager:
    """``yibu.gateway.manager.Manager``: the control socket's operations without the socket, and what the
    command line does beside them."""

    def __init__(self, context: Context, fleet: Fleet, source: Mapping[str, Any]) -> None:
        """``source`` says where the node's settings came from."""
        self._context = context
        self._fleet = fleet
        self._control: Control | None = None
        self.file = ConfigFile(context, source)

    def attach(self, control: Control) -> None:
        """Carry operations out by it from now on."""
        self._control = control

    @property
    def directories(self) -> Mapping[str, Path]:
        paths = self._context.paths
        return {
            "store": paths.store,
            "environments": paths.environments,
            "logs": paths.logs,
            "state": paths.state,
        }

    async def ask(self, operation: str, **fields: Any) -> Any:
        """Raises YibuError."""
        if self._control is None:
            raise NotReadyError("The node is still starting", retry_after=1)
        return await self._control.answer({"op": operation, **fields}, _drop, _drop_descriptors)

    def configs(self) -> Sequence[ModelConfig]:
        return self._fleet.configs()

    def events(self) -> AbstractContextManager[AsyncIterable[Mapping[str, Any]]]:
        return self._fleet.events()

    def gpus(self) -> tuple[Sequence[Gpu], Mapping[int, float]]:
        found = gpus()
        return found, gpus_busy() if found else {}

    def file_models(self) -> Sequence[ModelConfig]:
        return self.file.models()


async def _drop(_event: Mapping[str, Any]) -> None:
    """Whoever wants events subscribes to them."""


def _drop_descriptors(_descriptors: Sequence[int]) -> None:
    """The console asks for none."""
