"""Logging, configured only by entry points, with secrets taken out of whatever is written."""

from __future__ import annotations

import logging
import re
import sys
from typing import TextIO

_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"

# What a secret looks like in a line: `Bearer x`, `api_key=x`, `"token": "x"`, `--api-key x`.
_SECRET = re.compile(
    r"(?i)(bearer\s+|(?:api[-_]?key|token|password|secret)[\"']?\s*[=:\s]\s*[\"']?)([^\s\"',}]{4,})"
)


_HINTS = ("bearer", "api", "token", "password", "secret")
"""One of these stands in whatever ``_SECRET`` finds; looking for them is ten times cheaper."""


def redact(text: str) -> str:
    """Replace everything that looks like a credential by ``***``."""
    lowered = text.lower()
    if not any(hint in lowered for hint in _HINTS):
        return text
    return _SECRET.sub(r"\1***", text)


class RedactingFormatter(logging.Formatter):
    """Formats as usual, then redacts: exceptions and third-party messages included."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def configure(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send every log record to ``stream`` (stderr); call it once, in an entry point."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(RedactingFormatter(_FORMAT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
