"""Splits the flags after ``--`` into the gateway's settings and the engine's flags.

A start script gives host, port, key, name and model to the engine itself. Here they become the
gateway's settings and the model's name and source; the others stay the engine's. A key goes to the
node by a pipe, and never to the engine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from yibu.cli.selection import Overrides, engine_named
from yibu.config import Config, ModelConfig
from yibu.engines import registry
from yibu.engines.servers import Lifted, ServerCommand
from yibu.errors import UsageError

_SEEN = (
    "! the key stands on this command line, where every user of the machine can read it as long as"
    " the command runs: YIBU_API_KEYS or gateway.api_key_file keeps it off"
)


@dataclass(frozen=True, slots=True)
class GatewayFlags:
    """What the flags after ``--`` say of the gateway and of the model's name."""

    models: tuple[str, ...]
    """What to bring up: as typed, or the flag ``--model``."""
    overrides: Overrides
    host: str | None = None
    port: int | None = None
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()

    def lay_over(self, config: Config) -> Config:
        """The configuration with the keys that were typed beside its own."""
        if not self.api_keys:
            return config
        keys = dict.fromkeys((*config.gateway.api_keys, *self.api_keys))
        return dataclasses.replace(
            config,
            gateway=dataclasses.replace(config.gateway, api_keys=tuple(keys)),
            origins={**config.origins, "gateway.api_keys": "flag"},
        )


def split_flags(
    models: Sequence[str],
    overrides: Overrides,
    host: str | None,
    port: int | None,
    directory: Path,
) -> GatewayFlags:
    """Take the gateway's flags out of the engine's; yibu's own ``--host``, ``--port`` and ``--name``
    win over them.

    A command of the user's keeps all its flags: only it knows what they mean.

    Raises:
        ConfigError: a flag lacks its value.
        UsageError: ``--model`` names another model than the command does.
    """
    server = _server(models, overrides)
    if not overrides.flags or server is None:
        return GatewayFlags(tuple(models), overrides, host, port)
    lifted = server.lift(overrides.flags)
    said = dataclasses.replace(
        lifted,
        host=lifted.host if host is None else None,
        port=lifted.port if port is None else None,
    )
    name = overrides.name or next(iter(lifted.names), None)
    aliases = tuple(other for other in lifted.names if other != name)
    return GatewayFlags(
        _models(models, lifted.hub_model or lifted.model, directory),
        dataclasses.replace(
            overrides,
            name=name,
            aliases=aliases,
            flags=lifted.words,
            lora=tuple(adapters(lifted, directory).items()),
        ),
        host if host is not None else lifted.host,
        port if port is not None else lifted.port,
        lifted.api_keys,
        (*flag_notes(said), *([_SEEN] if lifted.api_keys else [])),
    )


def _server(models: Sequence[str], overrides: Overrides) -> ServerCommand | None:
    """Whose flags they are."""
    source = models[0] if len(models) == 1 else ""
    try:
        engine = engine_named(overrides.engine)
    except UsageError:
        engine = None  # refused where the models are chosen
    return registry.server_of(ModelConfig("", source=source, engine=engine, flags=overrides.flags))


def flag_notes(lifted: Lifted) -> tuple[str, ...]:
    """What became of the gateway's flags, a sentence each; keys are left out."""
    notes = []
    if lifted.host is not None:
        notes.append(f"--host {lifted.host}: the gateway listens there (gateway.host)")
    if lifted.port is not None:
        notes.append(f"--port {lifted.port}: the gateway listens there (gateway.port)")
    if lifted.api_keys:
        notes.append("--api-key: the gateway asks for it (gateway.api_keys); the engine gets a key"
                     " of its own")  # fmt: skip
    if lifted.names:
        names = ", ".join(map(repr, lifted.names))
        notes.append(f"--served-model-name: clients may ask for {names}")
    if lifted.adapters:
        names = ", ".join(repr(name) for name, _ in lifted.adapters)
        notes.append(f"--lora-modules: clients ask for {names} like for any model (options.lora)")
    return tuple(notes)


def adapters(lifted: Lifted, directory: Path | None) -> dict[str, str]:
    """The LoRA adapters that flags name, a folder before a hub's model as an engine has it."""
    return {name: local_first(path, directory) for name, path in lifted.adapters}


def local_first(name: str, directory: Path | None) -> str:
    """An engine takes a folder of that name before it asks a hub; a bare name here is a hub's."""
    if directory is not None and not name.startswith(("/", "~", ".")):
        return f"./{name}" if (directory / name).exists() else name
    return name


def _models(models: Sequence[str], flag: str | None, directory: Path) -> tuple[str, ...]:
    if flag is None:
        return tuple(models)
    flag = local_first(flag, directory)
    if models and tuple(models) != (flag,):
        raise UsageError(
            f"--model {flag} stands after --, and {', '.join(models)} before it.",
            hint=f"Name the model once: yibu up {models[0]} -- FLAGS",
        )
    return (flag,)
