"""Flag tables of servers whose parsers were written down by scripts/argparse_flags.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from yibu.engines.flags import FlagTable


class Written(Protocol):
    """A module that the script wrote."""

    VERSION: str
    SWITCH: str
    VALUE: str
    VALUES: str
    SHORT: str
    NEGATIONS: str
    CHOICES: str


def table_of(written: Written) -> FlagTable:
    """The table of the pinned version."""
    kinds = (("switch", written.SWITCH), ("value", written.VALUE), ("values", written.VALUES))
    return FlagTable(
        version=written.VERSION,
        flags={name: kind for kind, names in kinds for name in names.split()},
        short=_reversed(written.SHORT),
        choices={name: tuple(words) for name, words in _rows(written.CHOICES).items()},
        negations=_reversed(written.NEGATIONS),
        abbreviates=True,
    )


def table_from(plain: Mapping[str, Any]) -> FlagTable:
    """The table of another version, as ``yibu.launchers.argparse_flags`` printed it.

    Raises:
        KeyError: it lacks a part.
    """
    return FlagTable(
        version=plain["version"],
        flags=plain["flags"],
        short=plain["short"],
        choices=plain["choices"],
        negations=plain["negations"],
        abbreviates=True,
    )


def _rows(text: str) -> dict[str, list[str]]:
    rows = (row.partition(":") for row in text.split(";") if row.strip())
    return {name.strip(): words.split() for name, _, words in rows}


def _reversed(text: str) -> dict[str, str]:
    return {word: name for name, words in _rows(text).items() for word in words}
