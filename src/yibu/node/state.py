"""What a node needs to know when it comes back after a kill -9: written whole, or not at all.

The file holds inner keys and the models' environment, so it is the owner's alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yibu.config import ModelConfig
from yibu.config.wire import plain, read
from yibu.errors import YibuError
from yibu.files import write_whole
from yibu.node.launch.leftovers import SharedFile
from yibu.node.launch.spec import LaunchSpec
from yibu.node.machine.processes import Identity
from yibu.node.scheduler import types as records
from yibu.node.scheduler.memory import reserve_asleep
from yibu.node.scheduler.types import Generation
from yibu.node.supervisor.sleeper import Asleep, levels
from yibu.planner.ledger import Reservation

_log = logging.getLogger(__name__)
_VERSION = 2
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class SavedReplica:
    id: str
    number: int
    spec: LaunchSpec
    port: int | None
    key: str = field(repr=False)
    restarts: int
    marker: str | None
    """None while no process of it exists."""
    process: Identity | None
    shared: tuple[SharedFile, ...] = ()
    """What it has in shared memory, which outlives it if it is killed together with its node."""
    asleep: Asleep | None = None

    def record(self, generation: Generation) -> records.Replica:
        """As the scheduler keeps it, with what its engine holds set aside."""
        spec, record = self.spec, records.Replica(self.id, generation, self.number)
        record.reservation = Reservation(self.id, spec.gpus, spec.memory, host=spec.host_memory)
        if self.asleep is not None:
            record.sleeps, record.slept = levels(spec.plan.sleep), self.asleep.level
            reserve_asleep(record, dict(record.sleeps).get(self.asleep.level, 0))
        return record


@dataclass(frozen=True, slots=True)
class SavedModel:
    config: ModelConfig
    created: int
    generation: int = 1
    started: bool = True
    """It is wanted in memory; False: when somebody asks for it."""
    replicas: tuple[SavedReplica, ...] = ()


@dataclass(frozen=True, slots=True)
class SavedNode:
    boot: str
    """Identifies the boot of the machine that process identities belong to."""
    models: tuple[SavedModel, ...]


def home_id(state: Path) -> str:
    """A short name of a home for process markers: of the directory itself, not of its path,
    which containers on one machine may have in common."""
    stat = state.stat()
    return hashlib.sha256(f"{stat.st_dev}:{stat.st_ino}".encode()).hexdigest()[:12]


def boot_id() -> str:
    """Different after every boot, where the system says so."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


class StateFile:
    """``node.json`` of one home."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # A cancelled writer's thread goes on for a moment, beside the last writer's.
        self._writing = threading.Lock()
        self._held = False
        self._latest: Sequence[SavedModel] | None = None

    def load(self) -> SavedNode | None:
        """What was saved last; None when nothing was, or it cannot be read.

        An unreadable file is set aside with a warning: the engines that it knew of are then
        found by their markers.
        """
        try:
            return self.read()
        except YibuError as error:
            aside = self.path.with_name(f"{self.path.name}.corrupt-{int(time.time())}")
            _log.warning(
                "%s: set aside as %s; engines that it knew of are ended", error.message, aside.name
            )
            with contextlib.suppress(OSError):
                self.path.rename(aside)
            return None

    def read(self) -> SavedNode | None:
        """What was saved last; None when nothing was.

        Raises:
            YibuError: the file cannot be read.
        """
        try:
            return _node(json.loads(self.path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise YibuError(
                "{path} cannot be read ({name}: {error})",
                path=self.path,
                name=type(error).__name__,
                error=error,
                hint="Another version of yibu wrote it, or it is damaged",
            ) from error

    def hold(self) -> None:
        """Write nothing until :meth:`release`: another node may write the file meanwhile."""
        with self._writing:
            self._held = True

    def release(self) -> None:
        """Write again, what was to be written meanwhile at once."""
        self._held = False
        if self._latest is not None:
            self.save(self._latest)

    def save(self, models: Sequence[SavedModel]) -> bool:
        """Replace the file, atomically and durably; False, with a warning, when it cannot be
        written: a full disk must not end the node, whose engines carry markers besides."""
        data = {
            "version": _VERSION,
            "boot": boot_id(),
            "models": plain(models),
        }
        try:
            with self._writing:
                if self._held:
                    self._latest = models
                    return True
                write_whole(self.path, json.dumps(data))
        except OSError as error:
            _log.warning("cannot save the node's state to %s: %s", self.path, error)
            return False
        return True


def _node(data: Mapping[str, Any]) -> SavedNode:
    if data["version"] != _VERSION:
        raise ValueError(f"version {data['version']!r}, expected {_VERSION}")
    return SavedNode(data["boot"], tuple(read(SavedModel, model) for model in data["models"]))
