"""Small disks for one process and its children: a tmpfs in a mount namespace of their own."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

_WAYS = (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"])
"""As root, and as anybody where the kernel lets users have namespaces."""


def with_disks(disks: Mapping[Path, str]) -> list[str]:
    """What to put before a command, so that it finds a tmpfs of these sizes on each of these
    directories, which are there; skips the test where that cannot be done. The size ``read only`` leaves what is
    there, to be read.

    A size that ends in ``, full`` has a file in it that takes all of its room. What the command
    sees is also found from here, below ``/proc/PID/root``.
    """
    script = []
    for number, (path, size) in enumerate(disks.items()):
        if size == "read only":
            script += [f'mount --bind "{path}" "{path}"', f'mount -o remount,bind,ro "{path}"']
            continue
        room, full, _ = size.partition(", full")
        script.append(f'mount -t tmpfs -o size={room} yibu-test-{number} "{path}"')
        if full:
            script.append(f'{{ cat /dev/zero > "{path}/filler" 2>/dev/null || true; }}')
    script.append('exec "$@"')
    return [*_way(), "sh", "-c", " && ".join(script), "sh"]


def fill(directory: Path) -> None:
    """Take all the room that is left there."""
    with (
        contextlib.suppress(OSError),  # no room: that is what it is for
        (directory / "others").open("wb", buffering=0) as others,
    ):
        while True:
            others.write(bytes(65536))


def _way() -> list[str]:
    if shutil.which("unshare") is None:
        pytest.skip("a small disk needs unshare (util-linux)")
    said = ""
    for way in _WAYS:
        words = [*way, "mount", "-t", "tmpfs", "-o", "size=4k", "yibu-test", "/dev/shm"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return way
        said = done.stderr.strip()
    return pytest.skip(f"a small disk cannot be mounted here: {said}")
