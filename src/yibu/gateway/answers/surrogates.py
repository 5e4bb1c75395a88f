"""Characters beyond U+FFFF, which JSON may escape as two surrogates: an engine may send them in two events.

Half of one is no text: clients in Python cannot encode it, and never put it together again.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

_LONE = re.compile(
    rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
)


class SurrogateJoiner:
    """Joins split surrogate pairs in one stream of JSON objects; a half whose other half never comes
    becomes U+FFFD."""

    def __init__(self) -> None:
        self.held: dict[tuple[Any, ...], str] = {}
        """High surrogates at the end of a text, by the text's path in the object."""

    def join(self, data: bytes) -> bytes:
        """The object without half characters."""
        if not self.held and not (b"\\u" in data and _LONE.search(data)):
            return data
        try:
            value = json.loads(data, parse_int=_number)
            return orjson.dumps(self._joined(value, ()))
        except (ValueError, RecursionError, orjson.JSONEncodeError):  # no JSON, or nested too deep
            return data  # whoever parses it says so

    def _joined(self, value: Any, path: tuple[Any, ...]) -> Any:
        if isinstance(value, dict):
            return {name: self._joined(item, (*path, name)) for name, item in value.items()}
        if isinstance(value, list):
            return [self._joined(item, (*path, _place(item, at))) for at, item in enumerate(value)]
        if not isinstance(value, str):
            return value
        text = self.held.pop(path, "") + value
        if "\ud800" <= text[-1:] <= "\udbff":
            self.held[path] = text[-1]
            text = text[:-1]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _number(text: str) -> int | float:
    """An integer as orjson reads it: beyond 64 bits it is a float."""
    value = int(text)
    return value if -(2**63) <= value < 2**64 else float(text)


def _place(item: Any, at: int) -> Any:
    return item.get("index", at) if isinstance(item, dict) else at
