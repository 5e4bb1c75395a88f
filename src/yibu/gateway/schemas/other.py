"""Requests of other APIs than OpenAI's oldest, as far as every engine agrees on them.

``POST /v1/responses`` after OpenAI's specification, ``POST /v1/messages`` after Anthropic's
(https://docs.anthropic.com/en/api/messages), ``POST /v1/rerank`` after Jina's and Cohere's, ``POST /tokenize`` after
vLLM's. What stands in their messages, items and tools is the engine's to check.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from yibu.gateway.schemas.base import (
    Count,
    JsonObject,
    ModelName,
    Natural,
    NonEmpty,
    Probability,
    Strict,
    Temperature,
)


class ResponsesRequest(Strict):
    """A response to make."""

    model: ModelName
    input: str | list[JsonObject] | None = None
    instructions: str | None = None
    max_output_tokens: Count | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    tools: list[JsonObject] | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    background: bool | None = None
    stream: bool | None = None


class Message(Strict):
    role: Literal["user", "assistant", "system"]
    content: str | list[JsonObject]


class MessagesRequest(Strict):
    """A message to answer, in Anthropic's words."""

    model: ModelName
    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Count
    system: str | list[JsonObject] | None = None
    stop_sequences: list[NonEmpty] | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: int | None = None
    tools: list[JsonObject] | None = None
    stream: bool | None = None


class CountTokensRequest(Strict):
    """A message whose tokens are to be counted."""

    model: ModelName
    messages: Annotated[list[Message], Field(min_length=1)]
    system: str | list[JsonObject] | None = None
    tools: list[JsonObject] | None = None


class RerankRequest(Strict):
    """Documents to put in the order of what they have to do with a query."""

    model: ModelName
    query: str | JsonObject
    documents: Annotated[list[str | JsonObject], Field(min_length=1)]
    top_n: Natural | None = None


class TokenizeRequest(Strict):
    """A text, or a chat, to cut into tokens; ``content`` is llama.cpp's word for ``prompt``."""

    model: ModelName
    prompt: str | None = None
    content: str | None = None
    messages: list[JsonObject] | None = None
    add_special_tokens: bool | None = None


class DetokenizeRequest(Strict):
    """Tokens to put together into a text."""

    model: ModelName
    tokens: list[Natural]
