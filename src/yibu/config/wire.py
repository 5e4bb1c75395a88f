"""Configuration as plain data: for the control socket and for the node's state file."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from yibu.config.types import Autoscale, GatewayConfig, Group, Limits, ModelConfig


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
    autoscale = data.get("autoscale")
    paths = {name: Path(data[name]) for name in ("directory", "file") if data.get(name)}
    return ModelConfig(
        **{
            **data,
            "flags": tuple(data.get("flags", ())),
            "aliases": tuple(data.get("aliases", ())),
            "autoscale": None if autoscale is None else Autoscale(**autoscale),
            "group": _group(data.get("group")),
            "limits": Limits(**data.get("limits", {})),
            "gpus": None if gpus is None else tuple(gpus),
            **paths,
        }
    )


def _group(plain: Any) -> Group | None:
    """A group; an earlier version wrote its name alone."""
    return None if plain is None else Group(plain) if isinstance(plain, str) else Group(**plain)


def plain_gateway(config: GatewayConfig) -> dict[str, Any]:
    """JSON's own types only; the inverse of :func:`gateway_config`. It holds keys."""
    plain = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {
        name: os.fspath(value) if isinstance(value, os.PathLike) else value
        for name, value in plain.items()
    }


def gateway_config(data: Mapping[str, Any]) -> GatewayConfig:
    """A GatewayConfig from its plain data."""
    lists = {name: tuple(value) for name, value in data.items() if isinstance(value, list)}
    key_file = data.get("api_key_file")
    return GatewayConfig(**{**data, **lists, "api_key_file": Path(key_file) if key_file else None})


def shown_settings(config: GatewayConfig, keys: Iterable[str]) -> dict[str, Any]:
    """The settings as one node tells another command: digests of keys instead of keys."""
    plain = plain_gateway(config)
    plain["api_keys"] = sorted(hashlib.sha256(key.encode()).hexdigest() for key in keys)
    del plain["api_key_file"]  # its keys are among them
    return {name: list(v) if isinstance(v, tuple) else v for name, v in plain.items()}
