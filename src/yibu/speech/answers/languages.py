"""Language codes: what clients write, and the English names that OpenAI's answers carry."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from importlib import resources

from yibu.errors import InvalidRequestError
from yibu.messages import tr

_LINES = resources.files(__package__).joinpath("languages.txt").read_text("utf-8").splitlines()
_ROWS = [line.split() for line in _LINES if not line.startswith("#")]
NAMES: dict[str, str] = {code: name for code, name, *_ in _ROWS}
_CODES = {alias: code for code, name, *aliases in _ROWS for alias in (name, *aliases)}
_AUTOMATIC = frozenset(
    {"", "auto", "automatic", "autodetect", "auto-detect", "detect"}
) | frozenset({"und", "unknown", "none", "null", "undefined"})
"""Values that mean automatic detection."""


def normalized(language: str | None, known: Collection[str]) -> str:
    """The model's code for what a client wrote: ``zn``, ``zho``, ``zh-CN``, ``mandarin`` and
    ``Chinese (Simplified)`` are all ``zh``; nothing is ``auto``.

    Raises:
        InvalidRequestError: the model does not know it.
    """
    text = unicodedata.normalize("NFKC", language or "").casefold().strip()
    wanted = re.sub(r"[\s_()]+", "-", text).strip("-")
    if text in _AUTOMATIC:
        return "auto"
    first, last = wanted.partition("-")[0], wanted.rpartition("-")[2]
    # "haitian-creole" is whole, "zh-tw" and "portuguese-brazil" begin with it, "us-english" ends so.
    for candidate in (wanted, wanted.replace("-", "_"), first, last):
        code = _CODES.get(candidate, candidate)
        if code in known:
            return code
    shown = (
        ", ".join(sorted(known))
        if len(known) <= 12
        else tr("{count} codes such as en, zh", count=len(known))
    )
    raise InvalidRequestError(
        "The language {language!r} is not one this model knows: {shown}",
        language=(language or "")[:32],
        shown=shown,
        param="language",
        code="unknown_language",
    )


def name_of(code: str | None) -> str:
    """``chinese`` for ``zh``; the code itself where it has no name, ``unknown`` for None."""
    if code is None or code == "auto":
        return "unknown"
    return NAMES.get(code, code).replace("_", " ")
