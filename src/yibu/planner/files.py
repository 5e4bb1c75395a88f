"""Reading small config files, bounded in size, with errors that say what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from yibu.errors import VerificationError

_MAX_CONFIG_BYTES = 32 * 1024 * 1024


def magic(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)


def load_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_read_bounded(path))
    except (ValueError, RecursionError) as error:
        raise VerificationError(
            "{path} is not JSON: {error}",
            path=path,
            error=error,
            hint="The file is damaged: pull it again",
        ) from error
    return _mapping(value, path)


def load_yaml(path: Path) -> dict[str, Any]:
    # Few models have such a file, and every node imports this module.
    import yaml

    try:
        value = yaml.safe_load(_read_bounded(path))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise VerificationError(
            "{path} is not YAML: {error}",
            path=path,
            error=error,
            hint="The file is damaged: pull it again",
        ) from error
    return _mapping(value, path)


def _mapping(value: Any, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise VerificationError(
            "{path} holds a {name}; a mapping of settings was expected",
            path=path,
            name=type(value).__name__,
            hint="The file is damaged: pull it again",
        )
    return value


def _read_bounded(path: Path) -> bytes:
    size = path.stat().st_size
    if size > _MAX_CONFIG_BYTES:
        raise VerificationError(
            "{path} is {size} bytes long; a config of at most {limit} was expected",
            path=path,
            size=size,
            limit=_MAX_CONFIG_BYTES,
            hint="The file is damaged: pull it again",
        )
    return path.read_bytes()
