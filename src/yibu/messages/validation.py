"""Descriptions of expected values for pydantic's errors, whose own texts are English only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from types import MappingProxyType
from typing import Any

from yibu.messages.message import filled, joined, tr

_INTEGER = tr("an integer")
_NUMBER = tr("a number")
_STRING = tr("a string")
_OBJECT = tr("an object")
_ARRAY = tr("an array")
_SWITCH = tr("true or false")

EXPECTED: Mapping[str, str] = MappingProxyType(
    {
        "bool_parsing": _SWITCH,
        "bool_type": _SWITCH,
        "dict_type": _OBJECT,
        "finite_number": tr("a finite number"),
        "float_parsing": _NUMBER,
        "float_type": _NUMBER,
        "greater_than": tr("more than {gt}"),
        "greater_than_equal": tr("at least {ge}"),
        "int_from_float": _INTEGER,
        "int_parsing": _INTEGER,
        "int_parsing_size": tr("an integer of fewer digits"),
        "int_type": _INTEGER,
        "invalid_key": tr("keys that are strings"),
        "less_than": tr("less than {lt}"),
        "less_than_equal": tr("at most {le}"),
        "list_type": _ARRAY,
        "tuple_type": _ARRAY,
        "model_attributes_type": _OBJECT,
        "model_type": _OBJECT,
        "none_required": tr("null"),
        "recursion_depth_exceeded": tr("a value of fewer levels"),
        "recursion_loop": tr("a value that does not contain itself"),
        "string_pattern_mismatch": tr("a string that matches {pattern}"),
        "string_too_long": tr("a string of length at most {max_length}"),
        "string_too_short": tr("a string of length at least {min_length}"),
        "string_type": _STRING,
        "string_unicode": tr("a string of Unicode text"),
        "too_long": tr("length at most {max_length}"),
        "too_short": tr("length at least {min_length}"),
    }
)
"""By pydantic's type of error, with the values of its context."""

_WHOLE: Mapping[str, str] = MappingProxyType(
    {"missing": tr("is missing"), "extra_forbidden": tr("is not known here")}
)

_TYPES: Mapping[type, str] = MappingProxyType(
    {
        dict: _OBJECT,
        list: _ARRAY,
        str: _STRING,
        bool: tr("a boolean"),
        int: _INTEGER,
        float: _NUMBER,
        type(None): tr("null"),
    }
)


def type_name(value: object) -> str:
    """JSON's name for the type of a value."""
    name = _TYPES.get(type(value))
    return type(value).__name__ if name is None else filled(name)


def complaint(faults: Sequence[Mapping[str, Any]], found: str = "") -> str:
    """``expected an integer or a string, found 'x'``, for pydantic's errors about one value.

    A validator of our own has its whole sentence. ``found`` is empty for what must not be shown.
    """
    if (whole := _WHOLE.get(faults[0]["type"])) is not None:
        return filled(whole)
    error = faults[0].get("ctx", {}).get("error")
    if isinstance(error, Exception) and error.args:
        text: str = error.args[0]
        if not found or found in text:
            return text
        return tr("{text}, found {shown}", text=text, shown=found)
    known = dict.fromkeys(map(_expected, faults))
    expected = reduce(lambda first, last: tr("{first} or {last}", first=first, last=last), known)
    if not found:
        return tr("expected {expected}", expected=expected)
    return tr("expected {expected}, found {found}", expected=expected, found=found)


def _expected(fault: Mapping[str, Any]) -> str:
    context = fault.get("ctx", {})
    match fault["type"]:
        case "literal_error" | "enum":
            return _alternatives(context["expected"])
        case "union_tag_invalid":
            return _alternatives(context["expected_tags"])
    template = EXPECTED.get(fault["type"])
    return fault["msg"] if template is None else filled(template, **context)


def _alternatives(listed: str) -> str:
    """``'a', 'b' or 'c'`` in the reader's language."""
    several, _, last = listed.rpartition(" or ")
    if not several:
        return last
    return tr("{first} or {last}", first=joined(", ", several.split(", ")), last=last)
