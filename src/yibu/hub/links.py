"""``--cache-dir D``: the same files at ``D/ORG/NAME``, where existing scripts look for them.

Hard links where the file system can (they survive the cache's removal and a copy to another
machine), symbolic links across file systems. ``.yibu.json`` in the directory says which files were
put there, so that only those are ever replaced or removed.
"""

from __future__ import annotations

import json
from pathlib import Path

from yibu.errors import HubError
from yibu.files import write_whole
from yibu.hub.digest import digest
from yibu.hub.records import Record
from yibu.hub.types import Source

MANIFEST = ".yibu.json"


def link_directory(cache_dir: Path, source: Source) -> Path:
    """``cache_dir/ORG/NAME``, or ``cache_dir/DIST`` for a package."""
    if source.scheme == "pypi":
        return cache_dir.absolute() / source.name.partition("==")[0]
    return cache_dir.absolute() / source.name


def make_links(record: Record, directory: Path) -> None:
    """Make every file of the record appear under ``directory``; again is fine.

    Raises:
        HubError: a file that yibu did not put there is in the way, and it differs.
    """
    if directory.resolve() == record.root.resolve():
        return
    ours = _manifest(directory)
    for file in record.files:
        target = directory / file.path
        original = (record.root / file.path).resolve()
        if target.is_file() and target.samefile(original):
            continue
        if target.is_dir() or (_present(target) and not _replaceable(target, ours.get(file.path))):
            if target.is_file() and digest(target).sha256 == file.sha256:
                continue
            raise HubError(
                "{target} is in the way: it is not {record_source}'s {file_path}, and "
                "yibu did not put it there.",
                target=target,
                record_source=record.source,
                file_path=file.path,
                directory=directory,
                hint="Move {directory} away, or choose another --cache-dir",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(original, target)
    for path in [path for path in ours if not (record.root / path).exists()]:
        # Of an earlier state of the model: an engine would load old shards beside the new ones.
        if _replaceable(directory / path, ours.pop(path)):
            (directory / path).unlink()
            prune((directory / path).parent, directory)
    hashes = ours | {file.path: file.sha256 for file in record.files}
    write_whole(directory / MANIFEST, json.dumps(hashes, indent=1) + "\n", 0o644)
    _old_spelling(directory)


def remove_links(directory: Path, record: Record) -> None:
    """Remove this record's links, unless they changed since."""
    ours = _manifest(directory)
    for file in record.files:
        target = directory / file.path
        if file.path in ours and _present(target) and _replaceable(target, ours[file.path]):
            target.unlink()
            ours.pop(file.path)
            prune(target.parent, directory)
    if ours:
        if directory.is_dir():
            write_whole(directory / MANIFEST, json.dumps(ours, indent=1) + "\n", 0o644)
        return
    (directory / MANIFEST).unlink(missing_ok=True)
    masked = directory.with_name(directory.name.replace(".", "___"))
    if masked.is_symlink() and masked != directory:
        masked.unlink()
    prune(directory, directory.parent)


def prune(directory: Path, stop: Path) -> None:
    """Remove empty directories from ``directory`` up to, not including, ``stop`` and links, which
    somebody made to keep them on another disk."""
    while directory != stop and stop in directory.parents:
        if directory.is_symlink() or not directory.is_dir() or any(directory.iterdir()):
            return
        directory.rmdir()
        directory = directory.parent


def _link(original: Path, target: Path) -> None:
    fresh = target.with_name(f".{target.name}.new")
    fresh.unlink(missing_ok=True)
    try:
        fresh.hardlink_to(original)
    except OSError:  # another file system, or one without hard links
        fresh.symlink_to(original)
    fresh.replace(target)


def _old_spelling(directory: Path) -> None:
    """Add a link in the spelling of ModelScope's SDK up to 1.37, which wrote dots as ``___``."""
    masked = directory.with_name(directory.name.replace(".", "___"))
    if masked != directory and not _present(masked):
        masked.symlink_to(directory.name)


def _replaceable(target: Path, recorded: str | None) -> bool:
    """Whether yibu made it and nobody has changed it since."""
    if recorded is None:
        return False
    if target.is_symlink() and not target.exists():
        return True
    return target.is_file() and digest(target).sha256 == recorded


def _present(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _manifest(directory: Path) -> dict[str, str]:
    try:
        data = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # none, or not ours any more: then nothing here may be replaced
    return (
        {str(path): str(sha256) for path, sha256 in data.items()} if isinstance(data, dict) else {}
    )
