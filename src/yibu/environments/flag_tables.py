"""The flags of an engine version that the user installed instead of the pinned one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yibu.environments.manager import EnvironmentManager
from yibu.errors import EnvironmentSetupError
from yibu.files import write_whole

TABLE = "flags.json"
"""File name in the environment's directory, removed with it."""
_TIMEOUT = 300.0
"""Seconds; importing vLLM takes ten, and a minute from a cold disk."""


def chosen_flags(environments: EnvironmentManager, name: str, engine: str) -> dict[str, Any] | None:
    """The flags of the engine in that environment; None for the pinned version, whose flags are known.

    Raises:
        EnvironmentSetupError: the engine cannot be asked.
    """
    version = environments.chosen_version(name)
    if version is None:
        return None
    python = environments.ensure(name)
    file = environments.path(name) / TABLE
    if not file.is_file():
        write_whole(file, _ask(python, engine, f"{name} {version}", environments.env))
    return kept_flags(environments, name)


def kept_flags(environments: EnvironmentManager, name: str) -> dict[str, Any] | None:
    """The stored flags; None where they were not asked yet."""
    file = environments.path(name) / TABLE
    if environments.chosen_version(name) is None or not file.is_file():
        return None
    table: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return table


def _ask(python: Path, engine: str, what: str, env: Mapping[str, str]) -> str:
    try:
        # -P: a file in the current directory must not be imported instead of a module.
        done = subprocess.run(
            [str(python), "-P", "-m", "yibu.launchers.flags", engine],
            env={**env, "VLLM_NO_USAGE_STATS": "1", "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=True,
        )
        json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise EnvironmentSetupError(
            "{what} does not say which flags it has: {splitlines}",
            what=what,
            splitlines=said.strip().splitlines()[-1],
            split=what.split(maxsplit=1)[0],
            hint="Go back to the pinned version: yibu engine install {split}",
        ) from error
    return done.stdout
