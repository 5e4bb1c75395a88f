"""What people ask of a node's models: up, down, load, unload, scale, restart."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Collection, Sequence

from yibu.config import ModelConfig
from yibu.config.names import plain_name
from yibu.errors import (
    ConfigError,
    DoesNotFitError,
    NotUpError,
    UsageError,
    YibuError,
)
from yibu.messages import tr
from yibu.node.fleet.deployment import Deployment
from yibu.node.fleet.runner import Runner
from yibu.node.scheduler import Scheduler
from yibu.node.scheduler.types import Desired, Generation

_SAVE = 2.0
"""Seconds a model's start waits at most until the state file has it."""


class Verbs:
    """The verbs of one node; the fleet extends it."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._saved = asyncio.Event()
        """Set when the state file is up to date."""
        self._saved.set()

    async def up(self, config: ModelConfig, *, start: bool = False) -> None:
        """Serve the model; return when every replica is ready, or when it can be loaded on demand.

        The same model again is left running. With another configuration it is started beside what
        serves, or in its place where memory does not suffice for both, and takes over when it is
        ready; where it fails, the earlier one serves on. ``start`` loads it even where it is kept
        on demand.

        Raises:
            YibuError: it cannot be deployed or started; it stays listed as ``failed``.
        """
        key = self._put_up(config, start=start)
        try:
            await self._settled(key)
        except YibuError:
            current = self._runner.current(config.name)
            if current is not None and current.key != key:
                current.note(tr("goes on with the configuration that it had"))
            raise
        # A node that is killed a moment later finds its engines again.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SAVE):
                await self._saved.wait()

    async def load(self, name: str) -> None:
        """Load a model that is listed; return when it is ready.

        Raises:
            NotUpError: no such model is up.
            YibuError: it cannot be started.
        """
        self._find(name)
        self._scheduler.start(name, time.monotonic())
        await self._settled(self._generations(name)[-1].key)

    async def unload(self, name: str) -> None:
        """Take a model out of memory, which stays listed; return when its processes are gone.

        Raises:
            NotUpError: no such model is up.
        """
        self._find(name)
        self._scheduler.unload(name, time.monotonic())
        while any(d.replicas and not d.started for d in self._generations(name)):
            await self._runner.changed_again()

    async def scale(self, name: str, replicas: int) -> None:
        """Run so many replicas of a model from now on; return when that is so.

        Raises:
            NotUpError: no such model is up, or it was scaled or changed again meanwhile.
            DoesNotFitError: there is no room for all; those that fit serve.
        """
        self._find(name)
        config = dataclasses.replace(
            self._generations(name)[-1].config, replicas=replicas, autoscale=None
        )
        key = self._runner.adjust(config)
        while (desired := self._scheduler.desired(key)) is not None:
            if (desired.config.replicas, desired.config.autoscale) != (replicas, None):
                raise _overtaken(key)
            if desired.shortage is not None:
                raise _short(desired, desired.shortage)
            if len(desired.living()) <= replicas and self._scheduler.outcome(key) is not False:
                break
            await self._runner.changed_again()
        await self._settled(key)

    async def down(self, name: str) -> None:
        """Drain and end the model; return when all of its processes are gone.

        Raises:
            NotUpError: no such model is up.
        """
        self._find(name)
        ending = [key for key in self._runner.deployments if key[0] == name]
        self._runner.remove(name)
        while any(key in self._runner.deployments for key in ending):  # it may be up again by then
            await self._runner.changed_again()

    async def restart(self, name: str) -> None:
        """Restart the model's replicas one by one; return when all are ready again.

        Raises:
            NotUpError: no such model is up.
            YibuError: it did not come up again.
        """
        deployment = self._find(name)
        if deployment.state == "sleeping":
            await self.unload(name)
            deployment = self._find(name)  # it may have been taken down meanwhile
        self._scheduler.start(name, time.monotonic())
        for replica in list(deployment.replicas.values()):
            if replica.state == "failed":
                continue  # the scheduler has another one started
            if replica.state == "sleeping":  # it has given its memory up; it is started when needed
                replica.ask_stop()
                continue
            replica.restart()
            while replica.restarting:
                await self._runner.changed_again()
            if replica.error is not None:
                break
        await self._settled(deployment.key)

    def configs(self) -> list[ModelConfig]:
        """What is served."""
        return [deployment.config for deployment in self._current()]

    def coming(self) -> list[ModelConfig]:
        """What is about to take the place of something that is served."""
        models = filter(None, map(self._scheduler.model, self._scheduler.names()))
        return [model.next.config for model in models if model.next is not None]

    def wanted(self) -> list[ModelConfig]:
        """What is served when all that is coming has come."""
        return list({one.name: one for one in (*self.configs(), *self.coming())}.values())

    def claim(self, configs: Sequence[ModelConfig], removed: Collection[str] = ()) -> list[str]:
        """Which of those that are ``removed`` have a name that one of these takes over.

        Raises:
            ConfigError: two models would have one name.
        """
        replaced = {*removed, *(config.name for config in configs)}
        holders: dict[str, str] = {}
        for config in (*(one for one in self.wanted() if one.name not in replaced), *configs):
            for name in config.names:
                other = holders.setdefault(plain_name(name), config.name)
                if other != config.name:
                    raise ConfigError(
                        "{config} claims the name {name!r}, which {other} has here",
                        config=config.name,
                        name=name,
                        other=other,
                        hint="Take it off one of them, or stop the other: yibu down {other}",
                    )
        leaving = (config for config in self.configs() if config.name in removed)
        return [one.name for one in leaving if holders.keys() & map(plain_name, one.names)]

    # Inside.

    @property
    def _scheduler(self) -> Scheduler:
        return self._runner.scheduler

    def _current(self) -> list[Deployment]:
        found = (self._runner.current(name) for name in self._scheduler.names())
        return [deployment for deployment in found if deployment is not None]

    def _put_up(self, config: ModelConfig, *, start: bool) -> Generation:
        model = self._scheduler.model(config.name)
        created = int(time.time())
        if model is not None:
            wanted = model.generations()[-1]
            current = self._find(config.name)
            created = current.created
            _refuse_replacing(current.config, config)
            if model.ready and wanted is model.next and current.config.runs_as(config):
                self._scheduler.withdraw(config.name, time.monotonic())
                wanted = model.current
            if wanted.config == config and config.file in (None, wanted.config.file):
                if start or wanted.error is not None or current.state == "failed":
                    self._scheduler.start(config.name, time.monotonic())
                return wanted.key
            if wanted.config.runs_as(config):
                key = self._runner.adjust(config)
                if start or wanted.error is not None:
                    self._scheduler.start(config.name, time.monotonic())
                return key
        return self._runner.add(config, start=start or None, created=created)

    async def _settled(self, key: Generation) -> None:
        """Wait until a generation serves.

        Raises:
            YibuError: it cannot.
            NotUpError: it was taken down meanwhile.
        """
        while True:
            outcome = self._scheduler.outcome(key)
            if outcome is None:
                raise _overtaken(key)
            if isinstance(outcome, YibuError):
                raise outcome
            if outcome:
                return
            await self._runner.changed_again()

    def _generations(self, name: str) -> list[Desired]:
        model = self._scheduler.model(name)
        return [] if model is None else model.generations()

    def _find(self, name: str) -> Deployment:
        deployment = self._runner.current(name)
        if deployment is None:
            names = ", ".join(self._scheduler.names()) or tr("none")
            raise NotUpError(
                "{name} is not up; there are: {names}", name=name, names=names, hint="yibu ps"
            )
        return deployment


def _refuse_replacing(running: ModelConfig, config: ModelConfig) -> None:
    """Raises UsageError when a name that was taken from a source would replace another source's
    model: nobody asked for that."""
    if config.name_derived and config.source != running.source:
        raise UsageError(
            "{config} runs already, from {running_source}; {config_source} would replace it",
            config=config.name,
            running_source=running.source or tr("a command"),
            config_source=config.source,
            hint="Give it another name: yibu up {config_source} --name NAME; or stop the "
            "other: yibu down {config}",
        )


def _overtaken(key: Generation) -> NotUpError:
    return NotUpError("{key} was changed again or taken down before it was ready", key=key[0])


def _short(desired: Desired, error: YibuError) -> DoesNotFitError:
    """The error when fewer replicas run than were asked for."""
    name, running = desired.name, len(desired.living())
    return DoesNotFitError(
        "{running} of {replicas} replicas of {name} run: {error_message}",
        running=running,
        replicas=desired.config.replicas,
        name=name,
        error_message=error.message,
        hint="More are tried again every minute; to leave it at these: yibu scale {name} {running}",
    )
