"""The speech engine's own tests, in the environments of SenseVoice and Paraformer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.home import Home
from tests.support.speech_environments import MINUTES, install, run_tests

pytestmark = pytest.mark.engine

_ONNX_ONLY = tuple(
    f"--ignore=tests/speech/models/{name}" for name in ("test_memory.py", "test_served.py")
)
"""What has nothing to do with torch is not run with it once more, nor what starts an engine, which needs
OpenVINO in an environment of its own."""


@pytest.mark.timeout(MINUTES * 60)
@pytest.mark.parametrize(
    ("environment", "tests"),
    # speech-torch leaves behind the export that speech-onnx, which has no torch, loads.
    [("speech-torch", "models"), ("speech-onnx", "models"), ("speech-onnx", "live")],
)
def test_in_its_environment(
    environment: str, tests: str, engine_cache: Path, tmp_path: Path
) -> None:
    home = Home(tmp_path, engine_cache)
    interpreter = install(home, environment)
    if environment != "speech-torch":
        run_tests(interpreter, engine_cache, tests)
        return
    # The fast path, which needs OpenVINO, is held against FunASR's own, which needs torch.
    beside = Path(install(home, "speech-onnx")).parents[1]
    packages = str(next(beside.glob("lib/python*/site-packages")))
    run_tests(interpreter, engine_cache, tests, _ONNX_ONLY, [packages])
