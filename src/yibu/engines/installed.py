"""An engine as it is on this machine: with the flags of the version that is installed, where that is not
the pinned one, or with a program that was built here or is the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from yibu.config import ModelConfig
from yibu.engines.base import Engine
from yibu.environments.flag_tables import chosen_flags, kept_flags
from yibu.environments.manager import EnvironmentManager
from yibu.environments.programs import ask, built_programs

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


def as_it_runs(
    engine: Engine,
    model: ModelConfig,
    environments: EnvironmentManager,
    env: Mapping[str, str],
    *,
    gpu: bool,
    install: bool,
) -> Engine:
    """The engine as it will run this model here: the program that the entry names or that was built,
    and the flags of the version that is installed.

    Args:
        env: What programs are asked in.
        gpu: There are GPUs that the model may use.
        install: Make the environment whose engine has to be asked; else only what it said before counts.

    Raises:
        ConfigError, EnvironmentSetupError: a program or an environment cannot be used.
    """

    def asked(path: Path, words: Sequence[str], more: Mapping[str, str]) -> str:
        return ask(path, words, {**env, **more})

    def flags(name: str, module: str) -> Mapping[str, Any] | None:
        if install:
            return chosen_flags(environments, name, module, env)
        return kept_flags(environments, name)

    engine = with_program(engine, model, asked, lambda: built_programs(environments))
    return with_installed_flags(engine, flags, gpu=gpu)
