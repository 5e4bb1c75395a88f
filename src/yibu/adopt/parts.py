"""The parts of an entry, from what a command line says: its names, source, GPUs and values."""

from __future__ import annotations

import json
import os.path
import re
from collections.abc import Mapping, Sequence
from typing import Any

from yibu.adopt.findings import Findings, name_of
from yibu.engines.gpu_variables import GPU_VARIABLES, shown_gpus
from yibu.engines.servers import ServerCommand
from yibu.hub.source import parse_source
from yibu.messages import tr

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*")
"""What a model of yibu's may be called; an alias may be called anything."""


_FILE = re.compile(r"\.{1,2}/|[^{}\s:]+\.\w{1,8}$")
"""A path, and not the text or the hub's name that some of these flags may have in its place."""


def path_of(value: str, directory: str) -> str:
    """A relative path from where the server was started, where the script says that."""
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
