"""Files in shared memory that outlive an engine that was killed.

Named shared memory and semaphores stay in /dev/shm, and hold memory, until somebody unlinks them.
An engine's own tracker does that, unless it is killed with the engine. What the engine's processes
have mapped is therefore noted while they live; after their end it is removed, if they made it and
nobody else uses it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_log = logging.getLogger(__name__)
_SHARED = "/dev/shm/"  # noqa: S108 - looked at, never written to
_PROC = Path("/proc")
# Python's shared memory, POSIX semaphores, vLLM's, torch's and NCCL's own. Weights that a user laid
# there for speed are mapped by engines too, and have other names.
_NAMES = re.compile(r"(?:psm_|sem\.|vllm_|torch_|nccl-)[^/]+")


@dataclass(frozen=True, slots=True, order=True)
class SharedFile:
    """A file in /dev/shm, identified beyond its name."""

    path: str
    device: int
    inode: int


def shared_files(pids: Collection[int], since: float) -> set[SharedFile]:
    """What these processes have mapped or open in /dev/shm, and was made after ``since`` (seconds
    of the epoch). Blocking; a millisecond or two a process."""
    used = {identity for pid in pids for identity in _used_by(pid)}
    # Looked up by inode: glibc makes a semaphore under another name, links it to its own and
    # unlinks the first, by which the kernel goes on to call what is mapped.
    found = set()
    for file in _files() if used else ():
        with contextlib.suppress(OSError):
            status = file.stat(follow_symlinks=False)
            # ctime never lies before a file's making, so an older one is not the engine's.
            if (status.st_dev, status.st_ino) in used and status.st_ctime >= since:
                found.add(SharedFile(file.path, status.st_dev, status.st_ino))
    return found


def remove_unused(files: Collection[SharedFile]) -> list[str]:
    """Unlink those of the files that no living process has mapped or open; their paths. Blocking.

    Of other users' processes one may not see what they map; the files are private to this user.
    """
    if not files:
        return []
    used = {identity for pid in psutil.pids() for identity in _used_by(pid)}
    removed = []
    for file in files:
        if (file.device, file.inode) in used:
            continue
        with contextlib.suppress(OSError):
            status = os.lstat(file.path)
            private = status.st_uid == os.getuid() and not status.st_mode & 0o077
            if private and (status.st_dev, status.st_ino) == (file.device, file.inode):
                Path(file.path).unlink()
                removed.append(file.path)
    if removed:
        _log.info("removed what a dead engine left: %s", " ".join(sorted(removed)))
    return removed


def _files() -> list[os.DirEntry[str]]:
    try:
        with os.scandir(_SHARED) as entries:
            return [entry for entry in entries if _NAMES.fullmatch(entry.name)]
    except OSError:
        return []


def _used_by(pid: int) -> Iterator[tuple[int, int]]:
    """Device and inode of what a process has mapped or open in /dev/shm; none where it cannot be
    looked at."""
    if not sys.platform.startswith("linux"):
        return
    try:
        # proc(5): address perms offset dev inode pathname
        for line in (_PROC / str(pid) / "maps").read_text(errors="replace").splitlines():
            if _SHARED in line:
                *_, device, inode, path = line.split(maxsplit=5)
                if path.startswith(_SHARED):
                    major, _, minor = device.partition(":")
                    yield os.makedev(int(major, 16), int(minor, 16)), int(inode)
        for link in (_PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                if str(link.readlink()).startswith(_SHARED):
                    status = link.stat()
                    yield status.st_dev, status.st_ino
    except OSError:
        return
