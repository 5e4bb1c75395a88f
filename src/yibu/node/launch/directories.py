"""The directories that one launch of an engine is given on this host."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from yibu.engines.base import LaunchPlan
from yibu.environments.disk import compiled_by
from yibu.errors import EngineStartError
from yibu.messages import tr
from yibu.paths import Paths

_log = logging.getLogger(__name__)
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


@dataclass(frozen=True, slots=True)
class LaunchDirectories:
    cache: Path | None
    temporary: Path | None
    """None where it could not be made, and for a command of the user's: that may keep there what it
    wants to find again (torch what it compiles), or share it with other programs."""


def temporary_directories(paths: Paths) -> TemporaryDirectories:
    return TemporaryDirectories(paths.state / "temporary")


def make_directories(
    paths: Paths, plan: LaunchPlan, python: Path | None, marker: str
) -> LaunchDirectories:
    """Make them, private to this user. Blocking.

    Raises:
        EngineStartError: there is no room for temporary files, and the engine cannot do without.
    """
    cache = None
    if plan.keeps_compiled and python is not None:
        cache = compiled_by(paths.compiled, python)
        try:
            cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:  # it compiles anew then, and says itself what it cannot write
            _log.warning("%s: no place for compiled code: %s", marker, error)
    if plan.environment is None:
        return LaunchDirectories(cache, None)
    try:
        return LaunchDirectories(cache, temporary_directories(paths).make(marker))
    except OSError as error:
        what = tr("no directory for temporary files can be made: {error}", error=error)
        if not plan.needs_temporary:
            _log.warning("%s: %s", marker, what)
            return LaunchDirectories(cache, None)
        raise EngineStartError(
            what,
            hint=tr("Free some space there, or name another disk: TMPDIR=/other/disk yibu up …"),
            cause="permission" if error.errno in _FORBIDDEN else "disk_full",
        ) from error


_PREFIX = "yibu-"
# Engines make sockets there, whose paths may have 107 bytes (103 on macOS). vLLM's are a slash and
# a UUID of 36 characters, which is as long as they get.
_LONGEST = 103 - 37
_SHORT = Path("/tmp")  # noqa: S108 - a private directory is made in it


@dataclass(frozen=True, slots=True)
class TemporaryDirectories:
    """A temporary directory for each engine that is started, which goes when the engine has gone. All
    methods block.

    vLLM leaves a file there at each end, its sockets when it is killed, and torch what it compiles.
    Each directory is registered in the node's state before it is made, by a symbolic link to it, so
    that the node that comes after a killed one finds it, wherever TMPDIR leads by then.
    """

    registry: Path
    """A directory of the node's with one link per running engine."""

    def path(self, marker: str) -> Path | None:
        """The temporary directory of an engine; None when it has none."""
        try:
            return self._entry(marker).readlink()
        except OSError:
            return None

    def make(self, marker: str) -> Path:
        """Make the engine's directory, private to this user.

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
        """Remove an engine's directory, if there is one."""
        directory = self.path(marker) or _parent() / f"{_PREFIX}{_launch(marker)}"
        if _is_own(directory):
            shutil.rmtree(directory, ignore_errors=True)
        if directory.exists():
            _log.warning("%s: an engine's temporary files cannot be removed", directory)
        with contextlib.suppress(OSError):  # the next node tries again
            self._entry(marker).unlink(missing_ok=True)

    def sweep(self, living: Collection[str]) -> int:
        """Remove directories of engines that are not among ``living``; how many there were."""
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
    """Whether the directory was made by this user: anyone can take a free name in /tmp."""
    try:
        status = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
