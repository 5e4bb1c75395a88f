"""Reading an engine's options from an entry, with errors that suggest the nearest name."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from yibu.config import ModelConfig
from yibu.engines.flags import NO_FLAGS
from yibu.errors import ConfigError
from yibu.messages import joined, tr
from yibu.messages.validation import complaint

_CUTOFF = 0.8


def StartTimeout(seconds: float) -> Any:  # noqa: N802 - a field's definition, as pydantic's Field
    """The field ``start_timeout`` with an engine's default."""
    return Field(seconds, gt=0, allow_inf_nan=False, strict=False)


class Options(BaseModel):
    """Base of every engine's schema: strict types, frozen, nothing unknown."""

    # A model uses one engine's; all of them are imported.
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", defer_build=True)

    start_timeout: float = StartTimeout(600.0)
    """Seconds from spawn to ready."""


class ServerOptions(Options):
    """Options that servers of safetensors models have in common, beside their own flags."""

    start_timeout: float = StartTimeout(1800.0)
    """Large models load, compile and capture graphs for many minutes."""
    context: int | None = Field(None, ge=1)
    """Tokens a sequence."""
    parallel: int | None = Field(None, ge=1)
    """Sequences at once."""
    tensor_parallel: int | None = Field(None, ge=1)
    lora: dict[str, str] | None = None
    """LoRA adapters: the name that clients ask for → a path or a source."""
    reasoning_parser: str | None = ""
    """null turns the one that yibu would choose off."""
    tool_call_parser: str | None = ""


OptionsType = TypeVar("OptionsType", bound=Options)


def read_options(
    schema: type[OptionsType], model: ModelConfig, engine: str, own: Collection[str] = ()
) -> tuple[OptionsType, dict[str, Any]]:
    """Split ``model.options`` into the schema's options and the engine's own.

    Hyphens and underscores count as the same. ``own`` are names that the engine is known to have,
    and which are therefore not misspelt however near they come to one of the schema's.

    Raises:
        ConfigError: a value has a wrong type, or a name looks like a misspelt one of the schema.
    """
    known: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for key, value in model.options.items():
        name = key.replace("-", "_")
        (known if name in schema.model_fields else rest)[name] = value
    for name in rest:
        if name not in own and (near := nearest(name, schema.model_fields)):
            raise ConfigError(
                "model {model!r}: the option {name!r} is not known to {engine}",
                model=model.name,
                name=name,
                engine=engine,
                near=near,
                hint="Did you mean {near!r}? To hand it to the engine as it stands, put it "
                "after `--` on the command line",
            )
    try:
        return schema.model_validate(known), rest
    except ValidationError as error:
        raise ConfigError(
            "model {model!r}: {what}",
            model=model.name,
            what=joined("; ", _sentences(error, known)),
            engine=engine,
            model_fields=", ".join(schema.model_fields),
            hint="Options of {engine}: {model_fields}",
        ) from error


def nearest(name: str, candidates: Iterable[str], cutoff: float = _CUTOFF) -> str | None:
    """The candidate most like ``name``, or None when nothing is like it."""
    return next(iter(difflib.get_close_matches(name, list(candidates), n=1, cutoff=cutoff)), None)


def _sentences(error: ValidationError, given: Mapping[str, Any]) -> Iterable[str]:
    faults: dict[str, list[Any]] = {}
    for problem in error.errors(include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else "options"
        faults.setdefault(name, []).append(problem)
    for name, problems in faults.items():
        wrong = complaint(problems, repr(given.get(name)))
        yield tr("option {name!r}: {wrong}", name=name, wrong=wrong)


def to_flags(options: Mapping[str, Any]) -> list[str]:
    """The command line words for options outside the schema.

    ``top_k: 5`` → ``--top-k 5``; ``true`` → the bare flag; ``false`` → ``--no-…``; null → nothing,
    the engine's default; a mapping → JSON; a list → the flag again for each value.
    """
    return [word for flag in NO_FLAGS.of_options(options) for word in flag.words]


def adapter_sources(lora: Mapping[str, str] | None) -> dict[str, str]:
    """Each LoRA adapter's source, by the placeholder of its path: ``{lora_0}`` …"""
    return {f"lora_{number}": source for number, source in enumerate((lora or {}).values())}
