"""Fixtures for every folder: a home for the real ``yibu``, and the cache of real engines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.home import Home


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
