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
from yibu.engines.options import to_flags
from yibu.engines.vllm.gateway_flags import HOUSE_FLAGS, KEY_VARIABLE, LiftedFlags, lift_house_flags
from yibu.errors import ConfigError
from yibu.planner.types import Gpu

_GPUS = "CUDA_VISIBLE_DEVICES"
_NO_GPU = frozenset({"", "-1", "none", "void", "NoDevFiles"})


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
        if model.engine in ("command", "speech"):
            models.append(model)  # its flags are the command's own
            continue
        found = _lift(model)
        lifted.append((model, found))
        notes += [f"{model.name}: {note}" for note in flag_notes(found)]
        own = with_names(
            _without(model, found), found.served_names, adapters(found, model.directory)
        )
        models.append(_with_gpus(own, model.env.get(_GPUS), gpus))
    _refuse_twins(models)
    settled = dataclasses.replace(config, models=tuple(models))
    for setting in ("host", "port"):
        asked = [(m.name, getattr(f, setting)) for m, f in lifted if getattr(f, setting)]
        settled = _with_address(settled, setting, asked)
    return _with_keys(settled, [key for _, f in lifted for key in f.api_keys]), tuple(notes)


def _lift(model: ModelConfig) -> LiftedFlags:
    """The gateway's flags, wherever in the entry they stand."""
    owned = {
        name: value
        for option, value in model.options.items()
        if (name := option.replace("-", "_")) in HOUSE_FLAGS
    }
    if key := model.env.get(KEY_VARIABLE):
        owned["api_key"] = key
    try:
        return lift_house_flags((*to_flags(owned, lists="spread"), *model.flags))
    except ConfigError as error:
        raise ConfigError(f"model {model.name!r}: {error.message}", hint=error.hint) from error


def _without(model: ModelConfig, found: LiftedFlags) -> ModelConfig:
    """The entry without them, its name and source judged against its own."""
    source = model.source
    if found.model is not None:
        named = local_first(found.model, model.directory)
        if source and named not in (source, f"hf:{source}", f"modelscope:{source}"):
            raise ConfigError(
                f"model {model.name!r} has the source {source}, and its flags say --model"
                f" {found.model}",
                hint=f"take --model out of its flags, or write: source: {found.model}",
            )
        source = source or named
    options = {k: v for k, v in model.options.items() if k.replace("-", "_") not in HOUSE_FLAGS}
    env = {k: v for k, v in model.env.items() if k not in (KEY_VARIABLE, _GPUS)}
    return dataclasses.replace(model, source=source, options=options, flags=found.flags, env=env)


def _with_gpus(
    model: ModelConfig, variable: str | None, gpus: Callable[[], tuple[Gpu, ...]] | None
) -> ModelConfig:
    if variable is None:
        return model
    named = _numbers(model, variable, gpus)
    if model.gpus is not None and model.gpus != named:
        raise ConfigError(
            f"model {model.name!r} has gpus: {list(model.gpus)}, and its env {_GPUS}={variable}",
            hint=f"take {_GPUS} out of its env, or write: gpus: {list(named)}",
        )
    return dataclasses.replace(model, gpus=named)


def _numbers(
    model: ModelConfig, variable: str, gpus: Callable[[], tuple[Gpu, ...]] | None
) -> tuple[int, ...]:
    parts = [part.strip() for part in variable.split(",")]
    if parts[0] in _NO_GPU:
        return ()
    if all(part.isdigit() for part in parts):
        return tuple(map(int, parts))
    from yibu.node import hardware

    found = hardware.visible((gpus or hardware.gpus)(), variable)
    if len(found) != len(parts):
        raise ConfigError(
            f"model {model.name!r}: its env has {_GPUS}={variable}, which names no GPU of this"
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
