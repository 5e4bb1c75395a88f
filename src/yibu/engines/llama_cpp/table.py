"""llama-server's flag table: its source's flags, and those of older builds that scripts still use."""

from __future__ import annotations

from collections.abc import Mapping

from yibu.config.engines import engine_table
from yibu.engines.flags import FlagTable, pinned_flags

_WRITTEN = pinned_flags(__package__)
"""Written by scripts/llama_server_flags.py. A row has a flag's spellings, its negations, what follows it
(``switch`` nothing, ``int`` a whole number, ``text`` a word, ``pair`` two words, ``removed`` nothing, for
llama.cpp refuses it) and its environment variable."""
ROWS: tuple[tuple[str, str, str, str], ...] = tuple(map(tuple, _WRITTEN["rows"]))
ASSIGNED: Mapping[str, str] = _WRITTEN["assigned"]
"""The fields of ``common_params`` that flags set to their value as it stands, or to ``=true``, ``=false``
or, where the value is turned round, ``!value``."""
FIELDS: Mapping[str, str] = pinned_flags(__package__, "fields.json")["fields"]
"""The fields of ``common_params`` → their kinds; one in angle brackets is an enumeration, its words after the
colon. Written by scripts/llama_cpp_fields.py."""
ALL = 999
"""More layers than any model has."""
NAMES: Mapping[str, Mapping[str, str]] = engine_table("llama.cpp", "names.toml")
"""Names that no script can extract from llama.cpp's source."""
FIELD_OPTIONS = NAMES["planned"]
"""Fields of ``common_params`` that the plan reads → the flags that set them."""


def _name(spellings: str) -> str:
    return max(spellings.split(), key=len).lstrip("-").replace("-", "_")


def _make() -> FlagTable:
    kinds: dict[str, str] = {}
    short: dict[str, str] = {}
    negations: dict[str, str] = {}
    variables: dict[str, str] = {}
    former = ((spellings, "", kind, "") for spellings, kind in NAMES["former"].items())
    for spellings, negated, kind, variable in (*ROWS, *former):
        name = _name(spellings)
        kinds[name] = kind
        short |= {
            spelling: name
            for word in spellings.split()
            if (spelling := word.lstrip("-").replace("-", "_")) != name
        }
        negations |= {word.lstrip("-").replace("-", "_"): name for word in negated.split()}
        # The token is the hub's own variable, and the engine's server asks no hub here.
        if variable and name != "hf_token":
            variables[variable] = name
            if negated:
                variables[variable.replace("LLAMA_ARG_", "LLAMA_ARG_NO_")] = f"no_{name}"
    return FlagTable(
        _WRITTEN["version"],
        (kinds),
        (short),
        negations=(negations),
        variables=(variables),
        strict=True,
        loose=frozenset({"flash_attn"}),
    )


TABLE = _make()
