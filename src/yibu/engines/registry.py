"""The list of engines, and choosing one for a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module

from yibu.config import ENGINE_NAMES, ModelConfig
from yibu.config.engines import engine_package
from yibu.engines.base import Engine
from yibu.engines.flags import Flag, FlagTable
from yibu.engines.requests import RequestTable
from yibu.engines.servers import ServerCommand
from yibu.errors import ConfigError, UnsupportedError
from yibu.messages import joined, tr
from yibu.planner.types import ModelFacts

_SHARED = frozenset({"context", "parallel", "threads", "start_timeout"})
"""Options that every engine of language models has."""


def engines() -> tuple[Engine, ...]:
    """Every engine; for a model that names none, the first that supports it is taken."""
    return tuple(import_module(engine_package(name)).ENGINE() for name in ENGINE_NAMES)


def servers() -> tuple[ServerCommand, ...]:
    """How each engine's own server is started, where it has one."""
    return tuple(engine.server for engine in engines() if engine.server is not None)


def request_tables() -> Mapping[str, RequestTable]:
    """Each engine's request table, by its name."""
    return {engine.name: engine.requests for engine in engines()}


def by_name(name: str) -> Engine:
    """The engine of that name.

    Raises:
        ConfigError: there is none.
    """
    for engine in engines():
        if engine.name == name:
            return engine
    raise ConfigError(
        "there is no engine named {name!r}",
        name=name,
        engines=", ".join(engine.name for engine in engines()),
        hint="Engines: {engines}",
    )


def candidates(model: ModelConfig) -> tuple[Engine, ...]:
    """The engines that may serve a model whose files are not on this disk.

    Raises:
        ConfigError: the entry names an engine that does not exist.
    """
    if model.engine is not None:
        return (by_name(model.engine),)
    by_suffix = [e for e in engines() if model.source.endswith(tuple(e.suffixes))]
    return tuple(by_suffix) or engines()


def server_of(model: ModelConfig) -> ServerCommand | None:
    """Whose flags an entry has: its engine's; where it names none, those of the first engine that may
    come to serve it and knows them all. None for an engine whose flags are a command's own."""
    if model.engine is not None:
        return by_name(model.engine).server
    # Where they know as many, a file that nothing shows to be GGUF is more often vLLM's.
    found = sorted(candidates(model), key=lambda engine: bool(engine.suffixes))
    servers = [engine.server for engine in found if engine.server is not None]
    names = [option for option in model.options if option not in _SHARED]

    def unknown(server: ServerCommand) -> int:
        table = server.table
        given = (*(flag.name for flag in _flags(table, model.flags)), *names)
        return sum(table.name(name)[0] not in table.flags for name in given)

    return min(servers, key=unknown, default=None)


def source_options(model: ModelConfig) -> frozenset[str]:
    """The options of an entry that name further models, by the engines that may serve it."""
    if not model.options:
        return frozenset()
    chosen = engines() if model.engine is None else (by_name(model.engine),)
    return frozenset[str]().union(*(engine.source_options for engine in chosen))


def _flags(table: FlagTable, words: Sequence[str]) -> Sequence[Flag]:
    try:
        return table.read(words)
    except ConfigError:  # a stray word, which whoever reads them for good refuses
        return ()


def choose(model: ModelConfig, facts: ModelFacts | None) -> Engine:
    """The engine that the entry names, or the first whose ``supports`` says yes.

    Raises:
        ConfigError: the entry names an engine that does not exist.
        UnsupportedError: the named engine, or every engine, says no; with their reasons.
    """
    if model.engine is not None:
        engine = by_name(model.engine)
        verdict = engine.supports(model, facts)
        if not verdict.supported:
            raise UnsupportedError(
                "model {model!r}: {reason}",
                model=model.name,
                reason=verdict.reason,
                engine=model.engine,
                hint="Leave `engine: {engine}` out to let yibu choose, or change the source",
            )
        return engine
    reasons = []
    for engine in engines():
        verdict = engine.supports(model, facts)
        if verdict.supported:
            return engine
        reasons.append(tr("{name}: {text}", name=engine.name, text=verdict.reason))
    raise UnsupportedError(
        "model {model!r}: no engine serves it ({reasons})",
        model=model.name,
        reasons=joined("; ", reasons),
        hint="Serve it with a command of your own: engine: command, options: {command: …}",
    )
