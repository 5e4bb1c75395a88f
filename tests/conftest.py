"""Fixtures for every folder: a home for the real ``yibu``, and the cache of real engines."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
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
