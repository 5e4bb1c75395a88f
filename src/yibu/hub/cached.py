"""What is here of a hub's model where the hub cannot be asked: its cache, and what a pull left to do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from yibu.errors import HubNotFoundError
from yibu.hub.completeness import NO_WEIGHTS
from yibu.hub.context import offline_error
from yibu.hub.digest import Expected
from yibu.hub.protocol import Hub, Listing
from yibu.hub.quantization import QuantizationChoice, Variant, usual
from yibu.hub.records import Record
from yibu.hub.selection import RemoteFile, Selection, select
from yibu.hub.types import FileRecord, LocalModel, Source
from yibu.messages import tr

UNFINISHED = ".unfinished"


def cached_model(hub: Hub, source: Source) -> LocalModel:
    """The model as the hub's cache holds it without a record; nothing is read or written.

    Raises:
        OfflineError: it is not there, or not all of it.
    """
    listing = cached_listing(hub, source)
    chosen = select_here(hub, source, listing, "")
    root = hub.snapshot(source, listing.commit).root
    sizes = {path: file.stat().st_size for path in chosen.paths if (file := root / path).is_file()}
    if missing := [path for path in chosen.paths if path not in sizes]:
        raise offline_error(source, missing)
    files = tuple(FileRecord(path, size, "") for path, size in sizes.items())
    return LocalModel(source, root / chosen.main, files, root, chosen.notes)


def select_here(hub: Hub, source: Source, listing: Listing, main: str) -> Selection:
    """The files that the source means where no hub can be asked: of several quantizations one that is here.

    Raises:
        OfflineError: the file or quantization that the source names is not here.
    """
    snapshot = hub.snapshot(source, listing.commit)
    by_path = {file.path: file for file in listing.files}

    def choose(found: Sequence[Variant]) -> QuantizationChoice:
        for variant in found:
            if all(snapshot.existing(by_path[path]) for path in variant.files):
                return QuantizationChoice(variant, tr("which is here"))
        return usual(found)

    try:
        return select(
            listing.files, source, choose, main, lambda file: bool(snapshot.existing(file))
        )
    except HubNotFoundError as error:
        named = source.file or source.tag or tr("the weights")
        raise offline_error(source, [named]) from error


def cached_listing(hub: Hub, source: Source) -> Listing:
    """What the cache holds without a record, and what a pull that was cut off had still to bring.

    Raises:
        OfflineError: no model is there: nothing, or the few files that a tokenizer or a config is read from.
    """
    listing = hub.cached_listing(source)
    if listing is None:
        raise offline_error(source, ())
    files = {file.path: file for file in listing.files}
    files |= read_unfinished(unfinished(hub, source, listing.commit))
    if all(path.lower().endswith(NO_WEIGHTS) for path in files):
        raise offline_error(source, [tr("the weights")])
    return replace(listing, files=tuple(files.values()))


def unfinished(hub: Hub, source: Source, commit: str) -> Path:
    """Where a pull keeps what it was to bring, until it has: a hub's cache does not tell."""
    key = "\0".join((source.scheme, source.name, commit))
    return hub.workspace / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}{UNFINISHED}"


def read_unfinished(path: Path) -> dict[str, RemoteFile]:
    try:
        items = json.loads(path.read_bytes()).items()
        return {name: RemoteFile(name, Expected(*expected)) for name, expected in items}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # no pull was cut off, or it was while it wrote this: nothing had come


def recorded_listing(record: Record) -> Listing:
    files = (RemoteFile(file.path, Expected(file.size, file.sha256)) for file in record.files)
    return Listing(record.commit, tuple(files))
