"""Known servers among a script's commands and running processes."""

from __future__ import annotations

import dataclasses
import os.path
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from yibu.adopt.bash import Command, Gap, Setting, UnknownScriptError, read_commands
from yibu.adopt.containers import Container, read_exec, read_run
from yibu.adopt.marks import MODULES, PROGRAMS
from yibu.engines.registry import by_name, engines
from yibu.engines.servers import ServerCommand
from yibu.errors import ConfigError
from yibu.messages import tr


@dataclass(frozen=True, slots=True)
class StartedServer:
    """One server that a command starts."""

    engine: str
    command: Command = field(repr=False)
    words: tuple[str, ...] = field(repr=False)
    """The engine's own arguments; they may hold a key."""
    replicas: int = 1
    names: tuple[str, ...] = ()
    """Names that clients of a proxy in front of it use; empty without one."""

    def same_as(self, other: StartedServer) -> bool:
        """Whether both have the same engine and the same flags, in any order."""
        if self.engine != other.engine:
            return False
        try:
            return self._meaning() == other._meaning()
        except ConfigError:  # one is told what no server takes: it is about to end
            return self.words == other.words

    def _meaning(self) -> dict[str, object]:
        """What is told: of a flag that is given twice the last word counts."""
        lifted = self.command_line.lift(self.words)
        told = dataclasses.replace(lifted, flags=(), keys_on_command_line=False)
        named = {(flag.name, flag.key): (flag.off, flag.values) for flag in lifted.flags}
        return {"gateway": told, "flags": named}

    @property
    def command_line(self) -> ServerCommand:
        found = by_name(self.engine).server
        assert found is not None  # it was found by it
        return found


def find_servers(commands: Iterable[Command]) -> list[StartedServer]:
    """The servers among some commands, in order; those in containers as seen from outside.

    Raises:
        UnknownScriptError: one is started in a container that was made elsewhere.
    """
    found: list[StartedServer] = []
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
                raise UnknownScriptError(
                    gap, tr("runs in container {name}, which was made elsewhere", name=name)
                )
        elif (server := _server(started)) is not None:
            engine, arguments = server
            found.append(StartedServer(engine, started, tuple(arguments)))
    return found


def in_container(container: Container, started: Command, replicas: int = 1) -> list[StartedServer]:
    """The servers in a container, with this machine's paths and address."""
    words = container.argv()
    if not words:
        return []
    inside = Setting({"HOME": "/root", **container.env})
    commands, _ = read_commands(shlex.join(words), inside, judge, started.line)
    found = []
    for command in commands:
        if _server(command) is None:
            continue
        if container.unread:
            raise UnknownScriptError(
                Gap(started.line, container.unread[0]), tr("is not read"),
                tr("Give each variable that the server needs with -e NAME=VALUE."),
            )  # fmt: skip
        if word := container.volume(command.argv):
            raise UnknownScriptError(
                Gap(started.line, word), tr("lies on a volume that only containers see"),
                tr("Copy it into a folder of this machine, and mount that in its place."),
            )  # fmt: skip
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
        found.append(StartedServer(server[0], placed, tuple(server[1]), replicas))
    return found


_LAUNCH = re.compile(
    "|".join(
        rf"(?:^|[\s/'\"]){re.escape(program)}" + (rf"\s+{words[0]}\b" if words else r"(?=\s+-|$)")
        for program, words in PROGRAMS.items()
    )
    + "".join(f"|{re.escape(module)}" for module in MODULES if module not in PROGRAMS)
)
"""A command line within another that starts a server."""
_VARIANT = re.compile(
    "|".join(
        rf"[\w.-]*{re.escape(program)}[\w.-]*" + (rf"\s+{words[0]}\b" if words else r"\s+-")
        for program, words in PROGRAMS.items()
    )
)
"""A program that is named after one of them: a build of the user's own, a fork."""
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
    if any(e.server and e.server.started(command.argv) is not None for e in engines()):
        return ""  # it prints its help or the like
    program = os.path.basename(command.argv[0])  # noqa: PTH119 - another machine's path
    if program in _HARMLESS and program not in _STARTING:
        return ""
    line = " ".join(command.argv)
    named = _VARIANT.match(line[len(command.argv[0]) - len(program) :])
    return "suspect" if named or _LAUNCH.search(line) else ""


def _server(command: Command) -> tuple[str, list[str]] | None:
    """The engine that a command starts and that engine's own arguments; None for any other, and for
    one that only prints something.

    Raises:
        UnknownScriptError: its arguments cannot be read.
    """
    for engine in engines():
        if engine.server is None:
            continue
        try:
            words = engine.server.started(command.argv)
            prints = words is not None and engine.server.only_prints(words)
        except ConfigError as error:
            gap = Gap(command.line, " ".join(command.argv))
            raise UnknownScriptError(
                gap, tr("cannot be read: {error}", error=error.message)
            ) from error
        if words is not None:
            return None if prints else (engine.name, words)
    return None
