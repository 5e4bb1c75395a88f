"""Which tests of the whole program are collected, and in what order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ENGINES_ALONE = re.compile(r"^pytestmark = .*\bpytest\.mark\.engine\b", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where engines are left out, files that hold nothing else are not imported: their clients
    would cost each worker half of what its start takes."""
    if collection_path.suffix != ".py" or "not engine" not in config.option.markexpr:
        return None
    return bool(ENGINES_ALONE.search(collection_path.read_text("utf-8"))) or None


LONGEST_FIRST = (
    *("test_vllm_faults", "test_speech_environments", "test_whisper_environment"),
    *("test_vllm", "test_vllm_causes"),
)
"""Files of real engines run three at a time; a long one begun last would be waited for alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def turn(item: pytest.Item) -> int:
        name = item.path.stem
        return LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=turn)
