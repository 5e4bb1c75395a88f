"""Reads a model directory's ``config.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from yibu.errors import VerificationError

_HINT = "download the model again: its config belongs to it"


def read_config(directory: Path, name: str = "config.yaml") -> dict[str, Any]:
    """The mapping in the file ``name`` of ``directory``.

    Raises ``VerificationError`` where the file is missing or holds something else. Only plain
    YAML is read: no tag of it makes an object.
    """
    path = directory / name
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise VerificationError(f"{path} is missing", hint=_HINT) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise VerificationError(f"{path} cannot be read: {error}", hint=_HINT) from error
    if not isinstance(content, dict):
        raise VerificationError(
            f"{path}: holds a {type(content).__name__}, a mapping expected", hint=_HINT
        )
    return content


def section(config: dict[str, Any], name: str, directory: Path) -> dict[str, Any]:
    """The mapping under ``name``; raises ``VerificationError`` where there is none."""
    value = config.get(name)
    if not isinstance(value, dict):
        raise VerificationError(
            f"{directory}: {name} of its config is {type(value).__name__}, a mapping expected",
            hint=_HINT,
        )
    return value
