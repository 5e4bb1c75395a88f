"""The contract between an engine and the rest of yibu.

An engine is data and two questions: does it serve this model, and what is its launch plan? It
never spawns anything. A plan is plain data that another host can carry out: it names no path,
port, interpreter or secret of this one; those stand as placeholders until ``bind``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from yibu.config import EngineName, ModelConfig
from yibu.config.engines import engine_folder
from yibu.engines.answers import Answers
from yibu.engines.logs import Cause, PhaseMark, causes_of, phases_of
from yibu.engines.requests import UNKNOWN, Abilities, RequestTable
from yibu.engines.servers import ServerCommand
from yibu.engines.sleep import SleepPlan
from yibu.environments.specs import environment_for
from yibu.errors import UnsupportedError
from yibu.messages import tr
from yibu.planner.request import Request
from yibu.planner.types import ModelFacts, Placement

Capability = Literal[
    "chat",
    "completions",
    "embeddings",
    "transcriptions",
    "translations",
    "rerank",
    "score",
    "responses",
    "messages",
    "tokenize",
    "tokenizer_info",
    "vision",
]
"""Capabilities of a model; ``vision`` means that its chats may hold images."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an engine serves a model, and the reason either way, as a sentence."""

    supported: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a running engine."""

    replica: str
    host: str
    port: int
    key: str | None = field(default=None, repr=False)
    """The inner key, sent as ``Authorization: Bearer``; None for engines that know no keys."""
    served_name: str | None = None
    """The engine's name for the model; None: the public one."""
    alive: Callable[[], bool] = field(default=lambda: True, repr=False, compare=False)
    """Whether the engine's process still runs: asked after each new connection, because the port of
    an engine that was killed may be another program's before the node hears of it."""


@dataclass(frozen=True, slots=True)
class Binding:
    """The values that a host fills into a plan."""

    host: str
    port: int
    python: Path | None
    """The environment's interpreter; None for engines without an environment."""
    model: Path | None
    key: str = field(repr=False)
    cache: Path | None = None
    """Where this environment's engine may keep compiled code."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """Further paths by name, ``vad`` for instance."""

    def values(self) -> dict[str, str]:
        values = {
            "host": self.host,
            "port": str(self.port),
            **self.extra,
        }
        if self.python is not None:
            values["python"] = str(self.python)
            values["bin"] = str(self.python.parent)
        if self.cache is not None:
            values["cache"] = str(self.cache)
        if self.model is not None:
            values["model"] = str(self.model)
        return values


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """How to run one replica; ``{host} {port} {python} {bin} {model} {cache} {templates}`` are filled in
    by ``bind``."""

    engine: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    capabilities: frozenset[Capability]
    environment: str | None = None
    """Name of the environment to make first; None for a command of the user's."""
    key_variable: str | None = None
    """The variable that carries the inner key; None for engines that know no keys."""
    ready_path: str = "/health"
    """Answers 200 when the engine can serve."""
    served_name: str | None = None
    start_timeout: float = 600.0
    """Seconds from spawn to ready."""
    stop_grace: float = 10.0
    """Seconds from SIGTERM to SIGKILL."""
    stop_whole_group: bool = True
    """False where the main process alone gets the SIGTERM, because it ends its own children in
    order: signalled beside it, they would cut what it lets finish."""
    conforming: bool = False
    """Whether answers conform to OpenAI's specification, so that the gateway forwards them unchanged."""
    abilities: Abilities = UNKNOWN
    """What requests may ask of this model."""
    upload_patience: float = 0.0
    """Seconds the engine may be silent in a request with a file; 0: as in any other."""
    extra_sources: Mapping[str, str] = field(default_factory=dict)
    """Further models to have on disk first, by the name of their placeholder."""
    slots: int | None = None
    """Concurrent requests it works on; None: it queues by itself, or cannot tell."""
    starts_alone: bool = False
    """Whether it measures free GPU memory while it starts, and fails when another engine changes that."""
    needs_temporary: bool = False
    """It cannot start without room for temporary files. (Every engine but a user's command has
    a directory for them of its own, in TMPDIR, where one can be made.)"""
    keeps_compiled: bool = False
    """Whether it compiles code at its start and keeps it in ``{cache}``."""
    sleep: SleepPlan | None = None
    """How it gives up GPU memory without ending; None: it cannot."""
    notes: tuple[str, ...] = ()
    """Choices worth telling the user, with their reasons."""

    def bind(self, binding: Binding) -> tuple[list[str], dict[str, str]]:
        """Return argv and the engine's own environment variables for one host and port.

        A placeholder that the binding does not have stays as it is: braces in a flag's JSON
        look the same.
        """
        values = {"templates": str(engine_folder(self.engine) / "templates"), **binding.values()}
        env = {name: fill(text, values) for name, text in self.env.items()}
        if self.key_variable is not None:
            env[self.key_variable] = binding.key
        return [fill(text, values) for text in self.argv], env


