"""Dataclasses to plain data and back, for the control socket and the node's files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from yibu.config.types import ModelConfig

T = TypeVar("T")


def plain(value: Any) -> Any:
    """JSON's own types only; the inverse of :func:`read`."""
    if dataclasses.is_dataclass(value):
        return {one.name: plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list | frozenset):
        return [plain(item) for item in (sorted(value) if isinstance(value, frozenset) else value)]
    return str(value) if isinstance(value, Path) else value


def read(kind: type[T], data: Mapping[str, Any]) -> T:
    """A dataclass from its plain data.

    Raises:
        TypeError: a field is unknown or missing.
    """
    hints = get_type_hints(kind)
    return kind(**{name: _field(hints.get(name), value) for name, value in data.items()})


def _field(kind: Any, data: Any) -> Any:
    """A field's value of its type: a dataclass, a tuple or a set of such, a path, one of these or None."""
    if data is None:
        return None
    kinds = [one for one in get_args(kind) if one is not NoneType]
    if NoneType in get_args(kind) and len(kinds) == 1:
        return _field(kinds[0], data)
    if dataclasses.is_dataclass(kind):
        return read(kind, data)  # type: ignore[arg-type]
    if get_origin(kind) is tuple:
        return tuple(_field(kinds[0], item) for item in data)
    if get_origin(kind) is frozenset:
        return frozenset(data)
    return Path(data) if kind is Path else data


def plain_config(config: ModelConfig) -> dict[str, Any]:
    """A model's configuration as plain data; the inverse of :func:`model_config`."""
    found: dict[str, Any] = plain(config)
    return found


def model_config(data: Mapping[str, Any]) -> ModelConfig:
    """Raises TypeError, as :func:`read`."""
    return read(ModelConfig, data)
