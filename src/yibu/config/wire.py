"""Models' configuration as plain data: for the control socket and for the node's state file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yibu.config.types import Autoscale, Group, Limits, ModelConfig


def plain_config(config: ModelConfig) -> dict[str, Any]:
    """JSON's own types only; the inverse of :func:`model_config`."""
    plain = dataclasses.asdict(config)
    plain["flags"] = list(config.flags)
    plain["aliases"] = list(config.aliases)
    plain["gpus"] = None if config.gpus is None else list(config.gpus)
    for name in ("directory", "file"):
        plain[name] = None if plain[name] is None else str(plain[name])
    return plain


def model_config(data: Mapping[str, Any]) -> ModelConfig:
    """A ModelConfig from its plain data.

    Raises:
        TypeError: a field is unknown or missing.
    """
    gpus = data.get("gpus")
    autoscale, group = data.get("autoscale"), data.get("group")
    paths = {name: Path(data[name]) for name in ("directory", "file") if data.get(name)}
    return ModelConfig(
        **{
            **data,
            "flags": tuple(data.get("flags", ())),
            "aliases": tuple(data.get("aliases", ())),
            "autoscale": None if autoscale is None else Autoscale(**autoscale),
            "group": None if group is None else Group(**group),
            "limits": Limits(**data.get("limits", {})),
            "gpus": None if gpus is None else tuple(gpus),
            **paths,
        }
    )
