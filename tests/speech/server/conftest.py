"""Real engine processes on real sockets."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.polling import until

REPOSITORY = Path(__file__).parents[3]
SHARED = Path(os.environ.get("YIBU_SHARED", REPOSITORY.parent / "shared"))
"""Clips and OpenAI's specification, beside the repository; tests that need them skip without."""
START_SECONDS = 180.0


@dataclass
class Running:
    """An engine process, its address and its log."""

    process: subprocess.Popen[bytes]
    url: str
    log_path: Path
    temporary: Path
    """Its directory for temporary files."""

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def get(self, path: str, key: str | None = None) -> tuple[int, str]:
        request = urllib.request.Request(self.url + path)
        if key:
            request.add_header("authorization", f"Bearer {key}")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        page = self.get("/metrics")[1]
        values = re.findall(rf"^yibu_speech_{name}(?:\{{.*\}})? (\S+)$", page, re.MULTILINE)
        assert values, f"{name} is not in {page}"
        return sum(map(float, values))

    def resident_bytes(self) -> int:
        return int(self.metric("resident_bytes"))


@pytest.fixture
def start_engine(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start engines: ``start(*flags, program=…, environment=…)``; killed at the test's end."""
    running: list[Running] = []

    def start(
        *flags: str,
        program: str = "tests.speech.server.tone_engine",
        model: Path | str = "tone-model",
        environment: dict[str, str] | None = None,
        wait: bool = True,
    ) -> Running:
        log_path = tmp_path / f"engine-{len(running)}.log"
        temporary = tmp_path / f"tmp-{len(running)}"
        temporary.mkdir()
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", program, "--model", str(model), "--port", "0", *flags],
                stdout=log,
                stderr=log,
                cwd=REPOSITORY,
                env={**os.environ, "TMPDIR": str(temporary), **(environment or {})},
            )
        engine = Running(process, "", log_path, temporary)
        running.append(engine)

        def address() -> str | None:
            assert process.poll() is None, engine.log
            found = re.search(r"listening on (http://\S+),", engine.log)
            return found[1] if found else None

        engine.url = until(address, "its address", START_SECONDS)
        if wait:
            until(lambda: _health(engine) == 200, "ready", START_SECONDS)
        return engine

    yield start
    for engine in running:
        if engine.process.poll() is None:
            engine.process.send_signal(signal.SIGKILL)
        engine.process.wait()


def _health(engine: Running) -> int:
    assert engine.process.poll() is None, engine.log
    return engine.get("/health")[0]


@pytest.fixture
def no_named_temporary_files() -> Iterator[None]:
    """Nothing new is left in this process's own directory for temporary files."""
    folder = Path(tempfile.gettempdir())
    before = {path.name for path in folder.iterdir() if path.name.startswith("tmp")}
    yield
    after = {path.name for path in folder.iterdir() if path.name.startswith("tmp")}
    assert after <= before
