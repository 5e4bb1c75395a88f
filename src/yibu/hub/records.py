"""The store's own records: what was verified, where it lies, and how it looked then.

One JSON file a source in ``<store>/records``. The bytes themselves may lie in a hub's cache.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from yibu.files import write_whole
from yibu.hub.types import FileRecord, LocalModel, Source

logger = logging.getLogger(__name__)

_VERSION = 1

Proof = Literal["hash", "format", "size", "none"]


@dataclass(frozen=True, slots=True)
class RecordedFile(FileRecord):
    """A verified file, its path relative to the record's root, and how it looked then."""

    mtime_ns: int
    proof: Proof = "hash"
    """What it was compared with when it came: a hash that its hub gave, its own format and length,
    or the length alone."""
    version: str = ""
    """Of a file without a hash: what its hub's answer called these bytes (``Evidence.version``)."""


@dataclass(frozen=True, slots=True)
class Record:
    source: Source
    commit: str
    """The revision that the hub resolved, or the branch's name where it resolves none."""
    root: Path
    files: tuple[RecordedFile, ...]
    links: tuple[Path, ...] = ()
    """Directories made by ``--cache-dir``, where the same files are found too."""
    pulled: str = ""
    """ISO 8601, UTC."""
    main: str = ""
    """The file that is the model, where the source itself does not name it."""
    superseded: bool = False
    """An earlier commit of a model that was fetched anew since."""

    @property
    def model(self) -> LocalModel:
        return LocalModel(
            self.source,
            self.root / main_file(self.source, self.files, self.main),
            self.files,
            self.root,
        )

    @property
    def unverified(self) -> dict[str, Proof]:
        """Files that no hash was there for, with what they were compared with instead."""
        return {file.path: file.proof for file in self.files if file.proof != "hash"}

    def changed(self) -> list[str]:
        """Files that are gone or do not look as they did: size and time only, nothing is read."""
        return [file.path for file in self.files if not unchanged(self.root / file.path, file)]


def main_file(source: Source, files: Iterable[RecordedFile], main: str = "") -> str:
    """The file that the source means, empty for all of them: its path may leave out leading
    folders (pypi)."""
    if main or not source.file or source.file.endswith("/"):
        return main
    paths = [file.path for file in files]
    return source.file if source.file in paths else paths[0]


def unchanged(path: Path, file: RecordedFile) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return status.st_size == file.size and status.st_mtime_ns == file.mtime_ns


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def slug(source: Source) -> str:
    """A file name for a source: readable, unique, never longer than a file system allows."""
    text = str(source)
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.")[:80]
    return f"{readable}.{hashlib.sha256(text.encode()).hexdigest()[:12]}"


class Records:
    """The directory of records. Each is replaced as a whole, so a reader never sees half of one."""

    def __init__(self, store: Path) -> None:
        self.directory = store / "records"

    def path(self, source: Source) -> Path:
        return self.directory / f"{slug(source)}.json"

    def read(self, source: Source) -> Record | None:
        return _read(self.path(source))

    def write(self, record: Record) -> None:
        data = asdict(record) | {
            "version": _VERSION,
            "root": str(record.root),
            "links": [str(link) for link in record.links],
        }
        text = json.dumps(data, indent=1, ensure_ascii=False)
        write_whole(self.path(record.source), text + "\n")

    def share(self, fresh: Record) -> None:
        """Have records that name the same files say the same of them: one of a single file, say, whose
        repository was just updated."""
        now_known = {fresh.root / file.path: file for file in fresh.files}
        for other in self:
            files = tuple(now_known.get(other.root / file.path, file) for file in other.files)
            if files != other.files and other.source != fresh.source:
                self.write(replace(other, files=files))

    def add_link(self, record: Record, link: Path) -> Record:
        if link not in record.links:
            record = replace(record, links=(*record.links, link))
            self.write(record)
        return record

    def remove(self, source: Source) -> None:
        self.path(source).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[Record]:
        if not self.directory.is_dir():
            return
        for path in sorted(self.directory.glob("*.json")):
            record = _read(path)
            if record is not None:
                yield record

    def unreadable(self) -> list[Path]:
        """Record files that say nothing any more."""
        return [path for path in sorted(self.directory.glob("*.json")) if _read(path) is None]


def _read(path: Path) -> Record | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["version"] != _VERSION:
            return None
        return Record(
            source=Source(**data["source"]),
            commit=data["commit"],
            root=Path(data["root"]),
            files=tuple(RecordedFile(**file) for file in data["files"]),
            links=tuple(Path(link) for link in data["links"]),
            pulled=data["pulled"],
            main=data.get("main", ""),
            superseded=data.get("superseded", False),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("the record %s cannot be read and is left out: %s", path, error)
        return None
