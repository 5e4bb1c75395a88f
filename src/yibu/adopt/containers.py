"""Containers: the server inside, as the command that would do the same outside.

What ``docker run``, a Compose service and a Kubernetes container say of an image, its arguments,
environment, ports, volumes and GPUs comes to the same ``Container``.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from yibu.adopt.bash import Command
from yibu.adopt.marks import PROGRAMS
from yibu.engines.flags import spelt
from yibu.engines.registry import servers
from yibu.engines.servers import Role

_PROGRAMS = frozenset({"docker", "podman", "nerdctl"})
_SWITCHES = frozenset(
    ["d", "detach", "i", "interactive", "t", "tty", "it", "ti", "dit", "itd", "rm", "init",
     "privileged", "read-only", "no-healthcheck", "P", "publish-all", "oom-kill-disable",
     "disable-content-trust", "sig-proxy", "q", "quiet"]
)  # fmt: skip
"""Options of ``docker run`` without a value; every other has one."""
_SHORT_VALUES = "evpuwhlmc"
_DEVICES = re.compile(r"device=([\w,:-]+)")


_ADDRESS: Mapping[str, Role] = {"host": "host", "port": "port"}
"""Address flags of an unknown server."""
_INTERPRETERS = frozenset({"python", "python3", "bash", "sh"})
_PROGRAM_WORDS = _INTERPRETERS | PROGRAMS.keys()


@dataclass(slots=True)
class Container:
    """The outside settings of one container."""

    image: str = ""
    name: str = ""
    entrypoint: tuple[str, ...] | None = None
    arguments: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    ports: dict[str, str] = field(default_factory=dict)
    """The container's port → where it is published, ``HOST:PORT`` or ``PORT``."""
    folders: dict[str, str] = field(default_factory=dict)
    """The container's path → this machine's."""
    workdir: str = ""
    host_network: bool = False
    unread: tuple[str, ...] = ()
    """Options about the server that were not read."""

    def argv(self) -> tuple[str, ...]:
        """Its command: entrypoint and arguments, as far as the image is known."""
        if self.entrypoint is not None:
            return (*self.entrypoint, *self.arguments)
        known = next((i for s in servers() for i in s.images if i.pattern.search(self.image)), None)
        entry = known.entry if known else ()
        rest = self.arguments
        first = os.path.basename(rest[0]) if rest else ""  # noqa: PTH119 - a container's path
        if first in _PROGRAM_WORDS:
            return rest
        if known is not None and known.switches:
            # Its entrypoint chooses one of several programs by its first argument.
            return (*known.program, *rest[1:]) if rest[:1] and rest[0] in known.switches else rest
        if len(entry) > 1 and first == entry[1]:
            return (entry[0], *rest)  # the entrypoint's second word written out
        return (*entry, *rest)

    def outside(self, command: Command, directory: str) -> Command:
        """A command of the container's with this machine's paths and address."""
        arguments = [self._path(word, directory) for word in command.argv]
        env = {
            name: value if "://" in value else self._path(value, directory)
            for name, value in {**self.env, **command.env}.items()
        }
        return replace(command, argv=tuple(self._published(arguments)), env=env)

    def directory(self, inside: str, outside: str) -> str:
        """This machine's directory for one of the container's."""
        inside = os.path.join(self.workdir, inside)  # noqa: PTH118 - a container's path
        return self._path(inside, outside) if inside else outside

    def _path(self, word: str, directory: str) -> str:
        before, equals, path = word.rpartition("=")
        for inside, outside in sorted(self.folders.items(), key=lambda pair: -len(pair[0])):
            if _is_under(path, inside) and not _is_volume(outside):
                base = outside if outside[:1] in "~/" else os.path.join(directory, outside)  # noqa: PTH118
                base = os.path.normpath(base)
                if base[:1] not in ("/", "~", "."):
                    base = f"./{base}"  # no model of a hub
                return f"{before}{equals}{base}{path[len(inside) :]}"
        return word

    def volume(self, argv: Sequence[str]) -> str:
        """The first word that lies on a volume of the container program's own; ``""`` where none does."""
        paths = {word: word.rpartition("=")[2] for word in argv}
        for inside, outside in self.folders.items():
            for word, path in paths.items():
                if _is_volume(outside) and _is_under(path, inside):
                    return word
        return ""

    def _published(self, arguments: list[str]) -> list[str]:
        """The arguments with the address that clients outside of the container know."""
        server = next((one for one in servers() if one.started(arguments) is not None), None)
        roles = server.roles if server is not None else _ADDRESS
        address = {spelt(flag): role for flag, role in roles.items() if role in ("host", "port")}
        told = {"port": str(server.port) if server is not None else "8000", "host": ""}
        kept = []
        words = iter(arguments)
        for word in words:
            name, equals, value = word.partition("=")
            if name in address:
                told[address[name]] = value if equals else next(words, "")
            else:
                kept.append(word)
        if self.host_network:
            host, port = told["host"], told["port"]
        else:
            host, _, port = self.ports.get(told["port"], told["port"]).rpartition(":")
        here = {"host": host or "0.0.0.0", "port": port}  # noqa: S104 - as docker publishes
        return [*kept, *(word for name, role in address.items() for word in (name, here[role]))]


