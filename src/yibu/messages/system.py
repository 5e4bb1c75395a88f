"""What the system and Python's libraries say: msgids of the catalogue."""

from __future__ import annotations

ARGPARSE = (
    "%(prog)s: error: %(message)s\n",
    "argument %(argument_name)s: %(message)s",
    "expected one argument",
    "invalid choice: %(value)r (choose from %(choices)s)",
    "options",
    "show this help message and exit",
    "the following arguments are required: %s",
    "unrecognized arguments: %s",
    "usage: ",
)
"""Which argparse looks up by gettext (``yibu.speech.__main__``)."""

SYSTEM = frozenset(
    (
        "Address already in use",
        "Broken pipe",
        "Cannot allocate memory",
        "Cannot assign requested address",
        "Connection refused",
        "Connection reset by peer",
        "Connection timed out",
        "Device or resource busy",
        "Expecting ',' delimiter",
        "Expecting ':' delimiter",
        "Expecting property name enclosed in double quotes",
        "Expecting value",
        "Extra data",
        "Disk quota exceeded",
        "Exec format error",
        "File exists",
        "File name too long",
        "Input/output error",
        "Invalid control character at",
        "Is a directory",
        "Name or service not known",
        "Network is unreachable",
        "No address associated with hostname",
        "No route to host",
        "No space left on device",
        "No such file or directory",
        "No such process",
        "Not a directory",
        "Operation not permitted",
        "Permission denied",
        "Read-only file system",
        "Stale file handle",
        "Temporary failure in name resolution",
        "Too many levels of symbolic links",
        "Too many open files",
        "Unterminated string starting at",
        "invalid start byte",
        "truncated data",
        "unexpected character",
        "unexpected end of data",
    )
)
"""Of errors; so do the readers of JSON, orjson's too."""
