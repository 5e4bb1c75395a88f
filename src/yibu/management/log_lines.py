"""Time and level of a log line, where it has them.

Engines write as they please: the forms here are those of yibu's node (as text and as JSON), of vLLM, SGLang,
LMDeploy, llama.cpp, uvicorn, and of Python's warnings and tracebacks. Times without a zone are this
machine's. Standard library only: the CLI imports this.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Level = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[Level, ...] = ("debug", "info", "warning", "error")

_LONG_AGO = float("-inf")
_SAME_YEAR = 86400.0
"""Seconds by which a time without a year may lie ahead of the clock and still be this year's."""

_ISO = re.compile(
    r"\[?(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))?(Z|[+-]\d\d:?\d\d)?\b", re.ASCII
)
_VLLM = re.compile(r"\b(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(?:[.,](\d{1,6}))?\b", re.ASCII)
_NAMES: dict[str, Level] = {
    "TRACE": "debug", "DEBUG": "debug", "INFO": "info", "NOTICE": "info", "WARN": "warning",
    "WARNING": "warning", "ERROR": "error", "ERR": "error", "CRITICAL": "error", "FATAL": "error",
    "D": "debug", "I": "info", "W": "warning", "E": "error",
}  # fmt: skip
_LEVEL = re.compile(
    r"(?:^|[\s\[(|])(TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|ERR|CRITICAL|FATAL)(?=[\s:\])|]|$)"
)
_LLAMA = re.compile(r"(?:\d+\.\d+\.\d+(?:\.\d+)? )?([DIWE])(?: |$)", re.ASCII)
_PYTHON: tuple[tuple[re.Pattern[str], Level], ...] = (
    (re.compile(r"Traceback \(most recent call last\):"), "error"),
    (re.compile(r"[A-Za-z_][\w.]*(?:Error|Exception|Interrupt)(?::|$)"), "error"),
    (re.compile(r"(?:[^\s:]+:\d+: )?[A-Za-z_]\w*Warning:"), "warning"),
)
_HEAD = 160
"""Characters of a line that are searched for its time and level."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line; of a line that names none, time and level are those of what it belongs to."""

    source: str
    """The log's name: ``node``, or a replica's."""
    time: float | None
    """Unix seconds; None where the log has named no time yet."""
    level: Level
    text: str

    def row(self) -> dict[str, object]:
        return {
            "version": 1,
            "log": self.source,
            "time": None if self.time is None else iso(self.time),
            "level": self.level,
            "text": self.text,
        }


def iso(seconds: float) -> str:
    """Unix seconds with this machine's zone."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="milliseconds")


class Parser:
    """Takes one log's lines in their order. Times never go back: a line of a thread that was late stays
    where it stands."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._last: float | None = None
        self._level: Level = "info"

    def line(self, text: str) -> Line:
        own, named = read(text)
        if own is not None:
            self._last = own if self._last is None else max(own, self._last)
        if named is not None:
            self._level = named
        elif own is not None or not text.startswith((" ", "\t")):
            self._level = "info"  # what is indented belongs to the line above
        return Line(self._source, self._last, self._level, text)


def read(text: str) -> tuple[float | None, Level | None]:
    """A line's own time in Unix seconds, and its level."""
    if text.startswith('{"time":'):
        return _json(text)
    head = text[:_HEAD]
    return _time(head), _level(head)


def _json(text: str) -> tuple[float | None, Level | None]:
    try:
        fields = json.loads(text)
        when = datetime.fromisoformat(str(fields["time"])).timestamp()
        return when, _NAMES.get(str(fields.get("level")).upper())
    except (ValueError, KeyError):
        return None, None


def _time(head: str) -> float | None:
    try:
        if (found := _ISO.search(head)) and found.start() < 40:
            day, clock, fraction, zone = found.groups()
            when = datetime.fromisoformat(f"{day}T{clock}{zone or ''}").timestamp()
            return when + float(f"0.{fraction or 0}")
        if found := _VLLM.search(head):
            now = time.time()
            year = time.localtime(now).tm_year
            month, day_, hour, minute, second = map(int, found.groups()[:5])
            when = datetime(year, month, day_, hour, minute, second).timestamp()  # noqa: DTZ001
            if when > now + _SAME_YEAR:  # of December, read in January
                when = datetime(year - 1, month, day_, hour, minute, second).timestamp()  # noqa: DTZ001
            return when + float(f"0.{found[6] or 0}")
    except (ValueError, OverflowError):
        return None
    return None


def _level(head: str) -> Level | None:
    if found := _LEVEL.search(head):
        return _NAMES[found[1]]
    if found := _LLAMA.match(head):
        return _NAMES[found[1]]
    return next((level for form, level in _PYTHON if form.match(head)), None)


def sort_key(line: Line) -> float:
    """By time; lines before a log's first time come first."""
    return _LONG_AGO if line.time is None else line.time
