"""numpy computes on the thread that asks: its own threads would take the model's cores."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

np = pytest.importorskip("numpy", reason="run with a speech environment's Python")
pytest.importorskip("uvicorn")

ASK = """
import ctypes, sys
sys.path[:0] = {path!r}
from yibu.speech import program

def load(settings):
    from yibu.errors import EngineError
    library = ctypes.CDLL({library!r})
    print("threads", library.scipy_openblas_get_num_threads64_(), flush=True)
    raise EngineError("that was all")

sys.exit(program.main(["--model", ".", "--port", "0"], load))
"""


def test_numpy_starts_no_threads(tmp_path: Path) -> None:
    if (os.cpu_count() or 1) < 2:
        pytest.skip("one core has one thread anyway")
    libraries = Path(np.__file__).parent.parent.glob("numpy.libs/libscipy_openblas64_*")
    library = next(libraries, None)
    if library is None:
        pytest.skip("this numpy comes with another BLAS")
    environment = {k: v for k, v in os.environ.items() if "NUM_THREADS" not in k}
    done = subprocess.run(
        [sys.executable, "-c", ASK.format(path=sys.path, library=str(library))],
        env=environment, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert "threads 1\n" in done.stdout, done.stdout + done.stderr