def _is_under(path: str, folder: str) -> bool:
    return bool(folder) and (path == folder or path.startswith(folder + "/"))


def _is_volume(outside: str) -> bool:
    """Whether a folder from outside is a volume by its name, and no path of this machine's."""
    return "/" not in outside and outside[:1] not in (".", "~")


def read_run(command: Command) -> Container | None:
    """The container that ``docker run`` makes; None for any other command."""
    words = list(command.argv)
    program = os.path.basename(words[0])  # noqa: PTH119 - text of another machine's, no path here
    if program not in _PROGRAMS:
        return None
    if words[1:2] == ["container"]:
        del words[1]
    if words[1:2] not in (["run"], ["create"]):
        return None
    found, rest = _options(words[2:], dict(command.env))
    if not rest:
        return None
    found.image, found.arguments = rest[0], tuple(rest[1:])
    return found


def read_exec(command: Command) -> tuple[str, tuple[str, ...]] | None:
    """The container's name and what ``docker exec`` runs in it; None for any other command."""
    words = list(command.argv)
    if os.path.basename(words[0]) not in _PROGRAMS or words[1:2] != ["exec"]:  # noqa: PTH119
        return None
    _, rest = _options(words[2:], dict(command.env))
    return (rest[0], tuple(rest[1:])) if len(rest) > 1 else None


def _options(words: Sequence[str], env: dict[str, str]) -> tuple[Container, list[str]]:
    """The options of ``run``, and what follows: the image and its arguments."""
    found, rest = Container(), list(words)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        name, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("--") and len(name) > 1 and name[0] in _SHORT_VALUES:
            name, equals, value = name[0], "=", word[2:]  # -p8000:8000
        elif not equals and name not in _SWITCHES and rest:
            value = rest.pop(0)
        _option(found, name, value, env)
    return found, rest


def _option(found: Container, name: str, value: str, env: Mapping[str, str]) -> None:
    if name in ("p", "publish"):
        outside, _, inside = value.rpartition(":")
        found.ports[inside.partition("/")[0]] = outside or inside
    elif name in ("v", "volume"):
        outside, _, inside = value.partition(":")
        found.folders[inside.partition(":")[0].rstrip("/")] = outside
    elif name == "mount":
        parts = dict(part.split("=", 1) for part in value.split(",") if "=" in part)
        inside = parts.get("target") or parts.get("dst") or parts.get("destination") or ""
        found.folders[inside.rstrip("/")] = parts.get("source") or parts.get("src") or ""
    elif name in ("e", "env", "env-file"):
        _variables(found, name, value, env)
    elif name == "gpus" and (devices := _DEVICES.search(value)):
        found.env["CUDA_VISIBLE_DEVICES"] = devices[1]
    elif name == "entrypoint":
        found.entrypoint = (value,) if value else ()
    elif name in ("net", "network"):
        found.host_network = value == "host"
    elif name in ("w", "workdir"):
        found.workdir = value
    elif name == "name":
        found.name = value


def _variables(found: Container, option: str, value: str, env: Mapping[str, str]) -> None:
    """``-e NAME=VALUE``, or ``-e NAME`` for what the shell has, if it has it; a file is not read."""
    name, equals, text = value.partition("=")
    if option == "env-file":
        found.unread += (f"--env-file {value}",)
    elif equals or name in env:
        found.env[name] = text if equals else env[name]
