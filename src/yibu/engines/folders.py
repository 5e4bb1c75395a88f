"""An engine is one folder; what is data of it is read from its files."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any


def folder_of(engine: str) -> Path:
    """The folder of an engine, by its name; that of all engines for ``""``."""
    return Path(__file__).parent / engine.replace(".", "_")


def read_toml(file: Path) -> dict[str, Any]:
    """A file's table; empty where there is none."""
    return tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
