"""File systems without flock(2): NFS without its lock manager, some FUSE ones."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.e2e.home import Home, fake

NO_LOCKS = """
import errno, fcntl, os

def flock(descriptor, kind):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

fcntl.flock = flock
"""


@pytest.mark.parametrize("words", [["up", "-d"], ["up"], ["engine", "install", "llama.cpp"]])
def test_where_files_cannot_be_locked(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NO_LOCKS)
    home = Home(tmp_path, settings={"PYTHONPATH": str(tmp_path / "site")})
    home.write([fake("m")])
    done = subprocess.run(
        home.command(*words),
        env=home.env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done
    *_, said, hint = done.stderr.splitlines()
    assert str(tmp_path) in said
    assert "No locks available" in said
    assert "cannot lock files" in hint
