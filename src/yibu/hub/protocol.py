"""What a hub is to a pull: a listing, and a cache with places for its files."""

from __future__ import annotations

import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from yibu.errors import HubError
from yibu.hub.selection import RemoteFile
from yibu.hub.types import Source


@dataclass(frozen=True, slots=True)
class Listing:
    commit: str
    """The commit that the revision means, or the branch's name where the hub tells no commit."""
    files: tuple[RemoteFile, ...]


class CacheSnapshot(Protocol):
    """Where a hub's cache keeps one revision of a repository."""

    @property
    def root(self) -> Path:
        """The directory that holds the files under their own names."""

    def existing(self, file: RemoteFile) -> Path | None:
        """Bytes in the cache that claim to be this file."""

    def adopt(self, file: RemoteFile) -> None:
        """Make verified ``existing`` bytes appear under ``root``."""

    def publish(self, file: RemoteFile, fresh: Path) -> None:
        """Move verified bytes into the cache, over whatever was there."""

    def complete(self, source: Source) -> None:
        """Every file is there."""


class Hub(Protocol):
    cache: Path
    workspace: Path
    """yibu's own corner of the cache, for partial files and locks: on the same file system, and
    where the SDK's own look through its cache takes no notice. It holds plain files only."""

    def listing(self, source: Source, cancel: threading.Event) -> Listing:
        """Ask the hub.

        Raises:
            HubNotFoundError, HubAuthError, HubUnreachableError, HubError.
        """

    def cached_listing(self, source: Source) -> Listing | None:
        """What the cache holds of the repository, and what it knows to be missing; no network."""

    def immutable(self, source: Source) -> bool:
        """Whether the revision can never mean other files."""

    def snapshot(self, source: Source, commit: str) -> CacheSnapshot: ...


def move(fresh: Path, target: Path) -> None:
    """Rename into place; across file systems, copy first so that ``target`` is never half."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        fresh.replace(target)
    except OSError as error:
        if target.is_dir():
            raise HubError(
                "{target} is a directory; a file belongs there: {error}.",
                target=target,
                error=error,
            ) from error
        near = target.with_name(f".{target.name}.new")
        shutil.copyfile(fresh, near)
        near.replace(target)
        fresh.unlink()
