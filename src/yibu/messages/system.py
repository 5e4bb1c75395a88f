"""What the system and Python's libraries say: msgids of the catalogue."""

from __future__ import annotations

from pathlib import Path

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

SYSTEM = frozenset(Path(__file__).with_name("system.txt").read_text("utf-8").splitlines())
"""Of errors; so do the readers of JSON, orjson's too."""
