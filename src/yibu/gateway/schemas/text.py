"""``POST /v1/completions`` and ``POST /v1/embeddings``, as OpenAI's specification has them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from yibu.gateway.schemas.base import Count, ModelName, Natural, Strict
from yibu.gateway.schemas.chat import Sampled

Tokens = Annotated[list[Natural], Field(min_length=1)]


class CompletionRequest(Sampled):
    """A text to continue."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1)]
        | Tokens
        | Annotated[list[Tokens], Field(min_length=1)]
    )
    suffix: str | None = None
    max_tokens: Natural | None = None
    best_of: Annotated[int, Field(ge=0, le=20)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: bool | None = None
    user: str | None = None


_Many = Field(min_length=1, max_length=2048)


class EmbeddingRequest(Strict):
    """Texts, or their tokens, to turn into vectors."""

    model: ModelName
    input: (
        str
        | Annotated[list[str], _Many]
        | Annotated[list[Natural], _Many]
        | Annotated[list[Tokens], _Many]
    )
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Count | None = None
    user: str | None = None


class AnyRequest(Strict):
    """A request of an engine's own kind, of which only the model's name is looked at."""

    model: ModelName
    stream: bool | None = None
