"""Standard streams whose failures never end a command in a traceback.

A character that the terminal's encoding lacks is written in plain letters. Standard error that
cannot be written is done without. Standard output that cannot be written is an
:class:`OutputError`: data would be lost.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
import unicodedata
from typing import Any

from yibu.errors import YibuError
from yibu.messages import tr

_SPELT = {
    "→": "->", "…": "...", "✓": "+", "✗": "x", "×": "x", "–": "-", "—": "-", "·": "-",
    "“": '"', "”": '"', "‘": "'", "’": "'", "│": "|", "━": "-", "╸": "-", "╺": "-", "±": "+-",
}  # fmt: skip


class OutputError(YibuError):
    """Standard output was closed by its reader, or cannot be written."""

    def __init__(self, error: OSError) -> None:
        super().__init__(
            tr("Standard output cannot be written: {strerror}.", strerror=error.strerror)
        )
        self.reader_gone = error.errno == errno.EPIPE


class _Stdout(io.TextIOWrapper):
    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise OutputError(error) from error

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise OutputError(error) from error


class _Stderr(io.TextIOWrapper):
    """Standard error that drops what cannot be written."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            discard(self)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            discard(self)


def prepare() -> None:
    """Replace the standard streams; call it once, in an entry point, before anything is opened."""
    _open_missing()
    codecs.register_error("readable", _readable)
    sys.stdout = _wrapped(_Stdout, sys.stdout, 1)
    sys.stderr = _wrapped(_Stderr, sys.stderr, 2)


def _open_missing() -> None:
    """Open missing standard descriptors, which would otherwise be given to the next file or socket."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest one that is free
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for the whole process


def _wrapped(kind: type[io.TextIOWrapper], stream: Any, descriptor: int) -> io.TextIOWrapper:
    if stream is None:  # it was closed when Python started
        binary: Any = open(descriptor, "wb", closefd=False)  # noqa: SIM115 - for the whole process
        return kind(binary, encoding="utf-8", errors="readable")
    encoding, line_buffering = stream.encoding, stream.line_buffering
    return kind(
        stream.detach(), encoding=encoding, errors="readable", line_buffering=line_buffering
    )


def discard(stream: Any) -> None:
    """Point the stream's descriptor to the null device, so that buffered text can be flushed."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _readable(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that an encoding lacks: ``→`` by ``->``, ``é`` by ``e``, ``千`` by ``?``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    pieces = []
    for character in error.object[error.start : error.end]:
        spelt = _SPELT.get(character)
        if spelt is None:
            plain = unicodedata.normalize("NFKD", character)
            spelt = "".join(c for c in plain if c.isascii()) or "?"
        pieces.append(spelt)
    return "".join(pieces), error.end
