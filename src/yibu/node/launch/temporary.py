"""A temporary directory for each engine that is started, which goes when the engine has gone.

vLLM leaves a file there at each end, its sockets when it is killed, and torch what it compiles.
Each directory is registered in the node's state before it is made, by a symbolic link to it, so that
the node that comes after a killed one finds it, wherever TMPDIR leads by then.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

_log = logging.getLogger(__name__)
_PREFIX = "yibu-"
# Engines make sockets there, whose paths may have 107 bytes (103 on macOS). vLLM's are a slash and
# a UUID of 36 characters, which is as long as they get.
_LONGEST = 103 - 37
_SHORT = Path("/tmp")  # noqa: S108 - a private directory is made in it


@dataclass(frozen=True, slots=True)
class TemporaryDirectories:
    """Those of one home; markers tell whose is whose. All methods block."""

    registry: Path
    """A directory of the node's, with one link for each engine that runs."""

    def path(self, marker: str) -> Path | None:
        """Where the engine of that marker has its temporary files; None: it has no directory."""
        try:
            return self._entry(marker).readlink()
        except OSError:
            return None

    def make(self, marker: str) -> Path:
        """Make it, private to this user.

        Raises:
            OSError: it cannot be made.
        """
        directory = _parent() / f"{_PREFIX}{_launch(marker)}"
        try:
            self.registry.mkdir(mode=0o700, exist_ok=True)
            self._entry(marker).symlink_to(directory)
        except OSError as error:  # no reason not to start: it is only not found after a kill -9
            _log.warning("%s: cannot be noted: %s", directory, error)
        try:
            directory.mkdir(mode=0o700)
        except OSError:
            self._entry(marker).unlink(missing_ok=True)
            raise
        return directory

    def remove(self, marker: str) -> None:
        """Remove it with all that is in it; nothing happens where there is none."""
        directory = self.path(marker) or _parent() / f"{_PREFIX}{_launch(marker)}"
        if _is_own(directory):
            shutil.rmtree(directory, ignore_errors=True)
        if directory.exists():
            _log.warning("%s: an engine's temporary files cannot be removed", directory)
        with contextlib.suppress(OSError):  # the next node tries again
            self._entry(marker).unlink(missing_ok=True)

    def sweep(self, living: Collection[str]) -> int:
        """Remove what belongs to none of these markers' engines; how many directories there were."""
        spared = {_launch(marker) for marker in living}
        try:
            dead = [entry.name for entry in self.registry.iterdir() if entry.name not in spared]
        except FileNotFoundError:
            return 0
        for name in dead:
            self.remove(name)
        return len(dead)

    def _entry(self, marker: str) -> Path:
        return self.registry / _launch(marker)


def _launch(marker: str) -> str:
    return marker.rpartition("/")[2]


def _parent() -> Path:
    parent = Path(tempfile.gettempdir())
    longest = len(os.fsencode(parent)) + 1 + len(_PREFIX) + 16
    return parent if longest <= _LONGEST or not _SHORT.is_dir() else _SHORT


def _is_own(directory: Path) -> bool:
    """Whether it is what was made: whoever finds its name free in /tmp can take it."""
    try:
        status = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
