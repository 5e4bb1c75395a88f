"""Answers checked against the API's schemas."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from yibu.engines.answers import Fields
from yibu.gateway.schemas.base import Strict, validator


def conform(answer: Fields, shape: type[Strict]) -> None:
    """Remove values of another type than the API has, where they may be missing or null.

    Raises:
        ValueError: it may not, or a part that has to be there is missing.
    """
    check = validator(shape).validate_python
    for repair in (_leave_out, _set_null):
        try:
            check(answer)
        except ValidationError as error:
            for item in error.errors(include_url=False, include_input=False):
                holder, name, _ = _place(item["loc"], answer)
                repair(holder, name)
        else:
            return
    try:
        check(answer)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = _place(first["loc"], answer)[2]
        raise ValueError(f"{path}: {first['msg']}") from None


def _leave_out(holder: Fields, name: str) -> None:
    holder.pop(name, None)


def _set_null(holder: Fields, name: str) -> None:
    holder[name] = None


def _place(loc: tuple[int | str, ...], answer: Fields) -> tuple[Fields, str, str]:
    """The object with the field at fault, the field's name, and its path.

    ``loc`` names the members of unions too, which are no fields.
    """
    holder, name, path = answer, str(loc[0]), ""
    value: Any = answer
    for number, step in enumerate(loc):
        missing = number == len(loc) - 1
        if isinstance(value, dict) and (step in value or missing):
            holder, name, value = value, str(step), value.get(step)
            path += f".{step}"
        elif isinstance(value, list) and isinstance(step, int):
            value = value[step]
            path += f"[{step}]"
    return holder, name, path.removeprefix(".")
