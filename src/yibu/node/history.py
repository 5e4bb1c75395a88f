"""Previously served models and settings, for ``yibu rollback``: one file of mode 0600."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from yibu.config import ModelConfig
from yibu.config.settings import Settings, changes, shown_value
from yibu.config.wire import model_config, plain_config
from yibu.files import write_whole

_log = logging.getLogger(__name__)
_KEPT = 10


@dataclass(frozen=True, slots=True)
class Served:
    """Models and settings that were served until an apply."""

    until: int
    """When they were replaced, in Unix seconds."""
    models: tuple[ModelConfig, ...]
    settings: Settings
    """The gateway's."""

    def plain(self) -> dict[str, Any]:
        """JSON's own types only; the inverse of :meth:`from_plain`."""
        return {
            "until": self.until,
            "models": list(map(plain_config, self.models)),
            "settings": self.settings.plain(),
        }

    def shown(self) -> dict[str, Any]:
        """For people: the models' names, and the settings that are not defaults."""
        changed = changes(Settings(), self.settings)
        return {
            "until": self.until,
            "models": [model.name for model in self.models],
            "settings": {one.name: shown_value(one.name, one.after) for one in changed},
        }

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            int(data["until"]),
            tuple(map(model_config, data["models"])),
            Settings.from_plain(data["settings"]),
        )


class History:
    """The stored history. Blocking; used by one node at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def push(self, models: Sequence[ModelConfig], settings: Settings) -> None:
        """Store what is about to be replaced. Raises OSError."""
        kept = self._read()
        until = max(int(time.time()), kept[-1].until + 1 if kept else 0)  # it names the set
        self._write([*kept, Served(until, tuple(models), settings)][-_KEPT:])

    def all(self) -> Sequence[Served]:
        """All entries, the oldest first."""
        return self._read()

    def last(self) -> Served | None:
        """The latest entry; None where nothing was applied."""
        return next(reversed(self._read()), None)

    def drop_last(self) -> None:
        """Drop the latest entry: it is served again."""
        self._write(self._read()[:-1])

    def _read(self) -> list[Served]:
        try:
            data = json.loads(self._path.read_bytes())
            return [Served.from_plain(one) for one in data["sets"]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, KeyError) as error:
            _log.warning("%s cannot be read, and is begun anew: %s", self._path, error)
            return []

    def _write(self, sets: Sequence[Served]) -> None:
        plain = [served.plain() for served in sets]
        write_whole(self._path, json.dumps({"version": 1, "sets": plain}))
