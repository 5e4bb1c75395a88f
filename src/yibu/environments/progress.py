"""Progress of making an environment, parsed from uv's output."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Phase = Literal["waiting", "creating", "resolving", "downloading", "installing", "building", "done"]


@dataclass(frozen=True, slots=True)
class EnvironmentProgress:
    """One progress report."""

    environment: str
    phase: Phase
    elapsed: float
    """Seconds since the call."""
    done_bytes: int = 0
    """Of the packages that are wholly downloaded; small ones and cached ones are not counted."""
    total_bytes: int = 0
    """Of the downloads that have begun."""
    packages: int = 0
    """How many the environment will hold; 0 while not known."""
    detail: str = ""
    """The packages being downloaded just now."""
    steps: int = 0
    """Finished steps of a build from source."""
    steps_total: int = 0


EnvironmentProgressCallback = Callable[[EnvironmentProgress], None]
"""Called from the thread that makes the environment, at each change and about once a second."""

_UNITS = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_RESOLVED = re.compile(r"^Resolved (\d+) packages?")
_DOWNLOADING = re.compile(r"^\s*Downloading (\S+) \(([\d.]+)(B|KiB|MiB|GiB)\)")
_DOWNLOADED = re.compile(r"^\s*Downloaded (\S+)")
_PREPARED = re.compile(r"^Prepared \d+ packages?")
_BUILT = re.compile(r"^DEBUG \[(\d+)/(\d+)\] ")
"""Ninja's count, as uv hands it on with -v."""


class ProgressReader:
    """Turns uv's lines into reports. Belongs to one thread."""

    def __init__(self, environment: str, callback: EnvironmentProgressCallback | None) -> None:
        self._environment = environment
        self._callback = callback
        self._started = time.monotonic()
        self._phase: Phase = "waiting"
        self._packages = 0
        self._sizes: dict[str, int] = {}
        self._running: set[str] = set()
        self._steps = self._steps_total = 0

    def enter(self, phase: Phase) -> None:
        self._phase = phase
        self.report()

    def feed(self, line: str) -> None:
        """Take one line of uv's stderr; lines that say nothing of progress change nothing."""
        if match := _DOWNLOADING.match(line):
            name, number, unit = match.groups()
            self._sizes[name] = int(float(number) * _UNITS[unit])
            self._running.add(name)
            self.enter("downloading")
        elif match := _DOWNLOADED.match(line):
            self._running.discard(match[1])
            self.report()
        elif match := _RESOLVED.match(line):
            self._packages = int(match[1])
            self.enter("installing")  # where all is at hand, uv says no more until its end
        elif match := _BUILT.match(line):
            self._steps, self._steps_total = int(match[1]), int(match[2])
            if self._phase != "building":
                self.enter("building")
        elif _PREPARED.match(line):
            self._running.clear()
            self.enter("installing")

    def report(self) -> None:
        if self._callback is None:
            return
        total = sum(self._sizes.values())
        self._callback(
            EnvironmentProgress(
                environment=self._environment,
                phase=self._phase,
                elapsed=time.monotonic() - self._started,
                done_bytes=total - sum(self._sizes[name] for name in self._running),
                total_bytes=total,
                packages=self._packages,
                detail=", ".join(sorted(self._running)),
                steps=self._steps,
                steps_total=self._steps_total,
            )
        )
