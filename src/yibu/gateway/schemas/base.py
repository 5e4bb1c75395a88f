"""What the request models share. Strict: ``"0.5"`` is no number and ``true`` is no integer.

Unknown fields pass, for they are the engines' own (``top_k``, ``guided_json`` …). Every optional
field may be null, as the clients that send nulls for everything need it.
"""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema


class Strict(BaseModel):
    # Built when first used, or by ``operations.build_validators``: a node listens the sooner.
    model_config = ConfigDict(strict=True, extra="allow", frozen=True, defer_build=True)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[BaseModel], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Lists stop at their first fault: describing a million of them takes minutes."""
        return cast("CoreSchema", _fail_fast(handler(source)))


def _fail_fast(node: Any) -> Any:
    if isinstance(node, list | tuple):
        return type(node)(_fail_fast(item) for item in node)
    if not isinstance(node, dict):
        return node
    stops = {"fail_fast": True} if node.get("type") == "list" else {}
    return {key: _fail_fast(value) for key, value in node.items()} | stops


Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
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
