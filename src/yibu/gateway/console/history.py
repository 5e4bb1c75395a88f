"""The node's numbers over the last hour, day and month: a fixed number of points of each, in a file.

What is in memory is what is shown; the file is for the next node. A disk that is full, or a file that
cannot be read, costs what a restart would find, and nothing else.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from yibu.gateway.sqlite_file import opened

_log = logging.getLogger(__name__)

FILE = "metrics.db"
"""In the state directory."""
Values = dict[str, float]
"""Values by series: ``cpu_percent``, or a model and its series, joined by a NUL."""

_TABLE = (
    "CREATE TABLE IF NOT EXISTS point (step INTEGER, slot INTEGER, start INTEGER, data BLOB,"
    " PRIMARY KEY (step, slot)) WITHOUT ROWID"
)
_WRITE = "REPLACE INTO point (step, slot, start, data) VALUES (?, ?, ?, ?)"
_FLUSH = 3
"""Points between two writes, each of ten seconds: what a crash loses at most."""


@dataclass(frozen=True, slots=True)
class Range:
    """One resolution."""

    step: int
    """Seconds between two points."""
    points: int

    def start(self, at: float) -> int:
        """The start of the point that a moment belongs to."""
        return int(at) // self.step * self.step

    def first(self, at: float) -> int:
        """The start of the oldest point that is kept."""
        return self.start(at) - (self.points - 1) * self.step


RANGES = {"hour": Range(10, 360), "day": Range(300, 288), "month": Range(7200, 360)}


class MetricsHistory:
    """The stored points. Blocking; one thread at a time."""

    def __init__(self, path: Path | None) -> None:
        """``path`` None: keep the points in memory only."""
        self._path = path
        self._points: dict[str, dict[int, Values]] = {name: {} for name in RANGES}
        self._unwritten: set[tuple[str, int]] = set()
        self._recorded = 0
        self._told = ""
        self._lock = threading.Lock()

    def load(self, now: float) -> None:
        """Read what an earlier process has written."""
        if self._path is None or not self._path.exists():
            return
        names = {one.step: name for name, one in RANGES.items()}
        try:
            with opened(self._path, _TABLE) as file:
                rows = file.execute("SELECT step, start, data FROM point").fetchall()
                for step, start, data in rows:
                    name = names[step]
                    if RANGES[name].first(now) <= start <= now:
                        self._points[name][start] = orjson.loads(data)
        except (sqlite3.Error, OSError, ValueError, KeyError) as error:
            _log.warning("%s cannot be read, and is begun anew: %s", self._path, error)
            for points in self._points.values():
                points.clear()
            self._remove()

    def record(self, at: float, values: Values) -> None:
        """Record the values of the ten seconds that end now."""
        with self._lock:
            finer: Mapping[int, Values] | None = None
            for name, one in RANGES.items():
                start = one.start(at)
                points = self._points[name]
                points[start] = values if finer is None else _together(finer, start, one.step)
                for old in [begin for begin in points if begin < one.first(at)]:
                    del points[old]
                self._unwritten.add((name, start))
                finer = points
            self._recorded += 1
            if self._recorded % _FLUSH == 0:
                self._flush()

    def close(self) -> None:
        with self._lock:
            self._flush()

    def read(self, name: str, now: float) -> dict[str, Any]:
        """One range, as docs/console.md describes it."""
        one = RANGES[name]
        first = one.first(now)
        with self._lock:
            points = dict(self._points[name])
        starts = range(first, first + one.points * one.step, one.step)
        node: dict[str, list[float | None]] = {}
        models: dict[str, dict[str, list[float | None]]] = {}
        for series in sorted({series for values in points.values() for series in values}):
            model, _, what = series.rpartition("\0")
            kept = models.setdefault(model, {}) if model else node
            kept[what] = [points.get(start, {}).get(series) for start in starts]
        return {
            "range": name,
            "step": one.step,
            "start": first,
            "points": one.points,
            "node": node,
            "models": models,
        }

    def recent(self, model: str, series: str, now: float, points: int) -> list[float | None]:
        """The latest points of one series, oldest first."""
        one = RANGES["hour"]
        last = one.start(now)
        kept = self._points["hour"]
        starts = range(last - (points - 1) * one.step, last + one.step, one.step)
        return [kept.get(start, {}).get(f"{model}\0{series}") for start in starts]

    def _flush(self) -> None:
        if self._path is None:
            return
        rows = []
        for name, start in self._unwritten:
            one = RANGES[name]
            if (values := self._points[name].get(start)) is not None:
                slot = start // one.step % one.points
                rows.append((one.step, slot, start, orjson.dumps(values)))
        try:
            with opened(self._path, _TABLE) as file:
                file.executemany(_WRITE, rows)
        except (sqlite3.DatabaseError, OSError) as error:
            if self._told != str(error):
                self._told = str(error)
                _log.warning("metrics are kept in memory alone; %s: %s", self._path, error)
            if isinstance(error, sqlite3.DatabaseError) and not isinstance(
                error, sqlite3.OperationalError
            ):
                self._remove()  # damaged: the next write begins it anew
            return
        if self._told:
            _log.info("metrics are written to %s again", self._path)
        self._told = ""
        self._unwritten.clear()

    def _remove(self) -> None:
        assert self._path is not None
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("%s cannot be removed: %s", self._path, error)


def _together(points: Mapping[int, Values], start: int, step: int) -> Values:
    """Merge shorter points into one: averages, and the maximum of quantiles."""
    found: dict[str, list[float]] = {}
    for begin, values in points.items():
        if start <= begin < start + step:
            for series, value in values.items():
                found.setdefault(series, []).append(value)
    return {
        series: max(values) if "_p50" in series or "_p95" in series else sum(values) / len(values)
        for series, values in found.items()
    }
