"""Moves gateway flags of yibu.yaml's entries to where they belong.

An entry's ``flags:``, ``options:`` and ``env:`` may name host, port, keys, names, source and GPUs as
the flags after ``--`` do. They become the gateway's and the model's settings; a contradiction is
refused, with the line to write.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from yibu.cli.gateway_flags import adapters, flag_notes, local_first
from yibu.cli.selection import with_names
from yibu.config import Config, ModelConfig
from yibu.engines import registry
from yibu.engines.gpu_variables import GPU_VARIABLES, shown_gpus
from yibu.engines.servers import Lifted, ServerCommand
from yibu.errors import ConfigError
from yibu.planner.types import Gpu


def normalize(
    config: Config, gpus: Callable[[], tuple[Gpu, ...]] | None = None
) -> tuple[Config, tuple[str, ...]]:
    """The configuration with the gateway's flags where they belong, and what was done, in words.

    ``gpus`` gives the machine's, NVML's where it is None; only for entries that name some by UUID.

    Raises:
        ConfigError: they contradict the file or each other, or two models claim one name.
    """
    models, lifted, notes = [], [], []
    for model in config.models:
        server = registry.server_of(model)
        if server is None:
            models.append(model)  # its flags are the command's own
            continue
        found = _lift(model, server)
        lifted.append((model, found))
        notes += [f"{model.name}: {note}" for note in flag_notes(found)]
        own = with_names(_without(model, found), found.names, adapters(found, model.directory))
        models.append(_with_gpus(own, model.env, gpus))
    _refuse_twins(models)
    settled = dataclasses.replace(config, models=tuple(models))
    for setting in ("host", "port"):
        asked = [(m.name, getattr(f, setting)) for m, f in lifted if getattr(f, setting)]
        settled = _with_address(settled, setting, asked)
    return _with_keys(settled, [key for _, f in lifted for key in f.api_keys]), tuple(notes)


def _lift(model: ModelConfig, server: ServerCommand) -> Lifted:
    """The gateway's flags, wherever in the entry they stand."""
    try:
        found = server.lift(model.flags, model.options, model.env)
    except ConfigError as error:
        raise ConfigError(f"model {model.name!r}: {error.message}", hint=error.hint) from error
    if found.key_file is not None:
        raise ConfigError(
            f"model {model.name!r}: a file of keys stands in its flags",
            hint=f"keys are the gateway's: gateway: {{api_key_file: {found.key_file}}}",
        )
    return found


def _without(model: ModelConfig, found: Lifted) -> ModelConfig:
    """The entry without them, its name and source judged against its own."""
    source = model.source
    if (named := found.hub_model or found.model) is not None:
        named = local_first(named, model.directory)
        if source and named not in (source, f"hf:{source}", f"modelscope:{source}"):
            raise ConfigError(
                f"model {model.name!r} has the source {source}, and its flags say --model {named}",
                hint=f"take --model out of its flags, or write: source: {named}",
            )
        source = source or named
    env = {name: value for name, value in found.env.items() if name not in GPU_VARIABLES}
    return dataclasses.replace(
        model, source=source, options=found.options, flags=found.words, env=env
    )


def _with_gpus(
    model: ModelConfig, env: Mapping[str, str], gpus: Callable[[], tuple[Gpu, ...]] | None
) -> ModelConfig:
    for variable in GPU_VARIABLES:
        if (value := env.get(variable)) is None:
            continue
        named = _numbers(model, variable, value, gpus)
        if model.gpus is not None and model.gpus != named:
            raise ConfigError(
                f"model {model.name!r} has gpus: {list(model.gpus)}, and its env {variable}={value}",
                hint=f"take {variable} out of its env, or write: gpus: {list(named)}",
            )
        model = dataclasses.replace(model, gpus=named)
    return model


def _numbers(
    model: ModelConfig, variable: str, value: str, gpus: Callable[[], tuple[Gpu, ...]] | None
) -> tuple[int, ...]:
    if (numbers := shown_gpus(value)) is not None:
        return numbers
    from yibu.node import hardware

    found = hardware.visible((gpus or hardware.gpus)(), value)
    if len(found) != len(value.split(",")):
        raise ConfigError(
            f"model {model.name!r}: its env has {variable}={value}, which names no GPU of this"
            " machine",
            hint="see their numbers with nvidia-smi -L, and write: gpus: [0]",
        )
    return tuple(gpu.index for gpu in found)


def _with_address(config: Config, setting: str, asked: Sequence[tuple[str, Any]]) -> Config:
    """The gateway's ``host`` or ``port`` as entries ask for it, unless a flag of yibu's own or
    the environment says otherwise."""
    place = f"gateway.{setting}"
    origin = config.origins.get(place, "default")
    if not asked or origin in ("flag", "environment"):
        return config
    values = dict.fromkeys(value for _, value in asked)
    first, *others = values
    if others:
        said = ", ".join(f"{name} --{setting} {value}" for name, value in asked)
        raise ConfigError(
            f"one gateway serves all models, and their flags say: {said}",
            hint=f"take --{setting} out of them, and write: gateway: {{{setting}: {first}}}",
        )
    has = getattr(config.gateway, setting)
    if origin == "file" and has != first:
        raise ConfigError(
            f"{place} is {has}, and the flags of {asked[0][0]} say --{setting} {first}",
            hint=f"take --{setting} out of them, or write: gateway: {{{setting}: {first}}}",
        )
    return _with_gateway(config, setting, first)


def _with_keys(config: Config, keys: Sequence[str]) -> Config:
    new = [key for key in keys if key not in config.gateway.api_keys]
    if not new:
        return config
    return _with_gateway(config, "api_keys", tuple(dict.fromkeys((*config.gateway.api_keys, *new))))


def _with_gateway(config: Config, setting: str, value: Any) -> Config:
    changed: Mapping[str, Any] = {setting: value}
    return dataclasses.replace(
        config,
        gateway=dataclasses.replace(config.gateway, **changed),
        origins={**config.origins, f"gateway.{setting}": "file"},
    )


def _refuse_twins(models: Sequence[ModelConfig]) -> None:
    owners: dict[str, str] = {}
    for model in models:
        for name in model.names:
            if (other := owners.setdefault(name, model.name)) != model.name:
                raise ConfigError(
                    f"the models {other} and {model.name} both claim the name {name!r}; clients"
                    " could reach only one",
                    hint="take it out of one's aliases, or of its --served-model-name",
                )
