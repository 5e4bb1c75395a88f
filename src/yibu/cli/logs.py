"""Logs of engines and of the node, read from their files: the node need not run for it."""

from __future__ import annotations

import contextlib
import json
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from yibu.cli import output
from yibu.errors import UsageError
from yibu.management import log_reading as reading
from yibu.management.context import Context
from yibu.management.log_reading import Wanted
from yibu.messages import tr
from yibu.node import log_lines, logs
from yibu.node.log_lines import Level, Line

_LOOK = 0.2
"""Seconds between two looks whether there is still something to follow."""
_LAST = 100


def wanted(since: str | None, level: Level | None, grep: str | None) -> Wanted:
    """What the options ask for.

    Raises:
        UsageError: the time or the pattern cannot be read.
    """
    try:
        pattern = re.compile(grep) if grep is not None else None
    except re.error as error:
        raise UsageError(
            tr("--grep {grep!r} is no regular expression: {error}.", grep=grep, error=error),
            hint=tr("a backslash before a sign takes it as it stands: \\["),
        ) from error
    return Wanted(None if since is None else reading.since(since, time.time()), level, pattern)


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
        output.say(
            "the disk with the logs is full ({logs}): lines are missing", logs=context.paths.logs
        )
    files = reading.files(context.paths, models)
    if not files and not follow:
        output.say("There are no logs yet.")
    printer = _Printer(wanted, marked=len(files) > 1 or not models, as_json=as_json)
    most = lines if lines is not None or wanted.since is not None else _LAST
    positions = {file: logs.Position.now(file) for file in files}
    ends = {file: place.position if follow else None for file, place in positions.items()}
    for line in reading.past(ends, wanted, most):
        printer.print(line)
    output.flush()
    if files and not printer.printed and not follow:
        output.say(
            "No line of {files} is of that kind, or they are empty.",
            files=", ".join(file.stem for file in files),
        )
    if follow:
        followers = _Followers(printer)
        followers.take(positions)
        # Of named models the replicas are known; of all, others may come.
        followers.run(fresh=None if models else lambda: reading.files(context.paths, ()))


def follow_models(context: Context, models: Sequence[str], ended: threading.Event) -> None:
    """Print what the models' engines log from now on, until interrupted or ``ended``."""
    files = [file for model in models for file in reading.files_of(context.paths, model)]
    followers = _Followers(_Printer(Wanted(), marked=len(files) > 1, as_json=False))
    followers.take({file: logs.Position.now(file) for file in files})
    followers.run(ended)


class _Printer:
    def __init__(self, wanted: Wanted, *, marked: bool, as_json: bool) -> None:
        """``marked``: each line has its log's name before it."""
        self._wanted = wanted
        self._marked = marked
        self._json = as_json
        self.printed = 0

    def print(self, line: Line) -> None:
        if not self._wanted.takes(line):
            return
        self.printed += 1
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
