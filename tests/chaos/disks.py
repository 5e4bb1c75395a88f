"""Small disks that this process mounts for itself and its children, to be filled and emptied again."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.small_disks import fill

_CLONE_NEWNS = 0x20000
_FILLER = "others"


class Disks:
    """A tmpfs on each of some directories, in a mount namespace of this process's own."""

    def __init__(self, size: str = "48m") -> None:
        self._size = size
        self.paths: list[Path] = []
        self.why_not = ""
        """Why there are none here; empty where there are."""

    @contextlib.contextmanager
    def on(self, paths: list[Path]) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            try:
                _own_namespace()
                for path in paths:
                    path.mkdir(mode=0o700, parents=True, exist_ok=True)
                    _run(
                        "mount",
                        "-t",
                        "tmpfs",
                        "-o",
                        f"size={self._size},mode=700",
                        "chaos",
                        str(path),
                    )
                    stack.callback(_run, "umount", "-l", str(path))
                    self.paths.append(path)
            except OSError as error:
                self.why_not = str(error)
            yield

    def fill(self, path: Path) -> None:
        fill(path)

    def empty(self) -> None:
        """Give back all that was taken."""
        for path in self.paths:
            (path / _FILLER).unlink(missing_ok=True)


def _own_namespace() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), f"unshare: {os.strerror(ctypes.get_errno())}")
    _run("mount", "--make-rprivate", "/")


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(done.stderr.strip())
