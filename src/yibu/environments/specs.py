"""The environments that yibu can make, and their peculiarities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from types import MappingProxyType
from typing import Any, Literal

from yibu.config.engines import ENGINE_NAMES, engine_table
from yibu.errors import UsageError

MIB = 1024**2
GIB = 1024**3


_RUNTIMES = ("libgcc_s.so.1", "libstdc++.so.6", "libz.so.1")
"""What wheels expect of every system."""


@dataclass(frozen=True, slots=True)
class SourceBuild:
    """How an environment's package is compiled where it is made: the tools come out of its lock and
    go when it is done."""

    options: Mapping[str, str]
    """CMake's definitions. Each backend is said, on or off: uv keeps the tree of an earlier build."""
    needs: tuple[str, ...]
    """What the machine must have, of ``toolchain.NAMES``."""
    program: str
    """Its path below ``site-packages``; linked into the environment's ``bin``."""
    job_memory: int
    """Bytes of main memory that one compiler takes."""


@dataclass(frozen=True, slots=True)
class EnvironmentSpec:
    """One environment; its pinned set is the lock file of the same name in ``locks/``."""

    name: str
    engine: str
    package: str
    """The distribution whose version a user may choose instead of the pinned one."""
    disk: int
    """Bytes it takes installed, about: what must be free before it is made."""
    cpu_torch: bool = False
    """Wants torch's CPU build, which the ordinary index does not have for Linux on x86-64: it is
    taken from the configured indexes and folders, or else from where uv knows that torch keeps
    it."""
    source_only: tuple[str, ...] = ()
    """Packages that exist as source distributions alone. Any other is never built: that runs its
    code while it installs, and needs compilers."""
    device: Literal["", "cpu", "gpu"] = ""
    """Which machines it is for, where its engine has one for each."""
    bytecode: bool = False
    """Compile its modules when it is made, not when they are first imported: for environments of
    thousands of modules, whose first start would take longer, and every start where the engine
    cannot write there."""
    alias: tuple[str, str] | None = None
    """(distribution, version suffix): a name under which the package looks itself up."""
    system: tuple[str, ...] = _RUNTIMES
    """Shared libraries that it takes from the system: looked for before it is downloaded."""
    libraries: Mapping[str, str] = field(default_factory=dict)
    """Shared libraries that its packages take from the system, by the name they ask for, and where
    another package of the set has them below ``site-packages``: a pattern of ``glob``."""
    build: SourceBuild | None = None
    """None: its packages are installed as they come."""
    lock_name: str = ""
    """The lock file's name, where several environments share one."""

    @property
    def file(self) -> str:
        """The name of its files in ``locks/``, without ending."""
        return self.lock_name or self.name

    @property
    def lock(self) -> str:
        return _read(f"{self.file}.txt")

    @property
    def requirements(self) -> str:
        """What the pinned set was resolved from."""
        lines = _read(f"{self.file}.in").splitlines()
        return "\n".join(
            _read(line.removeprefix("-r ")) if line.startswith("-r ") else line for line in lines
        )

    @property
    def overrides(self) -> str:
        """Requirements left out or changed when another version is resolved afresh; ``""``
        where there are none."""
        return _read(f"{self.file}.overrides", missing="")


def _read(file: str, missing: str | None = None) -> str:
    resource = resources.files("yibu.environments").joinpath("locks", file)
    if missing is not None and not resource.is_file():
        return missing
    return resource.read_text(encoding="utf-8")


def _bytes(text: str) -> int:
    """``120MiB`` or ``2GiB`` in bytes."""
    return int(text[:-3]) * {"MiB": MIB, "GiB": GIB}[text[-3:]]


def _of_engine(engine: str) -> Iterator[EnvironmentSpec]:
    """The environments that ``environments.toml`` of an engine's folder has."""
    for name, row in engine_table(engine, "environments.toml").items():
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in row.items()
        }
        if build := row.get("build"):
            values["build"] = SourceBuild(
                build["options"],
                tuple(build["needs"]),
                build["program"],
                _bytes(build["job_memory"]),
            )
        yield EnvironmentSpec(name, engine, **{**values, "disk": _bytes(row["disk"])})


_ALL = (
    *(spec for engine in ENGINE_NAMES for spec in _of_engine(engine)),
    EnvironmentSpec("demo-voice", engine="demo", package="hibari-tts", disk=250 * MIB),
)

SPECS: Mapping[str, EnvironmentSpec] = MappingProxyType({spec.name: spec for spec in _ALL})
"""By name; a new one is a table in its engine's ``environments.toml`` and an ``.in`` file in ``locks/``."""


def environment_for(engine: str, *, gpu: bool) -> str:
    """The environment of an engine that has one for CPUs and one for GPUs, or one for both; not those
    that are built on demand.

    Raises:
        UsageError: something else than the device decides.
    """
    wanted = "gpu" if gpu else "cpu"
    fitting = [
        spec.name
        for spec in _ALL
        if spec.engine == engine and spec.build is None and spec.device in (wanted, "")
    ]
    if len(fitting) == 1:
        return fitting[0]
    raise UsageError(
        "{engine} runs in one of several environments, by the model's format: {environments}",
        engine=engine,
        environments=", ".join(environments_of(engine)),
        hint="Name one of them; `yibu up MODEL` makes the right one by itself",
    )


def environment_named(name: str, *, has_gpu: bool) -> str:
    """The environment that ``name`` means on this machine: its own name, or its engine's.

    Raises:
        UsageError: the engine has several environments, and the model's format decides.
    """
    if name in SPECS:
        return name
    if environments_of(name):
        return environment_for(name, gpu=has_gpu)
    return name  # whoever looks it up says which there are


def environments_of(engine: str) -> tuple[str, ...]:
    """The environments that an engine may run in: ``vllm`` has two, for instance."""
    return tuple(spec.name for spec in _ALL if spec.engine == engine)
