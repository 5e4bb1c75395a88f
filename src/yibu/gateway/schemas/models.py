"""Lists of models: OpenAI's, with what other servers add to it, and Anthropic's."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class ModelMeta(BaseModel):
    """As llama.cpp's server has it."""

    n_ctx: int | None
    n_ctx_train: int | None
    n_params: int | None
    size: int | None


class Model(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    engine: str
    state: str
    capabilities: list[str]
    max_context: int | None = None
    """Tokens a request may have; clients look for it under the two names that follow as well."""
    max_model_len: int | None = None
    context_length: int | None = None
    parent: str | None = None
    """Of a LoRA adapter: its model."""
    meta: ModelMeta | None = None


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[Model]


class AnthropicModel(BaseModel):
    type: Literal["model"]
    id: str
    display_name: str
    created_at: str
    """RFC 3339."""
    lifecycle: Literal["active"]
    max_input_tokens: int | None
    max_tokens: int | None
    """Both are the context, which a prompt shares with its answer."""


class AnthropicModelList(BaseModel):
    data: list[AnthropicModel]
    has_more: bool
    first_id: str | None
    last_id: str | None
