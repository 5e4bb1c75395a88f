"""What the request models share. Strict: ``"0.5"`` is no number and ``true`` is no integer.

Unknown fields pass, for they are the engines' own (``top_k``, ``guided_json`` …). Every optional
field may be null, as the clients that send nulls for everything need it.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, SchemaValidator, core_schema

from yibu.messages import tr


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


class OneOf:
    """The members of a union, told by ``field``; what has the name of none is ``other``."""

    def __init__(self, field: str, unsaid: str = "other", **members: type[Strict]) -> None:
        self._field, self._unsaid, self._members = field, unsaid, members

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        members = {name: handler.generate_schema(kind) for name, kind in self._members.items()}
        return core_schema.tagged_union_schema(members, self._find)

    def _find(self, value: Any) -> str:  # pydantic calls it with whatever the client sent
        name = value.get(self._field, self._unsaid) if isinstance(value, dict) else None
        return name if isinstance(name, str) and name in self._members else "other"


_MOST = 2**31 - 1
"""Engines count in 32 bits, where 2**32 + 5 tokens are five."""
Count = Annotated[int, Field(ge=1, le=_MOST)]
Natural = Annotated[int, Field(ge=0, le=_MOST)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Temperature = Annotated[float, Field(ge=0, le=2)]
Probability = Annotated[float, Field(ge=0, le=1)]
Biases = dict[
    Annotated[str, Field(pattern=r"^[0-9]{1,10}$")], Annotated[float, Field(ge=-100, le=100)]
]
"""By token, whose number is written as JSON's keys have to be."""
Choices = Annotated[int, Field(ge=1, le=128)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
NonEmpty = Annotated[str, Field(min_length=1)]


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError(tr("expected a text that is more than spaces"))
    return text


Said = Annotated[str, AfterValidator(_said)]
Stop = NonEmpty | Annotated[list[NonEmpty], Field(max_length=4)]
ModelName = Annotated[NonEmpty, Field(description="A name that `/v1/models` lists.")]
JsonObject = dict[str, Any]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Verbosity = Literal["low", "medium", "high"]


class ResponseStreamOptions(Strict):
    include_obfuscation: bool | None = None


class StreamOptions(ResponseStreamOptions):
    include_usage: bool | None = None


class CacheOptions(Strict):
    ttl: Literal["30m"] | None = None
    mode: Literal["implicit", "explicit"] | None = None


class Labelled(Strict):
    """What requests of OpenAI's newer APIs say of themselves: nothing that changes an answer here."""

    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
            Field(max_length=16),
        ]
        | None
    ) = None
    safety_identifier: Annotated[str, Field(max_length=64)] | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    prompt_cache_options: CacheOptions | None = None
    prompt_cache_key: str | None = None
    user: str | None = None
