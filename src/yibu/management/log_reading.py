"""The logs, and their lines in order of time."""

from __future__ import annotations

import heapq
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from yibu.config.names import generation_of
from yibu.errors import NotRunningError, UsageError
from yibu.management import log_lines
from yibu.management.log_lines import LEVELS, Level, Line
from yibu.messages import tr
from yibu.node import logs
from yibu.paths import Paths, log_name
from yibu.redaction import redact
from yibu.units import parse_time

_NODE = "node"
"""The name of the node's own log."""


@dataclass(frozen=True, slots=True)
class LineFilter:
    """Which lines to show."""

    since: float | None = None
    """Unix seconds."""
    level: Level | None = None
    """Minimum level."""
    pattern: re.Pattern[str] | None = None

    @property
    def everything(self) -> bool:
        return self.since is None and self.level is None and self.pattern is None

    def takes(self, line: Line) -> bool:
        if self.since is not None and line.time is not None and line.time < self.since:
            return False
        if self.level is not None and LEVELS.index(line.level) < LEVELS.index(self.level):
            return False
        return self.pattern is None or self.pattern.search(line.text) is not None


def files(paths: Paths, models: Sequence[str]) -> list[Path]:
    """The live files of the models' logs; of all logs when none is named.

    Raises:
        UsageError: a named one has none.
    """
    if not models:
        return sorted(paths.logs.glob("*.log"))
    found = []
    for model in dict.fromkeys(models):
        named = files_of(paths, model)
        if not named:
            known = ", ".join(_names(paths)) or tr("none yet")
            raise UsageError(
                "There is no log of {model!r} here; there are: {known}.", model=model, known=known
            )
        found += named
    return found


def files_of(paths: Paths, model: str) -> list[Path]:
    if model == _NODE:
        return [paths.node_log] if paths.node_log.exists() else []
    found = paths.logs.glob("*.log")
    return sorted(file for file in found if generation_of(log_name(file), model) is not None)


def _names(paths: Paths) -> list[str]:
    return sorted(map(log_name, paths.logs.glob("*.log")))


def past(files: Mapping[Path, int | None], wanted: LineFilter, most: int | None) -> Iterable[Line]:
    """What the logs have up to these bytes, in the order of time as far as lines have times; at most the last ``most``."""
    several = [_timed(file, _written(file, end, wanted, most)) for file, end in files.items()]
    merged = heapq.merge(*several, key=log_lines.sort_key)
    chosen = (line for line in merged if wanted.takes(line))
    return chosen if most is None else deque(chosen, most)


def _written(file: Path, end: int | None, wanted: LineFilter, most: int | None) -> Iterator[str]:
    """A log's lines, oldest first; no more of them than can be shown."""
    if wanted.everything and most is not None:
        yield from logs.tail(file, most, end)
    else:
        yield from logs.lines(file, since=wanted.since, end=end)


def _timed(file: Path, lines: Iterable[str]) -> Iterator[Line]:
    """Lines that stand before their log's first time get that one, and the time of its last writing where
    it has none at all."""
    waiting: list[Line] = []
    parser = log_lines.Parser(log_name(file))
    for line in map(parser.line, lines):
        if line.time is None:
            waiting.append(line)
            continue
        yield from (Line(one.source, line.time, one.level, one.text) for one in waiting)
        waiting.clear()
        yield line
    if waiting:
        written = logs.written_at(file)
        yield from (Line(one.source, written, one.level, one.text) for one in waiting)


def since(text: str, now: float) -> float:
    """``10m`` ago, or an ISO time, in Unix seconds.

    Raises:
        UsageError: it is neither.
    """
    if (ago := parse_time(text)) is not None:
        return now - ago
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise UsageError(
            "--since {text} is no time.", text=text, hint="10m, 2h, 1d, or 2026-11-28T15:30:00"
        ) from None


class UnknownLogError(NotRunningError):
    """There is no log of that name."""


