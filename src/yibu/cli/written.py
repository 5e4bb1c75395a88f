"""Files that a command writes: atomically, and never over an existing one unasked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from yibu.errors import UsageError, YibuError
from yibu.files import write_whole


def require_directory(file: Path) -> None:
    """Raises UsageError where a file's directory is missing: checked before the work begins."""
    parent = file.absolute().parent
    if not parent.is_dir():
        raise UsageError(
            "There is no directory {parent}.", parent=parent, hint=f"mkdir -p {parent}"
        )


def write_all(folder: Path, files: Mapping[str, tuple[str, int]], *, force: bool) -> list[Path]:
    """Write texts with their modes below a folder, and return the paths of those that changed.

    Raises:
        UsageError: one is there with another content, and ``force`` is not given; nothing is written.
        YibuError: the folder cannot be written.
    """
    try:
        changed = {
            folder / name: content
            for name, content in files.items()
            if not _says(folder / name, content[0])
        }
        there = [str(path) for path in changed if path.exists() or path.is_symlink()]
        if there and not force:
            raise UsageError(
                "{there}: there already, with something else in it. Nothing was written.",
                there=", ".join(there),
                hint="Choose another folder with -o, or replace them with --force",
            )
        for path, (text, mode) in changed.items():
            write_whole(path, text, mode)
    except OSError as error:
        raise YibuError(
            "{filename} cannot be written: {strerror}.",
            filename=error.filename or folder,
            strerror=error.strerror,
            hint="Choose another folder with -o",
        ) from error
    return list(changed)


def _says(path: Path, text: str) -> bool:
    try:
        return path.read_bytes() == text.encode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return False
