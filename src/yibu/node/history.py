"""Previously served models and settings, for ``yibu rollback``: one file of mode 0600."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path
from typing import Any, Self

from yibu.config import ModelConfig
from yibu.config.settings import GatewaySettings, changes, shown_value
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
    settings: GatewaySettings
    """The gateway's."""

    def plain(self) -> dict[str, Any]:
        """JSON's own types only; the inverse of :meth:`from_plain`."""
        return {
            "until": self.until,
            "models": list(map(plain_config, self.models)),
            "settings": self.settings.plain(),
        }

    def is_set(self, models: Sequence[ModelConfig], settings: GatewaySettings) -> bool:
        """Whether it is these."""
        own, others = ({one.name: one for one in some} for some in (self.models, models))
        return own == others and not changes(self.settings, settings)

    def shown(self) -> dict[str, Any]:
        """For people: the models' names, and the settings that are not defaults."""
        changed = changes(GatewaySettings(), self.settings)
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
            GatewaySettings.from_plain(data["settings"]),
        )


class History:
    """The stored history. Blocking; used by one node at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def push(self, models: Sequence[ModelConfig], settings: GatewaySettings) -> None:
        """Store what is about to be replaced. Raises OSError."""
        kept = self.before(models, settings)[::-1]
        until = max(int(time.time()), kept[-1].until + 1 if kept else 0)  # it names the set
        self._write([*kept, Served(until, tuple(models), settings)][-_KEPT:])

    def before(self, models: Sequence[ModelConfig], settings: GatewaySettings) -> list[Served]:
        """The entries that a rollback from ``models`` and ``settings`` can restore, the latest first.

        Leaves out the latest ones that equal them: an apply that failed or was interrupted stores what is
        still served."""
        kept = reversed(self._read())
        return list(dropwhile(lambda one: one.is_set(models, settings), kept))

    def drop(self, until: int) -> None:
        """Drop an entry, which is served again, and the later ones. Raises OSError."""
        self._write([one for one in self._read() if one.until < until])

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
