"""A llama-server other than the packaged build: its version, devices and flags, by its own output."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from yibu.config import ModelConfig
from yibu.engines.base import Ask
from yibu.errors import ConfigError, EnvironmentSetupError
from yibu.paths import at_home
from yibu.planner.arithmetic import MIB
from yibu.planner.types import Accelerator, Gpu

_VERSION = re.compile(r"^version: (?P<version>.+)$", re.MULTILINE)
_BUILD = re.compile(r"\bbuild (\d+)|^(\d+) \(")
_DEVICE = re.compile(
    r"^\s+(?P<name>[A-Za-z][A-Za-z0-9_]*?\d*): (?P<description>.+)"
    r" \((?P<total>\d+) MiB, (?P<free>\d+) MiB free\)\s*$",
    re.MULTILINE,
)
_FLAG = re.compile(r"-{1,2}[A-Za-z0-9][\w-]*")
_VARIABLE = re.compile(r"\(env: (LLAMA_\w+)\)")
_NEEDED = ("model", "port", "host", "ctx_size", "parallel")
"""Flags without which a program is no llama-server, whatever it answers."""


@dataclass(frozen=True, slots=True)
class Device:
    """One device that a program can compute on."""

    name: str
    """As its ``--device`` takes it: ``CUDA0``, ``Vulkan1`` …"""
    description: str
    total: int
    free: int

    @property
    def backend(self) -> str:
        """``CUDA``, ``Vulkan``, ``ROCm``, ``Metal``, ``CANN`` …"""
        name = self.name.rstrip("0123456789")
        return {"MTL": "Metal"}.get(name, name)


@dataclass(frozen=True, slots=True)
class Program:
    """A llama-server on this machine."""

    path: str
    version: str
    build: int | None
    """llama.cpp's count of commits, ``b11434`` in its releases; None where it does not say."""
    devices: tuple[Device, ...]
    """Its GPUs and the like; empty for a build that computes on the CPU alone."""
    flags: Mapping[str, str]
    """Every spelling without dashes, with underscores → ``switch`` or ``value``."""
    environment: str | None = None
    """The environment in which yibu built it; None for one of the user's."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Its environment variables → the flag that each stands for."""

    def knows(self, flag: str) -> bool:
        return flag.lstrip("-").replace("-", "_") in self.flags


PACKAGED = "packaged"
"""The value of ``options.program`` for yibu's own build, also where another was built here."""
_BUILDS = ("llama.cpp-cuda", "llama.cpp-vulkan", "llama.cpp-native")
"""Environments with a llama-server that was built here, the fastest first."""


def named(model: ModelConfig) -> Path | None:
    """The program that an entry names.

    Raises:
        ConfigError: it is no path.
    """
    value = model.options.get("program")
    if value in (None, PACKAGED):
        return None
    if not isinstance(value, str) or not value.startswith(("/", "~")):
        raise ConfigError(
            "model {model!r}: options.program has to be the whole path of a "
            "llama-server, found {value!r}",
            model=model.name,
            value=value,
            program=PACKAGED,
            hint="As in program: /opt/llama.cpp/build/bin/llama-server, or {program}",
        )
    return at_home(value)


def choose_program(model: ModelConfig, ask: Ask, built: Mapping[str, Path]) -> Program | None:
    """The program that an entry names, else the first built one whose devices this machine has; None
    for the packaged build.

    Raises:
        ConfigError, EnvironmentSetupError: the program that is named cannot be used.
    """

    def read(path: Path, environment: str | None = None) -> Program:
        return read_program(str(path), lambda words: ask(path, words, model.env), environment)

    path = named(model)
    if path is not None:
        return read(path)
    if model.options.get("program") == PACKAGED:
        return None
    for environment in (name for name in _BUILDS if name in built):
        on_cpu = environment == _BUILDS[-1]
        if model.gpus == () and not on_cpu:
            continue
        try:
            program = read(built[environment], environment)
        except EnvironmentSetupError:
            continue  # its driver or a library went since: the next, or the packaged build, serves
        if program.devices or on_cpu:
            return program
    return None


