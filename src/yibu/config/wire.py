"""A model's configuration as plain data: for the control socket and for the node's state file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yibu.config.types import ModelConfig


def plain_config(config: ModelConfig) -> dict[str, Any]:
    """JSON's own types only; the inverse of :func:`model_config`."""
    plain = dataclasses.asdict(config)
    plain["flags"] = list(config.flags)
    plain["aliases"] = list(config.aliases)
    plain["gpus"] = None if config.gpus is None else list(config.gpus)
    plain["directory"] = None if config.directory is None else str(config.directory)
    return plain


def model_config(data: Mapping[str, Any]) -> ModelConfig:
    """A ModelConfig from its plain data.

    Raises:
        TypeError: a field is unknown or missing.
    """
    gpus, directory = data.get("gpus"), data.get("directory")
    return ModelConfig(
        **{
            **data,
            "flags": tuple(data.get("flags", ())),
            "aliases": tuple(data.get("aliases", ())),
            "gpus": None if gpus is None else tuple(gpus),
            "directory": None if directory is None else Path(directory),
        }
    )
