"""``docker run … vllm/vllm-openai …`` as the command that would do the same without a container."""

from __future__ import annotations

import os.path
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from yibu.adopt.bash import Command

_PROGRAMS = frozenset({"docker", "podman", "nerdctl"})
_SWITCHES = frozenset(
    ["d", "detach", "i", "interactive", "t", "tty", "it", "ti", "dit", "itd", "rm", "init",
     "privileged", "read-only", "no-healthcheck", "P", "publish-all", "oom-kill-disable"]
)  # fmt: skip
"""Options of ``docker run`` that stand alone; every other has a value."""
_ENGINE_PORT = "8000"


@dataclass(slots=True)
class _Container:
    """What the options before the image say."""

    ports: dict[str, str] = field(default_factory=dict)
    """The container's port → where it is published, ``HOST:PORT`` or ``PORT``."""
    folders: dict[str, str] = field(default_factory=dict)
    """The container's path → this machine's."""
    env: dict[str, str] = field(default_factory=dict)
    other_entry: bool = False


def read_container(command: Command) -> Command | None:
    """The vLLM that a container runs, its ports, folders and GPUs as they are outside of it; None
    for any other command, and for images that are not vLLM's own."""
    words = list(command.argv)
    program = os.path.basename(words[0])  # noqa: PTH119 - text of another machine's, no path here
    if program not in _PROGRAMS:
        return None
    if words[1:2] == ["container"]:
        del words[1]
    if words[1:2] != ["run"]:
        return None
    found, rest = _options(words[2:], dict(command.env))
    if not rest or "vllm" not in rest[0] or found.other_entry:
        return None
    arguments = [_outside(word, found.folders, command.directory) for word in rest[1:]]
    if arguments[:1] == ["vllm"]:
        del arguments[0]
    if arguments[:1] == ["serve"]:
        del arguments[0]
    return Command(
        ("vllm", "serve", *_published(arguments, found.ports)),
        found.env,
        command.directory,
        command.background,
        command.output,
        (*command.wrappers, program),
    )


def _options(words: Sequence[str], env: dict[str, str]) -> tuple[_Container, list[str]]:
    """The options of ``run``, and what follows: the image and its arguments."""
    found, rest = _Container(), list(words)
    while rest and rest[0].startswith("-"):
        name, equals, value = rest.pop(0).lstrip("-").partition("=")
        if not equals and name not in _SWITCHES and rest:
            value = rest.pop(0)
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
        elif name in ("e", "env"):
            variable, equals, text = value.partition("=")
            found.env[variable] = text if equals else env.get(variable, "")
        elif name == "gpus" and (devices := re.search(r"device=([\w,-]+)", value)):
            found.env["CUDA_VISIBLE_DEVICES"] = devices[1]
        elif name == "entrypoint":
            found.other_entry = True
    return found, rest


def _outside(word: str, folders: dict[str, str], directory: str) -> str:
    """A path in the container as this machine has it; ``NAME=/path`` too."""
    before, equals, path = word.rpartition("=")
    for inside, outside in folders.items():
        if inside and outside and (path == inside or path.startswith(inside + "/")):
            base = outside if outside.startswith("~") else os.path.join(directory, outside)  # noqa: PTH118 - as above
            return f"{before}{equals}{base}{path[len(inside) :]}"
    return word


def _published(arguments: list[str], ports: dict[str, str]) -> list[str]:
    """The arguments with the address that clients outside of the container know."""
    kept, inner = [], _ENGINE_PORT
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name in ("--port", "--host"):
            value = value if equals else next(words, "")
            inner = value if name == "--port" else inner
        else:
            kept.append(word)
    host, _, port = ports.get(inner, inner).rpartition(":")
    return [*kept, "--host", host or "0.0.0.0", "--port", port]  # noqa: S104 - as docker publishes
