"""The archive is what the script makes, and its record belongs to it."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from .conftest import FIXTURE

SCRIPT = Path(__file__).parents[3] / "scripts" / "make_speech_fixture.py"


def test_the_record_is_of_this_archive() -> None:
    record = json.loads((FIXTURE.parent / "training.json").read_text("utf-8"))
    assert record["bytes"] == FIXTURE.stat().st_size < 3_000_000
    assert record["sha256"] == hashlib.sha256(FIXTURE.read_bytes()).hexdigest()
    told = (FIXTURE.parent / "README.md").read_text("utf-8")
    for errors in record["errors"].values():
        assert f"{errors['wrong']} of {errors['pieces']} pieces" in told


def test_two_runs_write_the_same_archive(tmp_path: Path) -> None:
    """With a few steps only: what could make runs differ is in these as in the long one."""
    for name in ("torch", "funasr", "scipy"):
        pytest.importorskip(name)
    if shutil.which("espeak-ng") is None:
        pytest.skip("the program espeak-ng is not installed")
    archives: list[bytes] = []
    members: list[dict[str, str]] = []
    for run in ("first", "second"):
        out = tmp_path / run
        subprocess.run(
            [sys.executable, SCRIPT, out, "--steps", "6", "--examples", "20", "--held-out", "4"],
            env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
            check=True,
            timeout=300,
        )
        archives.append((out / "sensevoice.tar.xz").read_bytes())
        members.append(digests(out / "sensevoice.tar.xz"))
    assert members[0] == members[1]
    assert archives[0] == archives[1]


def digests(archive: Path) -> dict[str, str]:
    """The hash of each file in ``archive``, and of each tensor of its model."""
    import torch

    found = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            if (file := tar.extractfile(member)) is not None:
                content = file.read()
                found[member.name] = hashlib.sha256(content).hexdigest()
                if member.name.endswith("model.pt"):
                    weights = torch.load(io.BytesIO(content), weights_only=True)
    for name, tensor in weights.items():
        found[name] = hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
    return found
