"""Times and levels of lines as engines really write them."""

from __future__ import annotations

import time

import pytest

from yibu.management.log_lines import Parser, read


def local(*parts: int) -> float:
    return time.mktime((*parts, *[0] * (6 - len(parts)), 0, 0, -1))  # type: ignore[arg-type]


YEAR = time.localtime().tm_year


@pytest.mark.parametrize(
    ("text", "when", "level"),
    [
        ("2026-11-28 15:32:04,250 WARNING yibu.node x", local(2026, 11, 28, 15, 32, 4) + 0.25, "warning"),
        ('{"time": "2026-11-28T15:32:04.500+00:00", "level": "error"}', 1795879924.5, "error"),
        ("2026-11-28T15:32:04.500Z  something", 1795879924.5, None),
        ("(APIServer pid=90458) INFO 01-01 00:00:00 [logger.py:49] x", local(YEAR, 1, 1), "info"),
        ("(EngineCore pid=1) WARNING 01-02 03:04:05 [a.py:1] y", local(YEAR, 1, 2, 3, 4, 5), "warning"),
        ("INFO:     Started server process [90458]", None, "info"),
        ("[2025-01-01 12:00:00 TP0] Load weight begin.", local(2025, 1, 1, 12), None),
        ("2025-01-01 12:00:00,000 - lmdeploy - ERROR - x.py:1 - no", local(2025, 1, 1, 12), "error"),
        ("3.26.283.214 I srv    main: initializing server", None, "info"),
        ("0.00.049.190 W load: special token", None, "warning"),
        ("llama_model_loader: loaded meta data with 30 key-value pairs", None, None),
        ("/x/y.py:12: UserWarning: odd", None, "warning"),
        ("torch.OutOfMemoryError: CUDA out of memory", None, "error"),
        ("2026-13-45 99:99:99,000 INFO odd", None, "info"),
        ("", None, None),
        ('{"time": "never"', None, None),
    ],
)  # fmt: skip
def test_the_forms_of_engines(text: str, when: float | None, level: str | None) -> None:
    assert read(text) == (when, level)


def test_a_time_without_a_year_is_no_future() -> None:
    soon = time.localtime(time.time() + 30 * 86400)
    found, _ = read(f"INFO {soon.tm_mon:02}-{soon.tm_mday:02} 12:00:00 [x.py:1] of last year")
    assert found is not None
    assert found < time.time()


def test_what_names_nothing_belongs_to_the_line_above() -> None:
    lines = [
        "before any time",
        "2026-11-28 15:32:04,000 ERROR a failed",
        "Traceback (most recent call last):",
        '  File "x.py", line 1',
        "ValueError: no",
        "plain again",
        "2026-11-28 15:32:03,000 INFO a late thread",
    ]
    found = list(map(Parser("smol-0").line, lines))
    assert [line.level for line in found] == [
        *("info", "error", "error", "error", "error", "info", "info"),
    ]
    first = local(2026, 11, 28, 15, 32, 4)
    assert [line.time for line in found] == [None, *[first] * 6]
