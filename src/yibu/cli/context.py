"""What every verb needs from its surroundings, read once at the edge."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from yibu.paths import Paths


@dataclass(frozen=True, slots=True)
class Context:
    """The environment, this home's directories, and where the command was typed."""

    env: Mapping[str, str] = field(repr=False)
    paths: Paths
    directory: Path

    @classmethod
    def here(cls) -> Context:
        env = dict(os.environ)
        return cls(env=env, paths=Paths.from_env(env), directory=Path.cwd())
