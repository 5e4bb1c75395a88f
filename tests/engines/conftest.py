"""The real llama.cpp, started as a node starts it."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from samples import facts, model, placement
from tests.support.ports import free_port

from yibu.engines.base import Binding
from yibu.engines.llama_cpp import LlamaCpp

KEY = "test-inner-key"
START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Running:
    """An engine process that answers."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def post(self, path: str, body: dict[str, Any], key: str = KEY) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.url}{path}",
            json.dumps(body).encode(),
            {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer: dict[str, Any] = json.load(response)
        return answer


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture(scope="session")
def spawn(llama_cpp_python: Path) -> Start:
    """Start the launcher as a node would: through the plan and ``bind``."""

    def start(
        path: Path,
        log: Path,
        port: int,
        options: dict[str, Any] | None = None,
        *,
        at: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        plan = LlamaCpp().plan(
            model(options, name="smol"), facts(), placement(**{"context": 2048, **(at or {})})
        )
        argv, own = plan.bind(Binding("127.0.0.1", port, llama_cpp_python, path, KEY))
        with log.open("wb") as output:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **own, **(env or {})},
                start_new_session=True,
            )

    return start


@pytest.fixture(scope="session")
def running(spawn: Start, smollm2: Path) -> Callable[..., Any]:
    """A context manager that yields a ready engine and reaps it afterwards."""

    @contextmanager
    def run(log: Path, options: dict[str, Any] | None = None, **at: Any) -> Iterator[Running]:
        port = free_port()
        process = spawn(smollm2, log, port, options, at=at)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_ready(process, url, log)
            yield Running(process, url, log)
        finally:
            process.kill()
            process.wait()

    return run


def wait_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=60) as response:
                if response.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass  # not listening yet, or 503 while it loads
        time.sleep(0.05)
    pytest.fail(f"not ready after {START_SECONDS} s:\n{log.read_text()}")