class Engine(Protocol):
    """One folder in ``yibu.engines`` extends this; ``yibu.engines.registry`` lists them."""

    name: EngineName
    formats: frozenset[str] = frozenset()
    """Formats of files that it serves."""
    serves: str = ""
    """The name of these files in messages."""
    answers: Answers = Answers()
    """How its answers and errors differ from the API's."""
    requests: RequestTable
    """How it treats each field of a request."""
    suffixes: frozenset[str] = frozenset()
    """Suffixes of files that only this engine serves, such as ``.gguf``."""
    server: ServerCommand | None = None
    """How people start its server, and its flags; None where its flags are a command's own."""
    flags_by_version: bool = False
    """The flags of the version in its environment, which ``yibu.launchers.flags`` prints, are for
    :meth:`with_flags`; else every version has the same."""
    source_options: frozenset[str] = frozenset()
    """Options that name the source of a further model."""
    for_gpus: bool = False
    """Whether it is made for GPUs: a container with it gets them even if the entry names none."""

    @property
    def causes(self) -> Sequence[Cause]:
        """Causes of its failures; tried before those common to all programs."""
        return causes_of(self.name)

    @property
    def phases(self) -> Sequence[PhaseMark]:
        """The phases of its start, in order; everything before the first is imports."""
        return phases_of(self.name)

    def supports(
        self,
        model: ModelConfig,  # noqa: ARG002 - the files decide, but for a command
        facts: ModelFacts | None,
    ) -> Verdict:
        """Whether this engine serves the model; ``facts`` is None where there are no files."""
        if facts is None:
            return Verdict(
                False,
                tr("{name} needs a model's files, and the entry has no source", name=self.name),
            )
        if facts.format not in self.formats:
            return Verdict(
                False,
                tr(
                    "{name} serves {serves}, and this is {format}",
                    name=self.name,
                    serves=self.serves,
                    format=facts.format,
                ),
            )
        kind = facts.architecture or tr("unknown architecture")
        return Verdict(True, tr("it serves {serves} ({kind})", serves=self.serves, kind=kind))

    def served(self, model: ModelConfig, facts: ModelFacts | None) -> ModelFacts:
        """The facts of a model's files.

        Raises:
            UnsupportedError: ``supports`` says no.
        """
        verdict = self.supports(model, facts)
        if facts is None or not verdict.supported:
            raise UnsupportedError(
                "model {model!r}: {reason}", model=model.name, reason=verdict.reason
            )
        return facts

    def check(self, model: ModelConfig) -> None:
        """Check the entry's options and flags without the model's files.

        Raises:
            YibuError: :meth:`plan` would refuse them, whatever is in the files.
        """
        ...

    def request(self, model: ModelConfig, facts: ModelFacts | None) -> Request:
        """The entry's options and flags as a request to the planner.

        Raises:
            ConfigError: a value is not of the type it must have.
        """
        ...

    def environment(
        self,
        model: ModelConfig,  # noqa: ARG002 - the device decides, but for some
        facts: ModelFacts | None,  # noqa: ARG002
        *,
        gpu: bool,
    ) -> str | None:
        """Its environment, with GPUs or without; None where it needs none.

        Raises:
            UnsupportedError: it does not serve the model like that.
        """
        return environment_for(self.name, gpu=gpu)

    def with_flags(self, plain: Mapping[str, Any]) -> Engine:  # noqa: ARG002
        """The same engine with the flags that ``yibu.launchers.flags`` printed."""
        return self

    def plan(
        self, model: ModelConfig, facts: ModelFacts | None, placement: Placement
    ) -> LaunchPlan:
        """The command for one replica.

        Raises:
            UnsupportedError: ``supports`` says no.
            ConfigError: an option has a wrong name, type or value.
        """
        ...


Ask = Callable[[Path, Sequence[str], Mapping[str, str]], str]
"""Runs a program with arguments and variables, and returns what it prints."""


@runtime_checkable
class RunsPrograms(Protocol):
    """An engine whose program can be replaced by the user's."""

    def with_program(self, model: ModelConfig, ask: Ask, built: Mapping[str, Path]) -> Engine:
        """The engine with the program that the entry names, or the best of those built here, which are
        given by their environments' names.

        Raises:
            ConfigError, EnvironmentSetupError: the entry's cannot be used.
        """
        ...


_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")


def fill(text: str, values: Mapping[str, str]) -> str:
    """Replace ``{name}`` by its value; other braces (JSON in a flag, say) are left alone."""
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), text)
