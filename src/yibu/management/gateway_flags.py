"""Flags of the gateway among an engine's, applied to the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from yibu.config import Config, Origin
from yibu.engines.servers import Lifted
from yibu.errors import ConfigError
from yibu.messages import tr

_SEEN = tr(
    "! the key stands on this command line, where every user of the machine can read it "
    "as long as the command runs: YIBU_API_KEYS or gateway.api_key_file keeps it off"
)


def from_entries(config: Config, entries: Sequence[tuple[str, Lifted]]) -> tuple[Config, list[str]]:
    """The configuration with the gateway as the flags of its entries, by their names, ask for it; and what
    was done, in words.

    Raises:
        ConfigError: they contradict the file or each other.
    """
    for setting in ("host", "port"):
        asked = [(name, value) for name, flags in entries if (value := getattr(flags, setting))]
        config = _with_address(config, setting, asked)
    config = _with_keys(config, "file", [key for _, flags in entries for key in flags.api_keys])
    return config, [f"{name}: {note}" for name, flags in entries for note in _notes(flags)]


def from_command_line(
    config: Config, flags: Lifted, host: str | None, port: int | None
) -> tuple[Config, list[str]]:
    """The configuration with what was typed over it: yibu's own ``--host`` and ``--port`` win over those
    behind ``--``."""
    said = replace(
        flags,
        host=flags.host if host is None else None,
        port=flags.port if port is None else None,
    )
    host = flags.host if host is None else host
    port = flags.port if port is None else port
    if host is not None:
        config = _with(config, "flag", host=host)
    if port is not None:
        config = _with(config, "flag", port=port)
    config = _with_keys(config, "flag", flags.api_keys)
    if flags.api_keys:
        config = replace(config, typed_keys=flags.api_keys)
    return config, [*_notes(said), *([_SEEN] if flags.api_keys else [])]


def _with_keys(config: Config, origin: Origin, keys: Sequence[str]) -> Config:
    every = tuple(dict.fromkeys((*config.gateway.api_keys, *keys)))
    return config if every == config.gateway.api_keys else _with(config, origin, api_keys=every)


def _with_address(config: Config, setting: str, asked: Sequence[tuple[str, Any]]) -> Config:
    """The gateway's ``host`` or ``port`` as entries ask for it, unless a flag of yibu's own or
    the environment says otherwise."""
    place = f"gateway.{setting}"
    origin = config.origins.get(place, "default")
    if not asked or origin in ("flag", "environment"):
        return config
    first, *others = dict.fromkeys(value for _, value in asked)
    if others:
        said = ", ".join(f"{name} --{setting} {value}" for name, value in asked)
        raise ConfigError(
            "one gateway serves all models, and their flags say: {said}",
            said=said,
            setting=setting,
            first=first,
            hint="Take --{setting} out of them, and write: gateway: {{{setting}: {first}}}",
        )
    has = getattr(config.gateway, setting)
    if origin == "file" and has != first:
        raise ConfigError(
            "{place} is {has}, and the flags of {asked} say --{setting} {first}",
            place=place,
            has=has,
            asked=asked[0][0],
            setting=setting,
            first=first,
            hint="Take --{setting} out of them, or write: gateway: {{{setting}: {first}}}",
        )
    return _with(config, "file", **{setting: first})


def _with(config: Config, origin: Origin, **settings: Any) -> Config:
    return replace(
        config,
        gateway=replace(config.gateway, **settings),
        origins={**config.origins, **{f"gateway.{name}": origin for name in settings}},
    )


def _notes(lifted: Lifted) -> tuple[str, ...]:
    """What became of the gateway's flags, a sentence each; keys are left out."""
    notes = []
    if lifted.host is not None:
        notes.append(
            tr("--host {host}: the gateway listens there (gateway.host)", host=lifted.host)
        )
    if lifted.port is not None:
        notes.append(
            tr("--port {port}: the gateway listens there (gateway.port)", port=lifted.port)
        )
    if lifted.api_keys:
        notes.append(tr(
"--api-key: the gateway asks for it (gateway.api_keys); the engine gets a key of its own"
))  # fmt: skip
    if lifted.names:
        names = ", ".join(map(repr, lifted.names))
        notes.append(tr("--served-model-name: clients may ask for {names}", names=names))
    if lifted.adapters:
        names = ", ".join(repr(name) for name, _ in lifted.adapters)
        notes.append(
            tr(
                "--lora-modules: clients ask for {names} like for any model (options.lora)",
                names=names,
            )
        )
    return tuple(notes)
