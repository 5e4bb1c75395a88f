"""What the console asks of the node."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from yibu.config import ModelConfig
from yibu.planner.types import Gpu

Change = dict[str, Any]
"""Fields of the control socket's ``apply``: models and settings, and names of models to take down."""


class Manager(Protocol):
    """The node, for a caller with the command line's rights."""

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
        """The configurations of the models that are up."""
        ...

    def events(self) -> AbstractContextManager[AsyncIterable[Mapping[str, Any]]]:
        """The node's events, from now until the block ends."""
        ...

    def gpus(self) -> tuple[Sequence[Gpu], Mapping[int, float]]:
        """The machine's GPUs, and how busy each is, in per cent. Blocking."""
        ...

    def file_models(self) -> Sequence[ModelConfig]:
        """The models of the node's yibu.yaml, as they would be brought up; none where it cannot be
        read. Blocking."""
        ...

    def catalogue(self, word: str | None) -> list[dict[str, Any]]:
        """The catalogue, with what would fit here. Blocking."""
        ...

    async def plan(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Needs and placement of models. Raises YibuError."""
        ...

    async def pull(
        self, model: str, report: Callable[[Mapping[str, Any]], None], cancel: threading.Event
    ) -> None:
        """Have a model's files on this disk. ``report`` gets the fields of ``progress`` events, on the
        event loop; ``cancel`` ends it, and what has come stays for the next time. Raises YibuError."""
        ...

    def read_file(self) -> dict[str, Any]:
        """The node's yibu.yaml. Blocking. Raises ConfigError."""
        ...

    def served_before(self) -> list[dict[str, Any]]:
        """The history, the latest first: ``until``, ``models`` and the gateway's ``settings``. Blocking."""
        ...

    def check_file(self, text: str) -> dict[str, Any]:
        """The faults in a text for the file. Blocking."""
        ...

    async def compare_file(self, text: str) -> dict[str, Any]:
        """What applying a text of the file would change."""
        ...

    async def write_file(self, text: str, sha256: str) -> Change:
        """Write the file, if it still has this digest; returns what has to be applied then.

        Raises:
            YibuError: it cannot be used or written, or the file is another one.
        """
        ...

    async def change_back(self, until: int | None) -> Change:
        """The change that restores what was served ``until`` then, or before the last change. Raises
        YibuError."""
        ...

    def logs(self) -> list[dict[str, Any]]:
        """Each log's ``name``, its ``bytes`` with its rotated files, how many ``files`` those are, and when
        it was last written (``modified``). Blocking."""
        ...

    def lines(self, names: Sequence[str], wanted: Mapping[str, Any]) -> list[dict[str, object]]:
        """The last lines of logs, of all without ``names``; ``wanted`` has ``lines``, ``level``,
        ``search`` and ``since``. Blocking. Raises YibuError."""
        ...

    def follow(
        self, names: Sequence[str], wanted: Mapping[str, Any]
    ) -> Callable[[], list[dict[str, object]]]:
        """A function that gives the lines that were written since it was called last, the latest ones at
        first. Both block. Raises YibuError."""
        ...
