"""Reads a model directory's ``config.yaml``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from yibu.errors import UnsupportedError, VerificationError
from yibu.messages import tr

_HINT = tr("Download the model again: its config belongs to it")


def read_config(directory: Path, name: str = "config.yaml") -> dict[str, Any]:
    """The mapping in the file ``name`` of ``directory``.

    Raises ``VerificationError`` where the file is missing or holds something else. Only plain
    YAML is read: no tag of it makes an object.
    """
    path = directory / name
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise VerificationError("{path} is missing", path=path, hint=_HINT) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise VerificationError(
            "{path} cannot be read: {error}", path=path, error=error, hint=_HINT
        ) from error
    if not isinstance(content, dict):
        raise VerificationError(
            "{path}: holds a {name}, a mapping expected",
            path=path,
            name=type(content).__name__,
            hint=_HINT,
        )
    return content


def section(config: dict[str, Any], name: str, directory: Path) -> dict[str, Any]:
    """The mapping under ``name``; raises ``VerificationError`` where there is none."""
    value = config.get(name)
    if not isinstance(value, dict):
        raise VerificationError(
            "{directory}: {name} of its config is {found}, a mapping expected",
            directory=directory,
            name=name,
            found=type(value).__name__,
            hint=_HINT,
        )
    return value


@contextmanager
def of_one_model(directory: Path) -> Iterator[None]:
    """Where a tensor or a token is missing, the files of ``directory`` are not of one model: raises
    ``VerificationError``."""
    try:
        yield
    except (KeyError, IndexError) as error:
        raise VerificationError(
            "{directory}: its weights, tokens and config.yaml are not of one model: {error}",
            directory=directory,
            error=error,
            hint="Download the model again, all files of one revision",
        ) from error


def check_class(config: dict[str, Any], directory: Path, expected: str, published: str) -> None:
    """Raises ``UnsupportedError`` where ``config`` is of another of FunASR's classes than ``expected``;
    ``published`` is a model of it."""
    kind = config.get("model")
    if kind != expected:
        raise UnsupportedError(
            "{directory}: config.yaml names the model class {kind!r}, {expected} expected",
            directory=directory,
            kind=kind,
            expected=expected,
            published=published,
            hint="Take {published}",
        )
