"""Logs of engines and of the node, read from their files: the node need not run for it."""

from __future__ import annotations

import contextlib
import heapq
import json
import queue
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from yibu.cli import output
from yibu.cli.context import Context
from yibu.config.names import generation_of
from yibu.errors import UsageError
from yibu.node import log_lines, logs
from yibu.node.log_lines import LEVELS, Level, Line

_LOOK = 0.2
"""Seconds between two looks whether there is still something to follow."""
_NODE = "node"
"""The name under which `yibu logs` shows the node's own log."""
_LAST = 100
_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines are shown."""

    since: float | None = None
    """Unix seconds."""
    level: Level | None = None
    """This one and worse."""
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


def wanted(since: str | None, level: Level | None, grep: str | None) -> Wanted:
    """What the options ask for.

    Raises:
        UsageError: the time or the pattern cannot be read.
    """
    try:
        pattern = re.compile(grep) if grep is not None else None
    except re.error as error:
        raise UsageError(
            f"--grep {grep!r} is no regular expression: {error}.",
            hint="a backslash before a sign takes it as it stands: \\[",
        ) from error
    return Wanted(None if since is None else _since(since, time.time()), level, pattern)


def show(
    context: Context,
    models: Sequence[str],
    wanted: Wanted,
    *,
    follow: bool,
    lines: int | None,
    as_json: bool,
) -> None:
    """Print the last lines of models' logs, of all when none is named, and go on with ``follow``.

    ``lines`` None are the last 100, and all of them since a time.

    Raises:
        UsageError: there is no log of that name.
    """
    if context.paths.logs.is_dir() and not logs.has_room(context.paths.logs):
        output.talk(f"the disk with the logs is full ({context.paths.logs}): lines are missing")
    files = _files(context, models)
    if not files and not follow:
        output.talk("There are no logs yet.")
    printer = _Printer(wanted, marked=len(files) > 1 or not models, as_json=as_json)
    most = lines if lines is not None or wanted.since is not None else _LAST
    positions = {file: logs.Position.now(file) for file in files}
    ends = {file: place.position if follow else None for file, place in positions.items()}
    for line in _past(ends, wanted, most):
        printer.print(line)
    output.flush()
    if follow:
        followers = _Followers(printer)
        followers.take(positions)
        # Of named models the replicas are known; of all, others may come.
        followers.run(fresh=None if models else lambda: _files(context, ()))


def follow_models(context: Context, models: Sequence[str], ended: threading.Event) -> None:
    """Print what the models' engines log from now on, until interrupted or ``ended``."""
    files = [file for model in models for file in _files_of(context, model)]
    followers = _Followers(_Printer(Wanted(), marked=len(files) > 1, as_json=False))
    followers.take({file: logs.Position.now(file) for file in files})
    followers.run(ended)


def _files(context: Context, models: Sequence[str]) -> list[Path]:
    """The live files of the models' logs; of all logs when none is named.

    Raises:
        UsageError: a named one has none.
    """
    if not models:
        return sorted(context.paths.logs.glob("*.log"))
    found = []
    for model in dict.fromkeys(models):
        files = _files_of(context, model)
        if not files:
            known = ", ".join(_names(context)) or "none yet"
            raise UsageError(f"There is no log of {model!r} here; there are: {known}.")
        found += files
    return found


def _files_of(context: Context, model: str) -> list[Path]:
    if model == _NODE:
        return [context.paths.node_log] if context.paths.node_log.exists() else []
    found = context.paths.logs.glob("*.log")
    return sorted(file for file in found if generation_of(file.stem, model) is not None)


def _names(context: Context) -> list[str]:
    return sorted(file.stem for file in context.paths.logs.glob("*.log"))


def _past(files: Mapping[Path, int | None], wanted: Wanted, most: int | None) -> Iterable[Line]:
    """What the logs have up to these bytes, in the order of time as far as lines have times; at most the last ``most``."""
    several = [_timed(file, _written(file, end, wanted, most)) for file, end in files.items()]
    merged = heapq.merge(*several, key=log_lines.sort_key)
    chosen = (line for line in merged if wanted.takes(line))
    return chosen if most is None else deque(chosen, most)


def _written(file: Path, end: int | None, wanted: Wanted, most: int | None) -> Iterator[str]:
    """A log's lines, oldest first; no more of them than can be shown."""
    if wanted.everything and most is not None:
        yield from logs.tail(file, most, end)
    else:
        yield from logs.lines(file, since=wanted.since, end=end)


def _timed(file: Path, lines: Iterable[str]) -> Iterator[Line]:
    """Lines that stand before their log's first time get that one, and the time of its last writing where
    it has none at all."""
    waiting: list[Line] = []
    for line in log_lines.parse(file.stem, lines):
        if line.time is None:
            waiting.append(line)
            continue
        yield from (Line(one.source, line.time, one.level, one.text) for one in waiting)
        waiting.clear()
        yield line
    if waiting:
        written = logs.written_at(file)
        yield from (Line(one.source, written, one.level, one.text) for one in waiting)


class _Printer:
    def __init__(self, wanted: Wanted, *, marked: bool, as_json: bool) -> None:
        """``marked``: each line has its log's name before it."""
        self._wanted = wanted
        self._marked = marked
        self._json = as_json

    def print(self, line: Line) -> None:
        if not self._wanted.takes(line):
            return
        if self._json:
            output.data(json.dumps(line.row(), ensure_ascii=False))
        else:
            output.data(f"{line.source} | {line.text}" if self._marked else line.text)


class _Followers:
    """A thread a file, and one queue in the order in which lines come."""

    def __init__(self, printer: _Printer) -> None:
        self._printer = printer
        self._arrived: queue.SimpleQueue[Line] = queue.SimpleQueue()
        self._known: set[Path] = set()

    def take(self, files: Mapping[Path, logs.Position]) -> None:
        """Follow these too, from their positions on."""
        for file, position in files.items():
            if file not in self._known:
                self._known.add(file)
                lines = logs.follow(file, start=position)
                threading.Thread(
                    target=self._read, args=(file.stem, lines), name=f"follow {file}", daemon=True
                ).start()

    def run(
        self,
        ended: threading.Event | None = None,
        fresh: Callable[[], list[Path]] | None = None,
    ) -> None:
        """Print lines as they come, until interrupted or ``ended``; ``fresh`` finds new files."""
        while ended is None or not ended.is_set():
            with contextlib.suppress(queue.Empty):
                self._printer.print(self._arrived.get(timeout=_LOOK))
                output.flush()
                continue
            if fresh is not None:
                self.take({file: logs.Position.beginning(file) for file in fresh()})

    def _read(self, source: str, lines: Iterator[str]) -> None:
        for line in log_lines.parse(source, lines):
            self._arrived.put(line)


def _since(text: str, now: float) -> float:
    if found := _AGO.fullmatch(text.strip()):
        return now - float(found[1]) * _UNITS[found[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise UsageError(
            f"--since {text} is no time.", hint="10m, 2h, 1d, or 2026-11-28T15:30:00"
        ) from None
