"""What the console asks of the node: given by whoever wires the two together."""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from yibu.config import ModelConfig
from yibu.planner.types import Gpu


class Manager(Protocol):
    """The node, for somebody who may do with it what its command line can."""

    @property
    def directories(self) -> Mapping[str, Path]:
        """Where things are kept: ``store``, ``logs``, ``state``, ``environments``."""
        ...

    async def ask(self, operation: str, **fields: Any) -> Any:
        """Carry out an operation of the control socket, and return its result.

        Raises:
            YibuError: it is refused, or it failed.
        """
        ...

    def configs(self) -> Sequence[ModelConfig]:
        """What is up, as it was asked for."""
        ...

    def events(self) -> AbstractContextManager[AsyncIterable[Mapping[str, Any]]]:
        """What happens in the node, from now until the block ends."""
        ...

    def gpus(self) -> tuple[Sequence[Gpu], Mapping[int, float]]:
        """The machine's, and how busy each is, in per cent. Blocking."""
        ...

    def file_models(self) -> Sequence[ModelConfig]:
        """The models of the node's yibu.yaml, as they would be brought up; none where it cannot be
        read. Blocking."""
        ...
