"""Which engines there are, and which one serves a model."""

from __future__ import annotations

from collections.abc import Mapping

from yibu.config import ModelConfig
from yibu.engines.base import Engine
from yibu.engines.command import Command
from yibu.engines.llama_cpp import LlamaCpp
from yibu.engines.requests import RequestTable
from yibu.engines.speech import Speech
from yibu.engines.vllm import Vllm
from yibu.errors import ConfigError, UnsupportedError
from yibu.planner.types import ModelFacts


def engines() -> tuple[Engine, ...]:
    """Every engine; for a model that names none, the first that supports it is taken."""
    return (LlamaCpp(), Vllm(), Speech(), Command())


def request_tables() -> Mapping[str, RequestTable]:
    """What each engine does with the fields of requests, by its name."""
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
        f"there is no engine named {name!r}",
        hint=f"engines: {', '.join(engine.name for engine in engines())}",
    )


def candidates(model: ModelConfig) -> tuple[Engine, ...]:
    """The engines that may come to serve a model whose files are not on this disk.

    Raises:
        ConfigError: the entry names an engine that does not exist.
    """
    if model.engine is not None:
        return (by_name(model.engine),)
    endings = [e for e in engines() if model.source.endswith(tuple(e.suffixes) or ("\n",))]
    return tuple(endings) or engines()


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
                f"model {model.name!r}: {verdict.reason}",
                hint=f"leave `engine: {model.engine}` out to let yibu choose, or change the source",
            )
        return engine
    reasons = []
    for engine in engines():
        verdict = engine.supports(model, facts)
        if verdict.supported:
            return engine
        reasons.append(f"{engine.name}: {verdict.reason}")
    raise UnsupportedError(
        f"model {model.name!r}: no engine serves it ({'; '.join(reasons)})",
        hint="serve it with a command of your own: engine: command, options: {command: …}",
    )
