"""The sets of models that were served before, for ``yibu rollback``: one file, the owner's alone."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yibu.config import ModelConfig
from yibu.config.wire import model_config, plain_config
from yibu.node.state import write_atomically

_log = logging.getLogger(__name__)
_KEPT = 10


@dataclass(frozen=True, slots=True)
class Served:
    """What was served until something was applied."""

    until: int
    """Unix seconds."""
    models: tuple[ModelConfig, ...]


class History:
    """Blocking, and used by one node at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def push(self, models: Sequence[ModelConfig]) -> None:
        """Something else is about to be served. Raises OSError where that cannot be written down."""
        self._write([*self._read(), Served(int(time.time()), tuple(models))][-_KEPT:])

    def all(self) -> Sequence[Served]:
        """Every set that is kept, the oldest first."""
        return self._read()

    def last(self) -> Served | None:
        """What was served before; None where nothing was applied."""
        return next(reversed(self._read()), None)

    def drop_last(self) -> None:
        """It is served again."""
        self._write(self._read()[:-1])

    def _read(self) -> list[Served]:
        try:
            data = json.loads(self._path.read_bytes())
            return [_served(one) for one in data["sets"]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, KeyError) as error:
            _log.warning("%s cannot be read, and is begun anew: %s", self._path, error)
            return []

    def _write(self, sets: Sequence[Served]) -> None:
        plain = [{"until": s.until, "models": list(map(plain_config, s.models))} for s in sets]
        write_atomically(self._path, json.dumps({"version": 1, "sets": plain}).encode())


def _served(data: dict[str, Any]) -> Served:
    return Served(int(data["until"]), tuple(model_config(model) for model in data["models"]))
