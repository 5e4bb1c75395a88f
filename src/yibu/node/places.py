"""The directories that one launch of an engine is given on this host."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from yibu.engines.base import LaunchPlan
from yibu.environments.disk import compiled_by
from yibu.errors import EngineStartError
from yibu.node import leftovers
from yibu.paths import Paths

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Places:
    cache: Path | None
    temporary: Path | None


def make_places(paths: Paths, plan: LaunchPlan, python: Path | None, marker: str) -> Places:
    """Make what the plan asks for, private to this user. Blocking.

    Raises:
        EngineStartError: there is no room for temporary files.
    """
    cache = None
    if plan.keeps_compiled and python is not None:
        cache = compiled_by(paths.compiled, python)
        try:
            cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:  # it compiles anew then, and says itself what it cannot write
            _log.warning("%s: no place for compiled code: %s", marker, error)
    if not plan.leaves_files:
        return Places(cache, None)
    try:
        return Places(cache, leftovers.make_temporary_directory(marker))
    except OSError as error:
        raise EngineStartError(
            f"no directory for temporary files can be made: {error}",
            hint="free some space there, or name another disk: TMPDIR=/other/disk yibu up …",
            cause="disk_full",
        ) from error
