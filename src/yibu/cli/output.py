"""The one renderer: data goes to stdout, talk to stderr.

rich is imported where something is drawn, not before: `yibu ps --json` needs none of it.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from yibu.cli.streams import OutputError as OutputError  # noqa: PLC0414 - what writing may raise
from yibu.cli.words import word
from yibu.messages import english, tr
from yibu.units import size as size  # noqa: PLC0414 - for whoever writes sizes

_CODED = {"FITS", "FROM", "KIND", "RESULT", "STATE", "VERIFIED"}
"""Columns whose cells are codes with words in :mod:`yibu.cli.words`; names are not translated."""


def data(text: str) -> None:
    """Print a line that a script may read."""
    sys.stdout.write(text + "\n")


def flush() -> None:
    """Flush stdout for the reader of a pipe."""
    sys.stdout.flush()


def data_json(value: Any) -> None:
    """Print JSON for a program: its texts are English, whatever language the terminal uses."""
    sys.stdout.write(json.dumps(english(value), ensure_ascii=False, indent=2) + "\n")


def talk(text: str) -> None:
    """Print a line for the user, on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def say(template: str, /, **values: object) -> None:
    """Print a line for the user, in the terminal's language."""
    talk(tr(template, **values))


def listing(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    as_json: bool,
    kind: str,
    none: str = "",
) -> None:
    """Print rows as a table, or as ``{"version": 1, kind: rows}``.

    Cells of the table are the row's values under the lower-case name of the column. ``none`` is
    printed on stderr where there are no rows.
    """
    if as_json:
        data_json({"version": 1, kind: list(rows)})
        return
    table([[_cell(row.get(column.lower()), column) for column in columns] for row in rows], columns)
    if none and not rows:
        flush()
        talk(none)


def table(rows: Iterable[Sequence[str]], columns: Sequence[str]) -> None:
    """Print aligned columns; drawn with rich on a terminal, plain elsewhere."""
    lines, columns = [list(row) for row in rows], [tr(column) for column in columns]
    if sys.stdout.isatty():
        _rich_table(lines, columns)
        return
    widths = [max(cell_width(row[i]) for row in [columns, *lines]) for i in range(len(columns))]
    for row in [columns, *lines]:
        cells = (padded(cell, width) for cell, width in zip(row, widths, strict=True))
        data("  ".join(cells).rstrip())


def cell_width(text: str) -> int:
    """The terminal columns of a text: Chinese characters take two (UAX #11)."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def padded(text: str, width: int) -> str:
    """The text padded with spaces to that many columns."""
    return text + " " * (width - cell_width(text))


def fields(values: Mapping[str, Any]) -> None:
    """Print values, a line each, after their names in the terminal's language."""
    labels = {key: word(key) for key in values}
    width = max(map(cell_width, labels.values()))
    for key, value in values.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else value
        data(f"{padded(labels[key], width)}  {text}")


def _rich_table(rows: Sequence[Sequence[str]], columns: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        drawn.add_column(column)
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    Console().print(drawn)


def _cell(value: Any, column: str) -> str:
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return ",".join(str(item) for item in value) or "-"
    return word(str(value)) if column in _CODED else str(value)
