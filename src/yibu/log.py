"""Logging, configured only by entry points, with secrets redacted from everything."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from io import TextIOWrapper
from types import TracebackType
from typing import Literal, TextIO

from yibu.messages import Message
from yibu.redaction import redact

Format = Literal["text", "json"]
_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


class Redacting(logging.Formatter):
    """Formats as usual, then redacts: exceptions and third-party messages included."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class RedactingFormatter(Redacting):
    """The node's lines: the same, faster."""

    _second = -1
    _text = ""

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_info or record.exc_text or record.stack_info:
            return super().format(record)
        # What the base class would write by _FORMAT, in a third of its time.
        when = self.formatTime(record)
        return redact(f"{when} {record.levelname} {record.name} {record.getMessage()}")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802  (logging's name)
        """As usual, but a second's text is made once a second."""
        if datefmt is not None:
            return super().formatTime(record, datefmt)
        return self._when(record.created)

    def line(self, name: str, text: str) -> str:
        """The formatted line of a record at INFO of the logger ``name``."""
        return redact(f"{self._when(time.time())} INFO {name} {text}")

    def _when(self, created: float) -> str:
        second = int(created)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        return f"{self._text},{int((created - second) * 1000):03d}"


class JsonFormatter(RedactingFormatter):
    """An object a line: time, level, logger, message, and what the record has as ``fields``."""

    def format(self, record: logging.LogRecord) -> str:
        trace = self.formatException(record.exc_info) if record.exc_info else record.exc_text
        fields = {"message": record.getMessage(), **({"exception": trace} if trace else {})}
        said = [each for each in _arguments(record) if isinstance(each, Message)]
        if said:
            fields["message_id"] = said[0].template
        return self._object(record.created, record.levelname, record.name, fields)

    def line(self, name: str, text: str) -> str:
        return self._object(time.time(), "INFO", name, {"message": text})

    def fields(self, name: str, fields: Mapping[str, object]) -> str:
        """A line at INFO of fields instead of a text."""
        return self._object(time.time(), "INFO", name, fields)

    def _object(self, created: float, level: str, name: str, fields: Mapping[str, object]) -> str:
        when = datetime.fromtimestamp(created).astimezone().isoformat(timespec="milliseconds")
        # Each text by itself: taken out of the whole, a secret could take a quote along.
        shown = {
            key: redact(value) if isinstance(value, str) else value for key, value in fields.items()
        }
        line = {"time": when, "level": level.lower(), "logger": name, **shown}
        return json.dumps(line, ensure_ascii=False)


def _arguments(record: logging.LogRecord) -> Iterable[object]:
    args = record.args
    values = args.values() if isinstance(args, Mapping) else args or ()
    return (record.msg, *(getattr(value, "message", value) for value in values))


class BatchingHandler(logging.Handler):
    """Writes what one turn of the event loop logged in one system call, at the turn's end.

    Warnings and worse, and whatever is logged outside of a loop, are written at once.
    """

    def __init__(self, stream: TextIO, form: Format = "text") -> None:
        super().__init__()
        self._stream = stream
        self._lines: list[str] = []
        self._formatter = JsonFormatter() if form == "json" else RedactingFormatter(_FORMAT)
        self.setFormatter(self._formatter)

    @property
    def structured(self) -> bool:
        """Lines are objects, with fields of their own."""
        return isinstance(self._formatter, JsonFormatter)

    def write_fields(self, name: str, fields: Mapping[str, object]) -> None:
        """The same as ``write`` where lines are objects."""
        assert isinstance(self._formatter, JsonFormatter)
        self._add(self._formatter.fields(name, fields))

    def write(self, name: str, text: str) -> None:
        """Write a line at INFO without a log record."""
        self._add(self._formatter.line(name, text))

    def _add(self, line: str) -> None:
        self._lines.append(line)
        if len(self._lines) == 1:
            self._flush_soon()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append(self.format(record))
            if record.levelno > logging.INFO:
                self.flush()
            elif len(self._lines) == 1:
                self._flush_soon()
        except Exception:  # noqa: BLE001  (logging's own rule: a line that cannot be written stops nobody)
            self.handleError(record)

    def flush(self) -> None:
        with self.lock or contextlib.nullcontext():
            lines, self._lines = self._lines, []
            if lines:
                self._stream.write("\n".join(lines) + "\n")
                self._stream.flush()

    def _flush_soon(self) -> None:
        # A fifth of what most verbs may take to start, and of them only the node logs.
        import asyncio

        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
        else:
            loop.call_soon(self.flush)


def configure(level: str = "INFO", stream: TextIO | None = None, form: Format = "text") -> None:
    """Send every log record to ``stream`` (stderr), as lines of text or of JSON; for entry points."""
    # Nothing that is written names them, and each record would look them up.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    for handler in root.handlers:
        handler.flush()
    if stream is None and isinstance(sys.stderr, TextIOWrapper):
        sys.stderr.reconfigure(encoding="utf-8")  # read by `yibu logs` under any other locale
    root.handlers[:] = [BatchingHandler(stream or sys.stderr, form)]
    root.setLevel(level)
    sys.excepthook = _write_defect


def write_line(logger: logging.Logger, text: str) -> None:
    """Log ``text`` at INFO; cheaply where nobody but ``BatchingHandler`` reads the record.

    A record looks up where it was made, what task made it and which handlers want it, which is a
    tenth of what a request costs.
    """
    handlers = logging.root.handlers
    if len(handlers) == 1 and isinstance(handlers[0], BatchingHandler) and not logger.handlers:
        handlers[0].write(logger.name, text)
    else:
        logger.handle(logger.makeRecord(logger.name, logging.INFO, "", 0, text, (), None))


def structured() -> BatchingHandler | None:
    """The handler that takes fields, where log lines are JSON objects; None where they are text."""
    handler = logging.root.handlers[0] if logging.root.handlers else None
    return handler if isinstance(handler, BatchingHandler) and handler.structured else None


def configure_quiet() -> None:
    """For a command that logs nothing: its warnings and a defect's traceback are redacted too.

    Warnings of libraries are left out: a person reads this, and what fails is raised as well.
    """
    logging.captureWarnings(True)
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(Redacting("%(message)s"))
        logging.lastResort.addFilter(lambda record: record.name.partition(".")[0] == "yibu")
    sys.excepthook = _write_defect


def _write_defect(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print an uncaught exception as Python does, redacted."""
    import traceback  # only where something has failed: it takes a while to import

    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))
