"""The parts of an entry from a command line: names, source, GPUs and values."""

from __future__ import annotations

import json
import os.path
import re
from collections.abc import Mapping, Sequence
from typing import Any

from yibu.adopt.findings import Findings, name_of
from yibu.engines.gpu_variables import GPU_VARIABLES, shown_gpus
from yibu.engines.servers import Lifted, ServerCommand
from yibu.errors import ConfigError
from yibu.hub.source import parse_source
from yibu.messages import tr
from yibu.redaction import is_secret

# What start scripts export that means nothing to a process yibu starts.
_SHELL_VARIABLES = frozenset({"PATH", "HOME", "PWD", "PYTHONUNBUFFERED"})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*")
"""What a model of yibu's may be called; an alias may be called anything."""


_FILE = re.compile(r"\.{1,2}/|[^{}\s:]+\.\w{1,8}$")
"""A path, and not the text or the hub's name that some of these flags may have in its place."""


def path_of(value: str, directory: str) -> str:
    """A relative path resolved against the server's working directory, if the script tells it."""
    if not directory or not _FILE.match(value) or value.startswith(("/", "~")):
        return value
    return os.path.normpath(os.path.join(directory, value))  # noqa: PTH118 - another's path


def value_of(text: str) -> Any:
    """Numbers and JSON as such, where they say the same when they are written again."""
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue  # no number of that kind
        if str(number) == text:
            return number
    if text[:1] in "{[":
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def names_of(given: Sequence[str], source: str, own: ServerCommand) -> list[str]:
    """What clients may ask for: the served names, or where a server has it so the model as typed."""
    names = list(given)
    if not names and own.names_itself:
        names = [source] if source else []
    first = names[0] if names else source
    name = first if names and _served_as(first, source) else name_of(first)
    return list(dict.fromkeys((name, *names)))


def _served_as(name: str, source: str) -> bool:
    """Whether a name can stand as the model's own: not a path, nor the whole id of a hub."""
    return name != source and _NAME.fullmatch(name) is not None


def source_of(
    source: str, own: ServerCommand, env: Mapping[str, str], directory: str, found: Findings
) -> str:
    """A path as a path; ``ORG/NAME`` with the hub that the script would have used."""
    if source.startswith("hf:"):
        return source
    if "://" in source:
        return str(parse_source(source))
    is_id = re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not source.startswith(".")
    if is_id and not source.endswith(".gguf"):
        modelscope = env.get(own.hub_variable, "").lower() in ("true", "1")
        hub = "modelscope" if modelscope else "hf"
        found.warn(
            tr(
                "{source} is read as a model of {hub}; write ./{source} if it is a directory",
                source=source,
                hub=hub,
            )
        )
        return f"{hub}:{source}"
    if source.startswith(("/", "~")):
        return source
    joined = os.path.normpath(os.path.join(directory, source))  # noqa: PTH118 - another's path
    return joined if joined.startswith(("/", "~", "..")) else f"./{joined}"


def gpus_of(env: dict[str, str]) -> list[int] | None:
    """The GPUs that a server was shown, their variable taken out; None where nothing says it, or only
    by UUID, which yibu's ``gpus:`` cannot say."""
    gpus: list[int] | None = None
    for variable in GPU_VARIABLES:
        if variable in env and (shown := shown_gpus(env[variable])) is not None:
            gpus = list(shown)
            del env[variable]
    return gpus


def sources_of(
    lifted: Lifted,
    own: ServerCommand,
    directory: str,
    options: dict[str, Any],
    found: Findings,
) -> dict[str, str]:
    """The entry's source, where the command names one; those of its adapters go into ``options``.

    Raises:
        SourceError: it is nothing that yibu can fetch.
    """

    def read(source: str) -> str:
        return source_of(source, own, lifted.env, directory, found)

    if lifted.adapters:
        options.pop("enable_lora", None)
        options["lora"] = {name: read(path) for name, path in lifted.adapters}
    source = lifted.hub_model or lifted.model
    return {"source": read(source)} if source else {}


def options_of(
    own: ServerCommand, lifted: Lifted, directory: str, found: Findings
) -> dict[str, Any]:
    """The engine's own flags as options of an entry, by yibu's names where it has one.

    Raises:
        ConfigError: a number is none.
    """
    names = {flag: option for option, flag in own.options.items()}
    options: dict[str, Any] = {}
    by_variable = [
        own.table.of_variable(name, lifted.env[variable])
        for variable, name in own.table.variables.items()
        if variable in lifted.env
    ]
    for flag in (*by_variable, *lifted.flags):
        if (why := own.left_out(flag.name)) is not None:
            found.warn(
                tr(
                    "{partition} is left out: {unused}",
                    partition=flag.words[0].partition("=")[0],
                    unused=why,
                )
            )
            continue
        name = f"{flag.name}.{flag.key}" if flag.key else names.get(flag.name, flag.name)
        values = [value_of(value) for value in flag.values]
        if flag.name in own.paths and not flag.key:
            values = [path_of(value, directory) for value in flag.values]
        kind = own.table.flags.get(flag.name)
        if kind == "repeat" and name in options:
            options[name] = [*options[name], *values]
        elif kind == "repeat":
            options[name] = values
        elif not values:
            options[name] = not flag.off
        else:
            options[name] = values[0] if len(values) == 1 else values
    try:
        return own.adopt_options(options)
    except ValueError as error:
        raise ConfigError(
            "a length or a number of sequences is no whole number: {error}", error=error
        ) from error


def environment_of(env: Mapping[str, str], name: str, found: Findings) -> dict[str, str]:
    kept = {}
    for variable, value in env.items():
        if variable in _SHELL_VARIABLES:
            continue
        if is_secret(variable, value):
            kept[variable] = f"${{env.{variable}}}"
            found.secrets[variable] = value
            found.warn(
                tr(
                    "{name}: {variable} is a secret: it is not copied, and yibu.yaml takes it "
                    "from yibu's own environment",
                    name=name,
                    variable=variable,
                )
            )
        else:
            kept[variable] = value
    return kept
