"""Flag tables of servers whose parsers ``yibu.launchers.argparse_flags`` reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yibu.engines.flags import FlagTable


def table_from(plain: Mapping[str, Any]) -> FlagTable:
    """The table of what the launcher printed.

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
