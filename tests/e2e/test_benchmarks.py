"""The benchmarks run: what they import is there, and those of the gateway and the scheduler print their figures."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.e2e.home import REPOSITORY

FOLDER = REPOSITORY / "benchmarks"
IMPORTS = """
import runpy, sys
for path in sys.argv[1:]:
    sys.path.insert(0, path.rpartition("/")[0])
    try:
        runpy.run_path(path, run_name="imported")
    except ModuleNotFoundError as error:  # of an engine's environment, or a rival
        if error.name.split(".")[0] in ("yibu", "tests", "benchmarks"):
            raise
"""


def run(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=REPOSITORY, capture_output=True, text=True, timeout=240, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_they_import_is_there() -> None:
    paths = sorted(map(str, FOLDER.rglob("*.py")))
    assert len(paths) > 20
    run("-c", IMPORTS, *paths)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["intake.py", "0.1"], "222,222 empty parts"),
        (["scheduler.py"], "with affinity"),
        (["gateway.py", "--rounds", "1", "--seconds", "0.1", "--requests", "10", "--only", "yibu"], "| yibu |"),
    ],
    ids=["intake", "scheduler", "gateway"],
)  # fmt: skip
def test_it_prints_its_figures(words: list[str], said: str) -> None:
    assert said in run(str(FOLDER / words[0]), *words[1:])
