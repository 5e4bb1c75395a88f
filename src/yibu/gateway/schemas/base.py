"""What the request models share. Strict: ``"0.5"`` is no number and ``true`` is no integer.

Unknown fields pass, for they are the engines' own (``top_k``, ``guided_json`` …). Every optional
field may be null, as the clients that send nulls for everything need it.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import SchemaValidator


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", frozen=True, defer_build=True)


@cache
def validator(schema: type[Strict]) -> SchemaValidator:
    """Checks JSON objects against a model without making instances of it, which takes most of the
    time: it is the objects that are sent on.

    Built when first used, or by ``operations.build_validators``: a node listens the sooner.
    """
    schema.model_rebuild()
    return SchemaValidator(_of_objects(schema.__pydantic_core_schema__))


def _of_objects(node: Any) -> Any:
    """pydantic's schema with dicts in the place of models."""
    if isinstance(node, list | tuple):
        return type(node)(_of_objects(item) for item in node)
    if not isinstance(node, dict):
        return node
    if node.get("type") == "model":
        fields = cast("dict[str, Any]", node["schema"])["fields"]
        named = {field.get("validation_alias", name): field for name, field in fields.items()}
        reference = {"ref": node["ref"]} if "ref" in node else {}
        return {
            "type": "typed-dict",
            "fields": dict(map(_key, named, named.values())),
            "config": {"strict": True},
            **reference,
        }
    # Lists stop at their first fault: describing a million of them takes minutes.
    stops = {"fail_fast": True} if node.get("type") == "list" else {}
    return {key: _of_objects(value) for key, value in node.items()} | stops


def _key(name: str, field: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    optional = field["schema"]["type"] == "default"
    value = field["schema"]["schema"] if optional else field["schema"]
    return name, {
        "type": "typed-dict-field",
        "schema": _of_objects(value),
        "required": not optional,
    }


_MOST = 2**31 - 1
"""Engines count in 32 bits, where 2**32 + 5 tokens are five."""
Count = Annotated[int, Field(ge=1, le=_MOST)]
Natural = Annotated[int, Field(ge=0, le=_MOST)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Temperature = Annotated[float, Field(ge=0, le=2)]
Probability = Annotated[float, Field(ge=0, le=1)]
Bias = Annotated[float, Field(ge=-100, le=100)]
Choices = Annotated[int, Field(ge=1, le=128)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
NonEmpty = Annotated[str, Field(min_length=1)]
Stop = NonEmpty | Annotated[list[NonEmpty], Field(max_length=4)]
ModelName = Annotated[NonEmpty, Field(description="A name that `/v1/models` lists.")]
JsonObject = dict[str, Any]


class StreamOptions(Strict):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None