class LogQuery:
    """A request for lines."""

    def __init__(self, wanted: Mapping[str, Any]) -> None:
        """Raises UsageError."""
        named = wanted.get("level")
        level = next((known for known in LEVELS if known == named), None)
        if named and level is None:
            raise UsageError(
                "{named!r} is no level",
                named=named,
                levels=", ".join(LEVELS),
                hint="One of {levels}",
            )
        text = wanted.get("since")
        begin = since(text, time.time()) if text else None
        # Text, and no pattern: one that takes for ever to match would hold the node up.
        search = wanted.get("search")
        pattern = re.compile(re.escape(search), re.IGNORECASE) if search else None
        self.wanted = LineFilter(begin, level, pattern)
        self.most = int(wanted.get("lines") or 200)


def listing(paths: Paths) -> list[dict[str, Any]]:
    """Every log, with its rotated files."""
    found = []
    for live in files(paths, ()):
        written = logs.written_at(live)
        if written is None:  # removed meanwhile
            continue
        sizes = list(map(logs.size, logs.generations(live)))
        found.append(
            {"name": log_name(live), "bytes": sum(sizes), "files": len(sizes), "modified": written}
        )
    return found


def rows(paths: Paths, names: Sequence[str], wanted: Mapping[str, Any]) -> list[dict[str, object]]:
    """The last lines, oldest first. Raises YibuError."""
    found = LogQuery(wanted)
    ends = dict.fromkeys(_known(paths, names))
    return [row(line) for line in past(ends, found.wanted, found.most)]


class Followed:
    """Logs followed from now on."""

    def __init__(
        self,
        files: Iterable[Path],
        wanted: LineFilter,
        others: Callable[[], Iterable[Path]] = lambda: (),
    ) -> None:
        """``others`` gives files that are followed from their beginning, as soon as they are there."""
        self._wanted = wanted
        self._others = others
        self._read: dict[Path, tuple[logs.Follower, log_lines.Parser]] = {}
        self.ends: dict[Path, int | None] = {}
        """Where each log began to be followed."""
        for file in files:
            place = logs.Position.now(file)
            self.ends[file] = place.position
            self._follow(file, place)

    def _follow(self, file: Path, start: logs.Position) -> None:
        self._read[file] = logs.Follower(file, start), log_lines.Parser(log_name(file))

    def take(self) -> list[Line]:
        """New lines since the last call, in order of time."""
        for file in self._others():
            if file not in self._read:
                self._follow(file, logs.Position.beginning(file))
        lines = [parser.line(text) for log, parser in self._read.values() for text in log.lines()]
        return sorted(filter(self._wanted.takes, lines), key=log_lines.sort_key)


def followed_rows(
    paths: Paths, names: Sequence[str], wanted: Mapping[str, Any]
) -> Callable[[], list[dict[str, object]]]:
    """A function that gives the lines that were written since its last call; at the first the lines
    before them. Raises YibuError."""
    found = LogQuery(wanted)
    others = (lambda: ()) if names else (lambda: files(paths, ()))
    followed = Followed(_known(paths, names), found.wanted, others)
    before = [past(followed.ends, found.wanted, found.most)]

    def take() -> list[dict[str, object]]:
        lines = before.pop() if before else followed.take()
        return [row(line) for line in lines]

    return take


def row(line: Line) -> dict[str, object]:
    """A line as the console shows it, without credentials."""
    plain = line.row()
    del plain["version"]
    return plain | {"text": redact(line.text)}


def _known(paths: Paths, names: Sequence[str]) -> list[Path]:
    """The logs of these models or replicas; of all without names."""
    found = []
    for name in dict.fromkeys(names):
        here = [file for file in files(paths, ()) if log_name(file) == name] or files_of(
            paths, name
        )
        if not here:
            raise UnknownLogError("There is no log of {name!r} here", name=name[:100])
        found += here
    return found if names else files(paths, ())
