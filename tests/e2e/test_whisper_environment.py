"""The speech engine's own tests, in the environment of Whisper."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.e2e.home import Home
from tests.support.speech_environments import MINUTES, install, run_tests

pytestmark = pytest.mark.engine


@pytest.mark.timeout(MINUTES * 60)
def test_in_its_environment(engine_cache: Path, tmp_path: Path) -> None:
    home = Home(tmp_path, engine_cache)
    interpreter = install(home, "speech-whisper")
    model = home.yibu("pull", "whisper-base", timeout=600).stdout.strip()
    if not (directory := engine_cache / "whisper-base").exists():
        shutil.copytree(model, directory, copy_function=os.link)
    run_tests(interpreter, engine_cache, "server")
