"""Any OpenAI-compatible server, run from a command template of the user's."""

from __future__ import annotations

import dataclasses
import re
import shlex

from pydantic import Field

from yibu.config import EngineName, ModelConfig
from yibu.engines.base import (
    Capability,
    Engine,
    LaunchPlan,
    Verdict,
)
from yibu.engines.flags import NO_FLAGS, Given
from yibu.engines.gpu_variables import visible_gpus
from yibu.engines.options import Options, read_options, to_flags
from yibu.engines.requests import RequestTable, passed
from yibu.errors import ConfigError, UnsupportedError
from yibu.messages import tr
from yibu.planner.request import Request
from yibu.planner.types import ModelFacts, Placement

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


class CommandOptions(Options):
    """What ``options:`` may hold for ``engine: command``."""

    command: str | list[str]
    """With ``{host}`` and ``{port}``, and ``{model}`` where there is a source. A string is split
    as a shell would, but no shell runs it: write ``sh -c '…'`` for one."""
    ready: str = "/health"
    """The path that answers 200 once the server can serve."""
    capabilities: list[Capability] = Field(["chat", "completions"], min_length=1)
    served_name: str | None = None
    """The server's name for the model, when it is not the public one."""
    key_variable: str | None = None
    """The environment variable in which the server takes its API key; without one it has none."""
    stop_grace: float = Field(10.0, gt=0, strict=False)
    conforming: bool = False
    """Whether its answers conform to OpenAI's specification, and are forwarded unchanged."""


class CommandEngine(Engine):
    """The engine for every other program."""

    name: EngineName = "command"
    requests = RequestTable({"*": passed("**")})
    """How the user's program treats fields is unknown: it gets them all."""

    def supports(
        self,
        model: ModelConfig,
        facts: ModelFacts | None,  # noqa: ARG002 - the protocol's; a command needs none
    ) -> Verdict:
        if "command" not in model.options:
            return Verdict(False, tr("engine: command needs options.command, the command to run"))
        return Verdict(True, tr("runs the command of the entry, whatever the model is"))

    def check(self, model: ModelConfig) -> None:
        self._read(model)

    def request(self, model: ModelConfig, facts: ModelFacts | None) -> Request:
        given = Given.of(dataclasses.replace(model, flags=()), NO_FLAGS)
        return Request(
            name=model.name,
            rule="unmanaged",
            facts=facts,
            context=given.number("context"),
            parallel=given.number("parallel"),
            threads=given.number("threads"),
            gpus=model.gpus,
            memory=model.memory,
            replicas=model.replicas,
        )

    def environment(
        self,
        model: ModelConfig,  # noqa: ARG002 - it has none
        facts: ModelFacts | None,  # noqa: ARG002
        *,
        gpu: bool,  # noqa: ARG002
    ) -> None:
        return None

    def _read(self, model: ModelConfig) -> tuple[CommandOptions, list[str]]:
        """The options, and the command with its flags."""
        verdict = self.supports(model, None)
        if not verdict.supported:
            raise UnsupportedError(
                "model {model!r}: {reason}",
                model=model.name,
                reason=verdict.reason,
                hint='options: {command: "python serve.py --host {host} --port {port}"}',
            )
        options, rest = read_options(CommandOptions, model, self.name)
        if not options.ready.startswith("/"):
            raise ConfigError(
                "model {model!r}: ready has to be a path that begins with '/', found {ready!r}",
                model=model.name,
                ready=options.ready,
            )
        return options, [*_words(model, options.command), *to_flags(rest), *model.flags]

    def plan(
        self,
        model: ModelConfig,
        facts: ModelFacts | None,  # noqa: ARG002 - the protocol's; a command needs none
        placement: Placement,
    ) -> LaunchPlan:
        options, argv = self._read(model)
        gpus = visible_gpus(placement.gpus) if placement.gpus else {}
        return LaunchPlan(
            engine=self.name,
            argv=tuple(argv),
            env={**gpus, **model.env},
            capabilities=frozenset(options.capabilities),
            key_variable=options.key_variable,
            ready_path=options.ready,
            served_name=options.served_name,
            start_timeout=options.start_timeout,
            stop_grace=options.stop_grace,
            conforming=options.conforming,
        )


def _words(model: ModelConfig, command: str | list[str]) -> list[str]:
    """The command's words, its placeholders checked.

    Raises:
        ConfigError: it is empty, its quotes do not close, it names no {port}, or it names {model}
            while the entry has no source.
    """
    try:
        words = shlex.split(command) if isinstance(command, str) else list(command)
    except ValueError as error:
        raise ConfigError(
            "model {model!r}: the command cannot be read: {error}",
            model=model.name,
            error=error,
            command=command,
            hint="Found: {command}",
        ) from error
    if not words:
        raise ConfigError("model {model!r}: the command is empty", model=model.name)
    found = {name for word in words for name in _PLACEHOLDER.findall(word)}
    if "port" not in found:
        raise ConfigError(
            "model {model!r}: the command has no {{port}}, so yibu cannot tell it where to listen",
            model=model.name,
            hint="For instance: python serve.py --host {host} --port {port}",
        )
    if "model" in found and not model.source:
        raise ConfigError(
            "model {model!r}: the command uses {{model}}, but the entry has no source",
            model=model.name,
            hint="Add source: (ORG/NAME or a path), or take {model} out",
        )
    return words
