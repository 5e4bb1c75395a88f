"""A wall clock that jumps, for a node and its engines: libfaketime, preloaded; monotonic clocks go on."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path


class Clock:
    def __init__(self, file: Path) -> None:
        self._file = file
        self.offset = 0
        self.jump(0)
        library = _library()
        self.env = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # else every timed wait of a thread ends at once, those for the interpreter's lock too
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            "FAKETIME_DISABLE_SHM": "1",
            "NO_FAKE_STAT": "1",
        }  # fmt: skip
        self.why_not = self._tried() if library else "libfaketime is not installed"
        """Why no clock can jump here; empty where it can."""
        if self.why_not:
            self.env = {}

    def jump(self, seconds: int) -> None:
        """From now on all who look see the true time and these seconds."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._file)
        self.offset = seconds

    def _tried(self) -> str:
        self.jump(1_000_000)
        said = subprocess.run(
            [sys.executable, "-S", "-c", "import time; print(time.time())"],
            env={**os.environ, **self.env}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        self.jump(0)
        try:
            moved = float(said.stdout) - time.time() > 500_000
        except ValueError:
            moved = False
        return "" if moved else f"libfaketime does not work here: {said.stderr.strip()}"


def _library() -> Path | None:
    """Of the package, which brings it compiled; it imports nothing that is needed here."""
    found = importlib.util.find_spec("libfaketime")
    if found is None or found.origin is None:
        return None
    library = Path(found.origin).parent / "vendor/libfaketime/src/libfaketime.so.1"
    return library if library.is_file() else None
