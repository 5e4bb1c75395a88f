"""The flags of a bare vLLM that are about the house here: its door, its names, its models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from yibu.engines.options import parse_flags
from yibu.engines.vllm.table import PINNED
from yibu.errors import ConfigError

KEY_VARIABLE = "VLLM_API_KEY"
HOUSE_FLAGS: Mapping[str, str] = {
    "host": "gateway.host",
    "port": "gateway.port",
    "api_key": "gateway.api_keys",
    "served_model_name": "the entry's name",
    "model": "the entry's source",
    "lora_modules": "options.lora",
}
"""Flags that are about the door, not the engine: yibu's own engine port is on loopback with an
inner key, so the caller lifts these into its configuration, and the plan leaves them out."""


@dataclass(frozen=True, slots=True)
class LiftedFlags:
    """A vLLM command line's flags, those about the door taken apart."""

    flags: tuple[str, ...]
    host: str | None = None
    port: int | None = None
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    served_names: tuple[str, ...] = ()
    model: str | None = None
    lora: tuple[tuple[str, str], ...] = ()
    """Names of LoRA adapters and where they are."""


def lift_house_flags(flags: Sequence[str]) -> LiftedFlags:
    """Take host, port, keys, names and model out of flags that were written for a bare vLLM.

    Raises:
        ConfigError: one of them lacks its value, or the port is no number.
    """
    kept: list[str] = []
    lifted: dict[str, tuple[str, ...]] = {}
    for flag in parse_flags(flags, PINNED.short):
        if flag.name not in HOUSE_FLAGS:
            kept += flag.words
        elif not flag.values:
            raise ConfigError(f"the flag {flag.words[0]} lacks its value")
        else:
            lifted[flag.name] = flag.values
    port = lifted.get("port", (None,))[0]
    if port is not None and not port.isdigit():
        raise ConfigError(f"--port has to be a number, found {port!r}")
    return LiftedFlags(
        flags=tuple(kept),
        host=lifted.get("host", (None,))[0],
        port=None if port is None else int(port),
        api_keys=lifted.get("api_key", ()),
        served_names=lifted.get("served_model_name", ()),
        model=lifted.get("model", (None,))[0],
        lora=tuple(map(_adapter, lifted.get("lora_modules", ()))),
    )


def _adapter(word: str) -> tuple[str, str]:
    """``name=path``, or vLLM's newer ``{"name": …, "path": …}``.

    Raises:
        ConfigError: it is neither.
    """
    name, equals, path = word.partition("=")
    if word.startswith("{"):
        try:
            read = json.loads(word)
            name, path = read["name"], read["path"]
        except (ValueError, KeyError, TypeError):
            name = path = ""
    elif not equals:
        name = path = ""
    if not (isinstance(name, str) and isinstance(path, str) and name and path):
        raise ConfigError(
            f"--lora-modules has {word!r}; name=path was expected",
            hint="or write it into yibu.yaml: options: {lora: {NAME: PATH_OR_SOURCE}}",
        )
    return name, path
