"""What ``yibu up`` would refuse of a configuration, found without starting anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from yibu.config import Config, ModelConfig
from yibu.config.settings import settings_of
from yibu.errors import ConfigError, YibuError
from yibu.management.changes import check_settings
from yibu.management.context import Context, open_resolver, open_store
from yibu.management.entries import choose, gateway_settings
from yibu.messages import joined, tr

if TYPE_CHECKING:
    from yibu.engines.base import Engine
    from yibu.planner.types import ModelFacts

T = TypeVar("T")


def check_config(config: Config, context: Context) -> tuple[Config, tuple[str, ...]]:
    """The configuration as ``up`` would use it, and notes on flags that were moved.

    Raises:
        YibuError: with every fault that is found, one after the other.
    """
    faults: list[YibuError] = []

    def check_entry(model: ModelConfig) -> None:
        alone = dataclasses.replace(config, models=(model,))
        check_model(choose((), alone, context.directory).models[0], context)

    for model in config.models:
        _collect(faults, partial(check_entry, model))
    settled = _collect(faults, lambda: gateway_settings(config)) or config
    _collect(faults, lambda: check_settings(settings_of(settled, context.env)[0], context))
    chosen = _collect(faults, lambda: choose((), config, context.directory))
    refuse(faults)
    return settled, () if chosen is None else chosen.notes


def check_options(models: Sequence[ModelConfig], context: Context) -> None:
    """Raises YibuError with every option and flag that cannot be used; no model's file is read."""
    faults: list[YibuError] = []
    for model in models:
        _collect(faults, partial(_check_options, model, context))
    refuse(faults)


def refuse(faults: Sequence[YibuError]) -> None:
    """Raise the only fault, or one that names all."""
    if len(faults) == 1:
        raise faults[0]
    if faults:
        head = tr("{faults_count} faults:", faults_count=len(faults))
        lines = (
            line
            for fault in faults
            for line in (fault.message, fault.hint and joined("", ["  → ", fault.hint]))
        )
        raise ConfigError(joined("\n  ", [head, *filter(None, lines)]))


def _collect(faults: list[YibuError], action: Callable[[], T]) -> T | None:
    """The action's result; its error goes to the others, once."""
    try:
        return action()
    except YibuError as error:
        if str(error) not in map(str, faults):
            faults.append(error)
    return None


def check_model(model: ModelConfig, context: Context) -> None:
    """Raises YibuError for a chosen model's source, engine or option that cannot be used."""
    facts = _facts(model, context)
    _check_options(model, context)  # first, as `up` does: in the same words
    if facts is None and model.source:
        return
    resolver, machine = open_resolver(context), context.machine()
    resolver.check(resolver.prepare(model, facts, machine), machine)


def _check_options(model: ModelConfig, context: Context) -> None:
    """Hold the options against the engine that will serve the model, or may come to."""
    from yibu.engines import registry

    resolver, machine = open_resolver(context), context.machine()
    candidates = registry.candidates(model)
    faults: list[YibuError] = []

    def check(engine: Engine) -> None:
        here = resolver.as_installed(engine, model, None, machine)
        here.check(model)
        here.request(model, None)

    for engine in candidates:
        _collect(faults, partial(check, engine))
    if len(candidates) == len(faults) == 1:
        raise faults[0]
    if len(candidates) == len(faults):
        reasons = "; ".join(
            fault.message.removeprefix(f"model {model.name!r}: ") for fault in faults
        )
        raise ConfigError(
            "model {model!r}: no engine takes its options ({reasons})",
            model=model.name,
            reasons=reasons,
        )


def _facts(model: ModelConfig, context: Context) -> ModelFacts | None:
    """What the model's files say, where they are on this disk."""
    if not model.source:
        return None
    from yibu.hub.source import parse_source
    from yibu.resolve import stored_facts

    source = parse_source(model.source)
    if source.scheme == "local" and not Path(source.name).exists():
        raise ConfigError(
            "model {model!r}: there is nothing at {source}",
            model=model.name,
            source=source.name,
            hint="Correct the path; a relative one begins at the folder of yibu.yaml",
        )
    return stored_facts(model.source, open_store(context))
