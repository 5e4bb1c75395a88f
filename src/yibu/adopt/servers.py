"""Which commands of a script, or which running process, are servers that yibu knows."""

from __future__ import annotations

import json
import os.path
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from yibu.adopt.bash import Command, Gap, Setting, UnknownScriptError, read_commands
from yibu.adopt.containers import Container, read_exec, read_run

_VLLM_MODULES = frozenset({"vllm.entrypoints.openai.api_server", "vllm.entrypoints.api_server"})
_VLLM_SERVE = ["-m", "vllm.entrypoints.cli.main", "serve"]
_LLAMA_PROGRAMS = frozenset({"llama-server", "llama.cpp-server"})
_SEVERAL_VALUES = frozenset({"served_model_name", "api_key"})


@dataclass(frozen=True, slots=True)
class Server:
    """One server that a command starts."""

    engine: str
    command: Command = field(repr=False)
    words: tuple[str, ...] = field(repr=False)
    """The engine's own arguments; they may hold a key."""
    replicas: int = 1

    def same_as(self, other: Server) -> bool:
        """Whether both were told the same: the same engine with the same flags, in any order."""
        return self.engine == other.engine and read_flags(self.words) == read_flags(other.words)


def find_servers(commands: Iterable[Command]) -> list[Server]:
    """The servers among some commands, in their order; those in containers as they are outside.

    Raises:
        UnknownScriptError: one is started in a container that was made elsewhere.
    """
    found: list[Server] = []
    containers: dict[str, Container] = {}
    for started in commands:
        if (container := read_run(started)) is not None:
            containers[container.name] = container
            found += in_container(container, started)
        elif (inside := read_exec(started)) is not None:
            name, words = inside
            known = containers.get(name)
            if known is not None:
                found += in_container(replace(known, entrypoint=(), arguments=words), started)
            elif in_container(Container(arguments=words, entrypoint=()), started):
                gap = Gap(started.line, " ".join(started.argv))
                raise UnknownScriptError(gap, f"runs in container {name}, which was made elsewhere")
        elif (server := _server(started)) is not None:
            engine, arguments = server
            found.append(Server(engine, started, tuple(arguments)))
    return found


def in_container(container: Container, started: Command, replicas: int = 1) -> list[Server]:
    """The servers that a container runs, with the paths and the address that this machine has."""
    words = container.argv()
    if not words:
        return []
    inside = Setting({"HOME": "/root", **container.env})
    commands, _ = read_commands(shlex.join(words), inside, judge)
    found = []
    for command in commands:
        if _server(command) is None:
            continue
        outside = container.outside(command, started.directory)
        server = _server(outside)
        assert server is not None
        program = os.path.basename(started.argv[0])  # noqa: PTH119 - another machine's path
        placed = replace(
            outside,
            directory=container.directory(command.directory, started.directory),
            background=started.background,
            output=started.output,
            wrappers=(*started.wrappers, program, *outside.wrappers),
            line=started.line,
        )
        found.append(Server(server[0], placed, tuple(server[1]), replicas))
    return found


_LAUNCH = re.compile(
    r"(?:^|[\s/'\"])vllm\s+serve\b|vllm\.entrypoints\.|(?:^|[\s/'\"])llama-server(?=\s+-|$)"
)
"""A command line within another that starts a server."""
_SERVES = re.compile(r"--served-model-name\b|--model(-path)?[ =]|--max-model-len\b")
"""Arguments for an image that is not known, which show that it serves a model."""
_HARMLESS = frozenset(
    """[ apt apt-get awk cat chmod chown cmake conda cp curl docker echo egrep export fuser git grep
    hf huggingface-cli jq kill killall ln ls lsof make mkdir modelscope mv pgrep pip pip3 pkill
    printf ps rm sed ss sudo systemctl tail tee test touch tr type uv wait watch wget which xargs
    """.split()  # noqa: SIM905
)
"""Programs that may name a server without starting one."""
_STARTING = frozenset({"xargs", "watch"})


def judge(command: Command) -> Literal["server", "suspect", ""]:
    """Whether a command starts a server that is known here, or one that cannot be seen into."""
    container, inside = read_run(command), read_exec(command)
    if container is not None:
        if in_container(container, command):
            return "server"
        return "suspect" if _SERVES.search(" ".join(container.arguments)) else ""
    if inside is not None:
        words = Container(arguments=inside[1], entrypoint=())
        return "server" if in_container(words, command) else ""
    if _server(command) is not None:
        return "server"
    program = os.path.basename(command.argv[0])  # noqa: PTH119 - another machine's path
    if program in _HARMLESS and program not in _STARTING:
        return ""
    return "suspect" if _LAUNCH.search(" ".join(command.argv)) else ""


def _server(command: Command) -> tuple[str, list[str]] | None:
    """The engine that a command starts and that engine's own arguments; None for any other."""
    program = os.path.basename(command.argv[0])  # noqa: PTH119 - another machine's path
    rest = list(command.argv[1:])
    if program == "vllm" and rest[:1] == ["serve"]:
        return "vllm", _positional_model(rest[1:])
    if program in _LLAMA_PROGRAMS:
        return "llama.cpp", rest
    if re.fullmatch(r"python[\d.]*", program):
        while rest and rest[0].startswith("-") and rest[0] != "-m":
            rest = rest[2 if rest[0] in ("-W", "-X") else 1 :]  # -u and the like
        if len(rest) >= 2 and rest[0] == "-m" and rest[1] in _VLLM_MODULES:
            return "vllm", rest[2:]
        if rest[:3] == _VLLM_SERVE:
            return "vllm", _positional_model(rest[3:])
        if rest and rest[0].endswith(("vllm/entrypoints/openai/api_server.py", "/vllm")):
            arguments = rest[1:]
            if arguments[:1] == ["serve"]:
                return "vllm", _positional_model(arguments[1:])
            return "vllm", arguments
    return None


def _positional_model(words: list[str]) -> list[str]:
    if words and not words[0].startswith("-"):
        return ["--model", *words]
    return words


def read_flags(words: Sequence[str]) -> dict[str, Any]:
    """``--a-b 1 --c --d=x`` as {a_b: 1, c: True, d: "x"}; a flag given twice becomes a list."""
    flags: dict[str, list[Any]] = {}
    name: str | None = None
    for word in words:
        if (level := re.fullmatch(r"-O=?(\d)", word)) is not None:
            flags["optimization_level"], name = [int(level[1])], None
        elif word.startswith("-") and not re.fullmatch(r"-\d+(\.\d+)?", word):
            flag, equals, value = word.lstrip("-").partition("=")
            name = flag.replace("-", "_")
            flags.setdefault(name, [])
            if equals:
                flags[name].append(_value(name, value))
        elif name is not None:
            flags[name].append(_value(name, word))
    result: dict[str, Any] = {}
    for flag, values in flags.items():
        if flag in _SEVERAL_VALUES:
            result[flag] = values
        else:
            result[flag] = True if not values else values[0] if len(values) == 1 else values
    return result


def _value(name: str, text: str) -> Any:
    """Numbers and JSON as such; names, paths and keys stay text."""
    if name in {*_SEVERAL_VALUES, "model", "host"}:
        return text
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    if re.fullmatch(r"-?\d*\.\d+", text):
        return float(text)
    if text[:1] in "{[":
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text
