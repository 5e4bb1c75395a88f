"""Models in a user's directory or file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from yibu.errors import HubNotFoundError
from yibu.hub.quantization import best_projector, is_projector, variants, without_label
from yibu.hub.types import FileRecord, LocalModel, Source
from yibu.messages import tr


def open_local(source: Source) -> LocalModel:
    """The model at a path.

    No hash is known of these bytes, so nothing is read: ``FileRecord.sha256`` is empty.

    Raises:
        HubNotFoundError: nothing is there, or an empty directory.
    """
    path = Path(source.name)
    if not path.exists():
        parent = path.parent
        near = sorted(item.name for item in parent.iterdir())[:8] if parent.is_dir() else []
        raise HubNotFoundError(
            "{path} does not exist; a model's directory or file was expected.",
            path=path,
            hint=tr("In {parent} there is: {near}", parent=parent, near=", ".join(near))
            if near
            else tr("Check the path"),
        )
    files = tuple(
        FileRecord(item.relative_to(path).as_posix() if path.is_dir() else path.name, size, "")
        for item, size in local_files(path)
    )
    if not files:
        raise HubNotFoundError("{path} holds no files; a model was expected.", path=path)
    if not path.is_dir():
        files = (*files, *_beside(path))
    return LocalModel(source, path, files)


def _beside(path: Path) -> Iterator[FileRecord]:
    """The vision projector of a GGUF file, where its directory holds one model's files alone: other
    quantizations may be there, but with another model nobody knows whose projector it is."""
    if path.suffix.lower() != ".gguf" or is_projector(path.name):
        return
    try:
        sizes = {item.name: item.stat().st_size for item in path.parent.iterdir() if item.is_file()}
    except OSError:
        return  # a directory that may be searched and not listed: the file itself will do
    models = {without_label(variant.name) for variant in variants(sizes)}
    projector = best_projector(sizes)
    if projector is not None and len(models) == 1:
        yield FileRecord(projector, sizes[projector], "")


def local_files(path: Path) -> Iterator[tuple[Path, int]]:
    """Every file with its size, sorted; hidden ones (.git, .cache, .msc) are no part of a model."""
    if not path.is_dir():
        yield path, path.stat().st_size
        return
    for directory, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            item = Path(directory, name)
            if not name.startswith(".") and item.is_file():
                yield item, item.stat().st_size
