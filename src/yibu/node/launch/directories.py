"""The directories that one launch of an engine is given on this host."""

from __future__ import annotations

import errno
import logging
from dataclasses import dataclass
from pathlib import Path

from yibu.engines.base import LaunchPlan
from yibu.environments.disk import compiled_by
from yibu.errors import EngineStartError
from yibu.messages import tr
from yibu.node.launch.temporary import TemporaryDirectories
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
