"""One environment on disk: its parts, and the record of a complete installation."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from yibu.environments.specs import EnvironmentSpec

RECORD = "yibu-environment.json"
LIBRARIES = Path("lib", "yibu")
"""Below an environment: shared libraries for which its launchers extend the loader's path."""


@dataclass(frozen=True, slots=True)
class EnvironmentInfo:
    """One environment on disk."""

    name: str
    path: str
    version: str
    """Of the engine's own package; ``""`` when it could not be read."""
    python: str
    size: int
    """Bytes on disk when it was made."""
    created: int
    """Unix seconds."""
    current: bool = True
    """Whether it is the one in use; older ones stay until they are removed."""
    compiled: int = 0
    """Bytes of compiled code that its engine keeps."""

    @property
    def interpreter(self) -> Path:
        return Path(self.path) / "bin" / "python"


def is_usable(target: Path) -> bool:
    """Whether it is complete and its base interpreter still exists: the link in bin/ leads to it."""
    return (target / RECORD).is_file() and (target / "bin" / "python").exists()


def site_packages(environment: Path) -> Path:
    python = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return environment / "lib" / python / "site-packages"


def compiled_by(directory: Path, interpreter: Path) -> Path:
    """Where, below ``directory``, the engine of that interpreter keeps what it compiles."""
    return directory / interpreter.parents[1].name


def installed_version(environment: Path, package: str) -> str:
    """The version of a distribution in an environment, from its directory's name."""
    stem = package.replace("-", "_")
    for info in site_packages(environment).glob(f"{stem}-*.dist-info"):
        return info.name.removeprefix(f"{stem}-").removesuffix(".dist-info")
    return ""


def add_alias(spec: EnvironmentSpec, environment: Path) -> None:
    if spec.alias is None:
        return
    distribution, suffix = spec.alias
    version = installed_version(environment, spec.package).partition("+")[0] + suffix
    directory = site_packages(environment) / f"{distribution}-{version}.dist-info"
    directory.mkdir(exist_ok=True)
    metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
    (directory / "METADATA").write_text(metadata, encoding="utf-8")


def link_libraries(spec: EnvironmentSpec, environment: Path) -> None:
    """Link the libraries that the spec names under the names the loader looks for."""
    directory = environment / LIBRARIES
    for name, pattern in spec.libraries.items():
        for file in site_packages(environment).glob(pattern):
            directory.mkdir(parents=True, exist_ok=True)
            (directory / name).symlink_to(os.path.relpath(file, directory))


def write_record(spec: EnvironmentSpec, made: Path, target: Path) -> None:
    """Write the record into ``made``, which will be renamed to ``target``."""
    info = EnvironmentInfo(
        name=spec.name,
        path=str(target),
        version=installed_version(made, spec.package),
        python=platform.python_version(),
        size=tree_size(made),
        created=int(time.time()),
    )
    (made / RECORD).write_text(json.dumps(asdict(info), indent=1), encoding="utf-8")


def tree_size(directory: Path) -> int:
    """Bytes of all files below; 0 where there is no such directory."""
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # an engine may be at work there
            total += path.lstat().st_size
    return total


def read_record(record: Path) -> EnvironmentInfo | None:
    try:
        return EnvironmentInfo(**json.loads(record.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        # Removed just now by another process, or written by a yibu to come: not ours to list.
        return None
