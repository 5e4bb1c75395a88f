"""Logging, configured only by entry points, with secrets taken out of whatever is written."""

from __future__ import annotations

import logging
import re
import sys
import time
from typing import TextIO

_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"

# What a secret looks like in a line: `Bearer x`, `api_key=x`, `"token": "x"`, `--api-key x`.
_SECRET = re.compile(
    r"(?i)(bearer\s+|(?:api[-_]?key|token|password|secret)[\"']?\s*[=:\s]\s*[\"']?)([^\s\"',}]{4,})"
)


def redact(text: str) -> str:
    """Replace everything that looks like a credential by ``***``."""
    low = text.lower()
    # One of these stands in whatever _SECRET finds; looking for them is ten times cheaper, and
    # every request writes a line.
    if "bearer" in low or "api" in low or "token" in low or "password" in low or "secret" in low:
        return _SECRET.sub(r"\1***", text)
    return text


class RedactingFormatter(logging.Formatter):
    """Formats as usual, then redacts: exceptions and third-party messages included."""

    _second = -1
    _text = ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802  (logging's name)
        """As usual, but a second's text is made once a second."""
        second = int(record.created)
        if datefmt is not None:
            return super().formatTime(record, datefmt)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        return f"{self._text},{int(record.msecs):03d}"

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def configure(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send every log record to ``stream`` (stderr); call it once, in an entry point."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(RedactingFormatter(_FORMAT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
