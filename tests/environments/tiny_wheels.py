"""Tiny real wheels, and specs of environments made of them."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path
from typing import Any

from yibu.environments.specs import EnvironmentSpec


class LocalSpec(EnvironmentSpec):
    """A spec whose lock is given, where a real one's is in the package."""

    __slots__ = ("asked", "text")

    def __init__(
        self, name: str, lock: str, package: str, disk: int = 1, asked: str = "", **values: Any
    ) -> None:
        super().__init__(name, engine="test", package=package, disk=disk, **values)
        object.__setattr__(self, "text", lock)
        object.__setattr__(self, "asked", asked or package)

    @property
    def lock(self) -> str:
        return str(self.text)

    @property
    def requirements(self) -> str:
        return str(self.asked)

    @property
    def overrides(self) -> str:
        return ""


def build_wheel(folder: Path, name: str, version: str, files: dict[str, bytes]) -> Path:
    """Write a wheel that pip and uv accept; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    entries = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        b"Tag: py3-none-any\n",
    }
    record = [f"{path},{_digest(data)},{len(data)}" for path, data in entries.items()]
    entries[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in entries.items():
            archive.writestr(path, data)
    return wheel


def locked(wheel: Path, name: str, version: str) -> str:
    """A lock line with the wheel's own hash."""
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


def _digest(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
    return f"sha256={digest.decode()}"
