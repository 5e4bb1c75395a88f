"""Every refusal that pydantic can make of what our schemas take is in the reader's language."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from pydantic_core._pydantic_core import list_all_errors

import yibu
from yibu.messages import render
from yibu.messages.validation import complaint

TEMPLATES = {error["type"]: error for error in list_all_errors()}
RAISED: dict[str, set[str]] = {
    "any": set(),
    "bool": {"bool_type", "bool_parsing"},
    "default": set(),
    "definition-ref": {"recursion_loop", "recursion_depth_exceeded"},
    "definitions": set(),
    "dict": {"dict_type", "too_short", "too_long"},
    "float": {"float_type", "float_parsing", "finite_number"},
    "function-after": {"value_error"},
    "function-before": {"value_error"},
    "int": {"int_type", "int_parsing", "int_parsing_size", "int_from_float"},
    "list": {"list_type", "too_short", "too_long"},
    "literal": {"literal_error"},
    "model": {"model_type"},
    "model-field": {"missing"},
    "model-fields": {"model_type", "model_attributes_type", "extra_forbidden", "invalid_key"},
    "nullable": set(),
    "str": {"string_type", "string_unicode", "string_too_short", "string_too_long",
            "string_pattern_mismatch"},
    "tagged-union": {"union_tag_invalid"},
    "no-info": set(),
    "tuple": {"tuple_type", "missing", "too_long"},
    "tuple-variable": {"too_short"},
    "union": set(),
}  # fmt: skip
"""pydantic's errors by the kind of schema that raises them; a kind that is not here fails the test."""
BOUNDS = {
    "gt": "greater_than",
    "ge": "greater_than_equal",
    "lt": "less_than",
    "le": "less_than_equal",
    "multiple_of": "multiple_of",
}
_HAN = re.compile("[\u4e00-\u9fff]")


def schemas() -> list[type[BaseModel]]:
    for module in pkgutil.walk_packages(yibu.__path__, "yibu."):
        if not module.name.startswith("yibu.speech"):  # needs its own environment
            importlib.import_module(module.name)
    found, waiting = set(), [BaseModel]
    while waiting:
        for schema in waiting.pop().__subclasses__():
            waiting.append(schema)
            if schema.__module__.startswith("yibu."):
                found.add(schema)
    return sorted(found, key=str)


def parts(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if isinstance(node.get("type"), str):
            yield node
        for key, value in node.items():
            if key not in ("serialization", "metadata", "default"):
                yield from parts(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from parts(value)


def test_every_error_that_our_schemas_raise_is_translated() -> None:
    raised = set()
    for schema in schemas():
        schema.model_rebuild()
        for part in parts(schema.__pydantic_core_schema__):
            raised |= RAISED[part["type"]]
            raised |= {error for bound, error in BOUNDS.items() if bound in part}
    assert len(raised) > 20
    for name in sorted(raised):
        context = dict(TEMPLATES[name].get("example_context") or {})
        if "error" in context:
            continue  # a validator's own text, which test_catalogues holds
        context |= {key: "'a', 'b' or 'c'" for key in context if key.startswith("expected")}
        text = complaint([{"type": name, "ctx": context, "msg": "English"}], "'x'")
        assert "English" not in text, name
        chinese = render(text, "zh_CN")
        assert _HAN.search(chinese), name
        assert not re.search(r"\b(a|an|or|expected|found|at)\b", re.sub("'[^']*'", "", chinese))


class Example(BaseModel):
    count: int | str
    kind: str


@pytest.mark.parametrize(
    ("values", "english", "chinese"),
    [
        ({"count": [], "kind": "a"}, "expected an integer or a string, found []", "应为整数或字符串，收到 []"),
        ({"count": 1}, "is missing", "缺失"),
        ({"count": 1, "kind": 3}, "expected a string, found 3", "应为字符串，收到 3"),
    ],
)  # fmt: skip
def test_a_refusal_in_both_languages(values: dict[str, Any], english: str, chinese: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Example.model_validate(values)
    faults = refused.value.errors()
    text = complaint(faults, repr(faults[0]["input"]))
    assert text == english
    assert render(text, "zh_CN") == chinese
