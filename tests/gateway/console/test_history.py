"""The numbers that a node keeps: three resolutions, a file of bounded size, and disks that are full."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.small_disks import with_disks
from yibu.gateway.console.history import RANGES, MetricsHistory

START = 1_800_000_000.0


def filled(history: MetricsHistory, points: int, start: float = START) -> float:
    """Point number n has the value n; the time of the last."""
    for number in range(points):
        at = start + number * 10
        history.record(at, {"cpu_percent": float(number), "m\0ttft_p95_seconds": float(number)})
    return at


def test_longer_steps_are_averages_and_of_quantiles_the_greatest() -> None:
    history = MetricsHistory(None)
    at = filled(history, 60)
    hour, day, month = (history.read(name, at) for name in RANGES)
    assert [len(one["node"]["cpu_percent"]) for one in (hour, day, month)] == [360, 288, 360]
    assert hour["node"]["cpu_percent"][-60:] == [float(n) for n in range(60)]
    assert hour["node"]["cpu_percent"][:-60] == [None] * 300
    assert day["node"]["cpu_percent"][-2:] == [14.5, 44.5]
    assert day["models"]["m"]["ttft_p95_seconds"][-2:] == [29.0, 59.0]
    assert month["node"]["cpu_percent"][-1] == 29.5
    assert hour["start"] + 359 * 10 == at
    assert history.recent("m", "ttft_p95_seconds", at, 3) == [57.0, 58.0, 59.0]


def test_the_next_process_goes_on_with_what_was_written(tmp_path: Path) -> None:
    file = tmp_path / "metrics.db"
    first = MetricsHistory(file)
    at = filled(first, 47)
    first.close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    second = MetricsHistory(file)
    second.load(at)
    for name in RANGES:
        assert second.read(name, at) == first.read(name, at)
    # The step that was begun is gone on with.
    filled(second, 13, at + 10)
    assert len([v for v in second.read("day", at + 130)["node"]["cpu_percent"] if v]) == 2
    late = MetricsHistory(file)
    late.load(at + 3 * 3600)
    assert late.read("hour", at + 3 * 3600)["node"] == {}
    assert late.read("day", at + 3 * 3600)["node"]


def test_a_process_that_is_killed_loses_half_a_minute(tmp_path: Path) -> None:
    history = MetricsHistory(tmp_path / "metrics.db")
    at = filled(history, 8)  # and never closed
    after = MetricsHistory(tmp_path / "metrics.db")
    after.load(at)
    assert len([v for v in after.read("hour", at)["node"]["cpu_percent"] if v is not None]) == 6


def test_the_file_does_not_grow(tmp_path: Path) -> None:
    file = tmp_path / "metrics.db"
    history = MetricsHistory(file)
    filled(history, 370)
    history.close()
    size = file.stat().st_size
    filled(history, 370, START + 86400)
    filled(history, 370, START + 40 * 86400)
    history.close()
    assert file.stat().st_size <= size * 1.5
    with closing(sqlite3.connect(file)) as found:
        (rows,) = found.execute("SELECT count(*) FROM point").fetchone()
    assert rows <= sum(one.points for one in RANGES.values())


@pytest.mark.parametrize(
    "content", [b"no database at all" * 300, b"SQLite format 3\0" + b"\xff" * 900]
)
def test_a_damaged_file_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "metrics.db"
    file.write_bytes(content)
    history = MetricsHistory(file)
    history.load(START)
    at = filled(history, 9)
    history.close()
    again = MetricsHistory(file)
    again.load(at)
    assert again.read("hour", at) == history.read("hour", at)


FULL = """
import logging, sys
from pathlib import Path
from tests.gateway.console.test_history import filled
from tests.small_disks import fill
from yibu.gateway.console.history import MetricsHistory
disk = Path(sys.argv[1])
logging.basicConfig(stream=sys.stdout, format="%(message)s")
history = MetricsHistory(disk / "metrics.db")
filled(history, 6)
fill(disk)
at = filled(history, 300)
assert history.read("hour", at)["node"]["cpu_percent"][-1] == 299.0
print("told")
for file in disk.iterdir():
    if file.name != "metrics.db":
        file.unlink()
at = filled(history, 9, at + 10)
history.close()
after = MetricsHistory(disk / "metrics.db")
after.load(at)
assert after.read("hour", at) == history.read("hour", at)
print("whole")
"""


def test_on_a_full_disk_it_goes_on_in_memory(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    words = [*with_disks({disk: "1m"}), sys.executable, "-c", FULL, str(disk)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    *warnings, told, whole = done.stdout.splitlines()
    assert (told, whole) == ("told", "whole")
    assert len([line for line in warnings if "in memory" in line]) == 1
