"""An engine as it is on this machine: with the flags of the version that is installed, where that is not
the pinned one, or with a program that was built here or is the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from yibu.config import ModelConfig
from yibu.engines.base import Engine

Ask = Callable[[Path, Sequence[str], Mapping[str, str]], str]
"""Runs a program with arguments and variables, and returns what it prints."""


def with_installed_flags(
    engine: Engine, ask: Callable[[str, str], Mapping[str, Any] | None], *, gpu: bool
) -> Engine:
    """The engine as it will run on a machine with GPUs to use, or without.

    Args:
        ask: An environment and the module that prints its engine's flags → what it prints; None for
            the pinned version.
    """
    name = engine.environment(gpu=gpu)
    if engine.flags_module is None or name is None:
        return engine
    plain = ask(name, engine.flags_module)
    return engine if plain is None else engine.with_flags(plain)


@runtime_checkable
class RunsPrograms(Protocol):
    """An engine that can be another program than the one of its environment."""

    def with_program(self, model: ModelConfig, ask: Ask, built: Mapping[str, Path]) -> Engine:
        """The engine with the program that the entry names, or the best of those built here.

        Raises:
            ConfigError, EnvironmentSetupError: the entry's cannot be used.
        """
        ...


def with_program(
    engine: Engine, model: ModelConfig, ask: Ask, built: Callable[[], Mapping[str, Path]]
) -> Engine:
    """The engine as it will run this model; ``built`` has the programs of environments by their names.

    Raises:
        ConfigError, EnvironmentSetupError: the program that the entry names cannot be used.
    """
    if isinstance(engine, RunsPrograms):
        return engine.with_program(model, ask, built())
    return engine
