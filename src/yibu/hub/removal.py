"""Taking a model's files off the disk; what another model shares stays."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from yibu.hub.links import prune, remove_links
from yibu.hub.records import Record, Records


def supersede(old: Record, records: Records) -> None:
    """Keep the files of an earlier commit known, by a record of their own: ``ls`` shows them, ``rm``
    and ``gc`` remove them."""
    source = replace(old.source, revision=old.commit)
    if records.read(source) is None:
        records.write(replace(old, source=source, links=(), superseded=True))


def earlier_commits(record: Record, records: Records) -> list[Record]:
    """What ``record`` replaced."""
    source = replace(record.source, revision=None)
    return [
        each
        for each in records
        if each.superseded
        and replace(each.source, revision=None) == source
        and each.source != record.source
    ]


def delete(record: Record, records: Records, *, dry_run: bool = False) -> list[int]:
    """Delete the record, its links and its files; the bytes that each file frees."""
    kept = {
        other.root / file.path
        for other in records
        if other.source != record.source
        for file in other.files
    }
    blobs = {path.resolve() for path in kept}
    paths = [record.root / file.path for file in record.files]
    freed = []
    for directory in () if dry_run else record.links:
        remove_links(directory, record)
    for path in paths:
        if path in kept or not (path.exists() or path.is_symlink()):
            continue
        gone = _going(path, blobs)
        freed.append(sum(each.lstat().st_size for each in gone if not each.is_symlink()))
        if not dry_run:
            for each in gone:
                each.unlink()
    if not dry_run:
        for path in paths:
            prune(path.parent, record.root)
        _clear(record.root)
        records.remove(record.source)
    return freed


def _going(path: Path, shared: set[Path]) -> list[Path]:
    """What goes with a model's file: the blob behind its link too, where nothing else leads there."""
    blob = path.resolve()
    if not path.is_symlink():
        return [] if blob in shared else [path]
    snapshots = next((parent for parent in path.parents if parent.name == "snapshots"), None)
    # The cache, or a part of it, may lie behind a link to another disk.
    if snapshots is None or blob.parent != (snapshots.parent / "blobs").resolve():
        return [path]  # a link to somewhere else: what it points to is not ours
    others = (each for each in snapshots.rglob("*") if each.is_symlink() and each != path)
    if not blob.exists() or blob in shared or any(each.resolve() == blob for each in others):
        return [path]
    return [path, blob]


def _clear(root: Path) -> None:
    """Remove what a hub's cache keeps beside a snapshot's files, where the last of them went: its SDK
    calls a repository without snapshots corrupted, and goes on listing an empty one."""
    prune(root, root.parent)
    # A revision may have slashes: snapshots/release/v1.
    snapshots = next((parent for parent in root.parents if parent.name == "snapshots"), None)
    if snapshots is None or root.exists():
        return
    repository, commit = snapshots.parent, root.name
    if not repository.is_dir():
        return  # somebody removed all of it
    prune(root.parent, snapshots)
    for reference in list((repository / "refs").rglob("*")):
        if reference.is_file() and reference.read_text().strip() == commit:
            reference.unlink()
            prune(reference.parent, repository)
    (repository / "trees" / f"{commit}.json").unlink(missing_ok=True)
    shutil.rmtree(repository / ".no_exist" / commit, ignore_errors=True)
    for name in ("blobs", "refs", "trees", ".no_exist"):
        prune(repository / name, repository)
    if list(repository.iterdir()) == [snapshots]:
        prune(snapshots, repository.parent)
