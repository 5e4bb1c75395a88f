"""The archive: a tar.gz of mode 0600 with a list of its contents."""

from __future__ import annotations

import io
import tarfile
import time
from pathlib import Path
from typing import Any

from yibu.cli.support.contents import ArchiveMember, Contents
from yibu.cli.written import require_directory
from yibu.errors import UsageError
from yibu.files import write_new
from yibu.messages import tr

_MANIFEST = "MANIFEST.txt"
_HEAD = tr(
    "What `yibu support` collected for a bug report. Keys, tokens, passwords, values of "
    "models' variables and\nof flags that are called secret were replaced by ***. Logs hold "
    "what engines log: with request logging\nswitched on, of requests too. Look through it "
    "before you send it: tar xzf FILE.\n"
)


def check_target(path: Path) -> None:
    """Raises UsageError where the archive cannot be: the directory is missing, or the file is there."""
    if path.exists():
        raise UsageError(
            "{path} is there already and was left as it is.",
            path=path,
            hint="Name another one: -o FILE",
        )
    require_directory(path)


def write(path: Path, contents: Contents) -> None:
    """Write the archive, whole or not at all; raises OSError, and leaves a file that is there."""
    folder = path.name.removesuffix(".tar.gz")
    members = [
        ArchiveMember(_MANIFEST, tr("this list"), manifest(contents).encode()),
        *contents.members,
    ]
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for member in members:
            entry = tarfile.TarInfo(f"{folder}/{member.name}")
            entry.size, entry.mode, entry.mtime = len(member.data), 0o600, int(time.time())
            archive.addfile(entry, io.BytesIO(member.data))
    write_new(path, made.getvalue())


def manifest(contents: Contents) -> str:
    lines = [_HEAD]
    lines += [f"{m.name:<24} {len(m.data):>9}  {m.about}" for m in contents.members]
    if contents.missing:
        lines += ["", tr("Not in it:")]
        lines += [f"{name:<24} {reason}" for name, reason in contents.missing.items()]
    return "\n".join(lines) + "\n"


def summary(path: Path, contents: Contents) -> dict[str, Any]:
    """The manifest as data."""
    return {
        "version": 1,
        "file": str(path),
        "members": [
            {"name": m.name, "bytes": len(m.data), "about": m.about} for m in contents.members
        ],
        "missing": dict(contents.missing),
    }
