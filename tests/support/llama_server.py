"""A llama-server for the tests, built from source once and kept in the tests' cache.

    python -m tests.support.llama_server [CACHE]

It is built as `yibu engine install llama.cpp --build native` builds it, but for any x86-64 with AVX2,
since caches move between machines, and with less optimization, since compiling takes longest.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from yibu.cli.progress import describe_environment
from yibu.environments.manager import EnvironmentManager
from yibu.environments.programs import built_programs
from yibu.environments.progress import EnvironmentProgress
from yibu.environments.uv_settings import UvSettings

WAYS = ("packaged", "llama-server")
"""The two ways in which yibu runs llama.cpp: its packaged build, and a program."""
_NAME = "llama.cpp-native"
_RELEASE = "-DCMAKE_{}_FLAGS_RELEASE='-O2 -DNDEBUG'"
_PORTABLE = f"-DGGML_NATIVE=OFF {_RELEASE.format('C')} {_RELEASE.format('CXX')}"


def environments(cache: Path) -> EnvironmentManager:
    """A directory of its own: in a home's, yibu would take it for every GGUF model."""
    env = {**os.environ, "CMAKE_ARGS": _PORTABLE}
    return EnvironmentManager(cache / "llama-server", UvSettings.from_pip(os.environ), env=env)


def program(cache: Path) -> Path | None:
    """``YIBU_LLAMA_SERVER``, or the program in that cache; None where it was not built."""
    asked = os.environ.get("YIBU_LLAMA_SERVER")
    return Path(asked) if asked else built_programs(environments(cache)).get(_NAME)


def options_of(way: str, cache: Path) -> dict[str, Any]:
    """What an entry's options have beside the test's own."""
    if way == "packaged":
        return {"program": "packaged"}
    if (path := program(cache)) is None:
        pytest.skip(f"no llama-server was built in {cache}: make llama-server")
    return {"program": str(path)}


def main() -> None:
    default = os.environ.get("YIBU_TEST_CACHE") or ".test-cache"
    cache = Path(sys.argv[1] if len(sys.argv) > 1 else default)
    told: set[tuple[str, int]] = set()

    def tell(progress: EnvironmentProgress) -> None:
        step = (progress.phase, progress.steps // 20)
        if step not in told:
            told.add(step)
            print(f"llama-server: {describe_environment(progress)}", file=sys.stderr, flush=True)

    # A SIGTERM (of timeout) has to end the compilers too, which hold the environment's lock.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    environments(cache).ensure(_NAME, progress=tell)
    print(program(cache))


if __name__ == "__main__":
    main()
