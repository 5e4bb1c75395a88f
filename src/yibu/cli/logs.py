"""Logs of engines and of the node, read from their files: the node need not run for it."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterable, Sequence

from yibu.cli import output
from yibu.errors import UsageError
from yibu.management import log_reading as reading
from yibu.management.context import Context
from yibu.management.log_lines import Level, Line
from yibu.management.log_reading import LineFilter
from yibu.node import logs
from yibu.paths import log_name

_LOOK = 0.2
"""Seconds between two reads of followed logs."""
_LAST = 100


def wanted(since: str | None, level: Level | None, grep: str | None) -> LineFilter:
    """The options as a request for lines.

    Raises:
        UsageError: the time or the pattern cannot be read.
    """
    try:
        pattern = re.compile(grep) if grep is not None else None
    except re.error as error:
        raise UsageError(
            "--grep {grep!r} is no regular expression: {error}.",
            grep=grep,
            error=error,
            hint="A backslash before a sign takes it as it stands: \\[",
        ) from error
    return LineFilter(None if since is None else reading.since(since, time.time()), level, pattern)


def show(
    context: Context,
    models: Sequence[str],
    wanted: LineFilter,
    *,
    follow: bool,
    lines: int | None,
    as_json: bool,
) -> None:
    """Print the last lines of models' logs, of all when none is named; ``follow`` continues.

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
    printer = _Printer(marked=len(files) > 1 or not models, as_json=as_json)
    most = lines if lines is not None or wanted.since is not None else _LAST
    # Of named models the replicas are known; of all, others may come.
    others = (lambda: ()) if models else (lambda: reading.files(context.paths, ()))
    followed = reading.Followed(files, wanted, others)
    printer.print(reading.past(followed.ends if follow else dict.fromkeys(files), wanted, most))
    if files and not printer.printed and not follow:
        output.say(
            "No line of {files} is of that kind, or they are empty.",
            files=", ".join(map(log_name, files)),
        )
    if follow:
        _follow(followed, printer, threading.Event())


def follow_models(context: Context, models: Sequence[str], ended: threading.Event) -> None:
    """Print new lines of the models' engines, until interrupted or ``ended``."""
    files = [file for model in models for file in reading.files_of(context.paths, model)]
    printer = _Printer(marked=len(files) > 1, as_json=False)
    _follow(reading.Followed(files, LineFilter()), printer, ended)


def _follow(followed: reading.Followed, printer: _Printer, ended: threading.Event) -> None:
    while not ended.wait(_LOOK):
        printer.print(followed.take())


class _Printer:
    def __init__(self, *, marked: bool, as_json: bool) -> None:
        """``marked``: print the log's name before each line."""
        self._marked = marked
        self._json = as_json
        self.printed = 0

    def print(self, lines: Iterable[Line]) -> None:
        for line in lines:
            self.printed += 1
            if self._json:
                output.data(json.dumps(line.row(), ensure_ascii=False))
            else:
                output.data(f"{line.source} | {line.text}" if self._marked else line.text)
        output.flush()