def devices_of_packaged(
    python: Path, launcher: str, ask: Ask, model: ModelConfig
) -> tuple[Device, ...]:
    """The GPUs of the packaged build in an environment; none where it cannot be asked."""
    if model.gpus == ():
        return ()
    try:
        return parse_devices(ask(python, ("-P", "-m", launcher, "--list-devices"), model.env))
    except EnvironmentSetupError:
        return ()  # whatever is wrong with it, its start will say


def accelerator(devices: Sequence[Device]) -> Accelerator | None:
    """What the planner is told of a build's devices; None for one that has the CPU alone."""
    if not devices:
        return None
    backend = devices[0].backend
    if backend == "CUDA":  # NVML knows these, with who holds their memory
        return Accelerator(backend)
    same = [device for device in devices if device.backend == backend]
    return Accelerator(
        backend,
        tuple(Gpu(n, one.description, one.total, one.free) for n, one in enumerate(same)),
        tuple(device.name for device in same),
    )


def read_program(
    path: str, ask: Callable[[Sequence[str]], str], environment: str | None = None
) -> Program:
    """The properties of the program at ``path``, by its own output; ``ask`` runs it with arguments.

    Raises:
        EnvironmentSetupError: it is no llama-server, or ``ask`` raises it.
    """
    said = ask(("--version",))
    version = _VERSION.search(said)
    flags, variables = parse_help(ask(("--help",))) if version else ({}, {})
    if version is None or any(name not in flags for name in _NEEDED):
        first = next((line.strip() for line in said.splitlines() if line.strip()), "nothing")
        raise EnvironmentSetupError(
            "the program {path} is no llama-server: asked for its version it says {first!r}",
            path=path,
            first=first[:120],
            hint="Name llama.cpp's server (llama-server), not another of its programs or a "
            "script that does not hand its arguments on",
        )
    number = _BUILD.search(version["version"])
    listed = ask(("--list-devices",)) if "list_devices" in flags else ""
    return Program(
        path=path,
        version=version["version"].strip(),
        build=int(number[1] or number[2]) if number else None,
        devices=parse_devices(listed),
        flags=flags,
        environment=environment,
        variables=variables,
    )


def parse_devices(said: str) -> tuple[Device, ...]:
    """The devices in the output of ``--list-devices``."""
    return tuple(
        Device(
            found["name"],
            found["description"],
            int(found["total"]) * MIB,
            int(found["free"]) * MIB,
        )
        for found in _DEVICE.finditer(said)
    )


def parse_help(said: str) -> tuple[dict[str, str], dict[str, str]]:
    """Flags with their kind, and environment variables with their flag, from ``--help``.

    A flag's line begins with its spellings, joined by commas; what takes a value has a word for it
    behind one blank, and a description stands behind several (common/arg.cpp, ``to_string``).
    """
    flags: dict[str, str] = {}
    variables: dict[str, str] = {}
    last = ""
    for line in said.splitlines():
        names, rest = _spellings(line)
        if names:
            kind = "value" if rest.startswith(" ") and not rest.startswith("  ") else "switch"
            flags |= dict.fromkeys(names, kind)
            last = max(names, key=len)
        for variable in _VARIABLE.findall(line):
            if last:
                variables[variable] = last
    return flags, variables


def _spellings(line: str) -> tuple[list[str], str]:
    names: list[str] = []
    at = 0
    while found := _FLAG.match(line, at):
        names.append(found[0].lstrip("-").replace("-", "_"))
        at = found.end()
        if line[at : at + 1] != ",":
            break
        at += 1 + len(line[at + 1 :]) - len(line[at + 1 :].lstrip(" "))
    return names, line[at:].rstrip()
