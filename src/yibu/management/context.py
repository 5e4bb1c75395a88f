"""What every verb needs of its surroundings, read once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from yibu.errors import UsageError
from yibu.paths import Paths, with_absolute_paths

if TYPE_CHECKING:
    from yibu.config import Config
    from yibu.environments.manager import EnvironmentManager
    from yibu.hub.headers import RemoteHeaders
    from yibu.hub.quantization import QuantizationChoice, Variant
    from yibu.hub.store import Store
    from yibu.node.control.client import ControlClient
    from yibu.planner.types import Machine
    from yibu.resolve import Resolver


@dataclass(frozen=True, slots=True)
class Context:
    """The environment, this home's directories, and where the command was typed."""

    env: Mapping[str, str] = field(repr=False)
    paths: Paths
    directory: Path

    @classmethod
    def here(cls) -> Context:
        directory = _working_directory(os.environ)
        env = with_absolute_paths(os.environ, directory)
        return cls(env=env, paths=Paths.from_env(env), directory=directory)

    def with_env(self, **changes: str) -> Context:
        """The same with other environment variables, for this command and a node it starts."""
        return dataclasses.replace(self, env={**self.env, **changes})

    def machine(self) -> Machine:
        """This machine as it is now, with the GPUs that the environment shows."""
        from yibu.node.machine.hardware import probe

        return probe(self.env.get("CUDA_VISIBLE_DEVICES"))

    @property
    def client(self) -> ControlClient:
        """A client of this home's node."""
        from yibu.node.control.client import ControlClient

        return ControlClient(self.paths)

    def find_file(self, named: Path | None = None) -> Path:
        """The configuration file: the one that was named, else ./yibu.yaml.

        Raises:
            ConfigError: the named one does not exist.
            UsageError: none was named, and none is here.
        """
        from yibu.config import file

        if (path := file.find(named, self.directory)) is None:
            raise UsageError(
                "There is no yibu.yaml in {directory}.",
                directory=self.directory,
                hint="Write one with: yibu init",
            )
        return path

    def load(self, named: Path | None = None) -> Config:
        """What the configuration file says; the defaults where none was named and none is here.

        Raises:
            ConfigError: it cannot be used.
        """
        from yibu.config import file

        return file.load(file.find(named, self.directory), env=self.env)


def _working_directory(env: Mapping[str, str]) -> Path:
    """The directory in which the command was typed; by name where it was removed."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path(env.get("PWD") or "/")


def open_store(context: Context, *, offline: bool = False, machine: Machine | None = None) -> Store:
    """The store of this home, with the hubs' own environment variables honoured. ``machine`` is
    the one that a quantization has to fit on, where it is not this one."""
    from yibu.hub.settings import HubSettings
    from yibu.hub.store import Store

    def choose(found: Sequence[Variant], headers: RemoteHeaders) -> QuantizationChoice:
        # Only where there is a choice: the planner and the engines take a while to import.
        from yibu.resolve.quantization import by_plan

        here = machine or context.machine()
        return by_plan(open_resolver(context), lambda: here)(found, headers)

    settings = HubSettings.from_env(context.env)
    settings = dataclasses.replace(settings, offline=offline or settings.offline)
    return Store(context.paths, settings, choose)


def open_environments(context: Context) -> EnvironmentManager:
    """The environments of this home, with pip's own settings handed on to uv."""
    from yibu.environments.manager import EnvironmentManager
    from yibu.environments.uv_settings import UvSettings

    return EnvironmentManager(
        context.paths.environments,
        UvSettings.from_pip(context.env),
        env=context.env,
        compiled=context.paths.compiled,
    )


def open_resolver(context: Context) -> Resolver:
    """The resolver of this home's entries and engines."""
    from yibu.resolve import Resolver

    return Resolver(open_environments(context))
